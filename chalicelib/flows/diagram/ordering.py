"""The order of what stands in one layer, with few crossings: the barycenter method (Sugiyama, Tagawa, Toda 1981)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chalicelib.flows.diagram.limits import MAX_SWEEPS, ORDER_WORK

_PATIENCE = 3
"""Sweeps in a row without fewer crossings, after which it ends."""


@dataclass(frozen=True)
class Piece:
    """A piece of an edge between elements of two layers that follow each other.

    Parameters
    ----------
    upper, lower
        The elements: nodes, or lanes of edges that pass a layer.
    port
        From which of its ports, in their order, it leaves the upper one.
    """

    upper: int
    lower: int
    port: int


@dataclass
class Order:
    """Layers of elements in their order, and what it cost to find it: elements and pieces looked at."""

    layers: list[list[int]]
    work: int


def order(layer_of: Sequence[int], pieces: Sequence[Piece]) -> Order:
    """Order the elements of each layer.

    Parameters
    ----------
    layer_of
        Of each element, its layer; no layer is empty.
    """
    below: list[list[Piece]] = [[] for _ in layer_of]
    above: list[list[Piece]] = [[] for _ in layer_of]
    for piece in pieces:
        below[piece.upper].append(piece)
        above[piece.lower].append(piece)
    found = _first(layer_of, below, above)
    cost = len(layer_of) + len(pieces)
    work, best, fewest = cost, found, _crossings(found, below)
    position = [0] * len(layer_of)
    _number(found, position)
    current = [list(one) for one in found]
    idle = 0
    for sweep in range(min(MAX_SWEEPS, ORDER_WORK // max(1, cost))):
        if fewest == 0 or idle == _PATIENCE:
            break
        _sweep(current, above if sweep % 2 == 0 else below, position, downwards=sweep % 2 == 0)
        work += cost
        crossings = _crossings(current, below)
        idle += 1
        if crossings < fewest:
            best, fewest, idle = [list(one) for one in current], crossings, 0
    return Order(best, work)


def _first(
    layer_of: Sequence[int], below: Sequence[Sequence[Piece]], above: Sequence[Sequence[Piece]]
) -> list[list[int]]:
    """Each element where a walk along the edges first meets it: what is written one after the other stays so."""
    found: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    seen = bytearray(len(layer_of))
    for root in range(len(layer_of)):
        if above[root] or seen[root]:
            continue
        seen[root] = 1
        way = [root]
        while way:
            element = way.pop()
            found[layer_of[element]].append(element)
            # The first branch is walked first, so it is put on the pile last.
            for piece in sorted(below[element], key=lambda one: one.port)[::-1]:
                if not seen[piece.lower]:
                    seen[piece.lower] = 1
                    way.append(piece.lower)
    return found


def _number(layers: Sequence[Sequence[int]], position: list[int]) -> None:
    for layer in layers:
        for place, element in enumerate(layer):
            position[element] = place


def _sweep(
    layers: list[list[int]], neighbours: Sequence[Sequence[Piece]], position: list[int], *, downwards: bool
) -> None:
    """Sort each layer by the mean place of what its elements are connected with in the layer before."""
    for layer in layers if downwards else reversed(layers):
        key: dict[int, float] = {}
        for element in layer:
            near = neighbours[element]
            if not near:
                key[element] = float(position[element])
            elif downwards:
                key[element] = sum(position[one.upper] + one.port * 1e-3 for one in near) / len(near)
            else:
                key[element] = sum(position[one.lower] for one in near) / len(near)
        layer.sort(key=key.__getitem__)
        for place, element in enumerate(layer):
            position[element] = place


def _crossings(layers: Sequence[Sequence[int]], below: Sequence[Sequence[Piece]]) -> int:
    """Count how often pieces cross (Barth, Mutzel, Jünger 2004): inversions, by a tree of sums."""
    total = 0
    for upper, lower in pairwise(layers):
        place = {element: number for number, element in enumerate(lower)}
        tree = [0] * (len(lower) + 1)
        met = 0
        for element in upper:
            # Ports take the order that crosses least, see `layout`.
            targets = sorted(place[piece.lower] for piece in below[element])
            for target in targets:
                total += met - _up_to(tree, target + 1)
            for target in targets:
                _count(tree, target + 1)
            met += len(targets)
    return total


def _up_to(tree: Sequence[int], index: int) -> int:
    found = 0
    while index:
        found += tree[index]
        index &= index - 1
    return found


def _count(tree: list[int], index: int) -> None:
    while index < len(tree):
        tree[index] += 1
        index += index & -index
