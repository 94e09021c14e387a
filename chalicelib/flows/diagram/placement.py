"""Where the elements of ordered layers stand across the direction of the flow: near what they are connected with,
never nearer to each other than they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.flows.diagram.limits import MAX_PASSES, PLACE_WORK


@dataclass(frozen=True)
class Pull:
    """What draws two elements to one height: `upper`'s centre plus `offset` to `lower`'s centre."""

    upper: int
    lower: int
    offset: float
    weight: float


_IDLE = 0.01
"""Weight of an element that nothing pulls: it stays, unless it is in the way."""


@dataclass
class Placed:
    """Centres of the elements, and what it cost to find them: elements and pulls looked at."""

    centres: list[float]
    work: int


def place(layers: Sequence[Sequence[int]], room: Sequence[float], pulls: Sequence[Pull]) -> Placed:
    """Return the centre of each element, by its number.

    Parameters
    ----------
    layers
        Elements in their order.
    room
        Height of each element with the gap around it: two neighbours are at least half the sum apart.
    """
    up: list[list[Pull]] = [[] for _ in room]
    down: list[list[Pull]] = [[] for _ in room]
    for pull in pulls:
        down[pull.upper].append(pull)
        up[pull.lower].append(pull)
    centres = [0.0] * len(room)
    for layer in layers:
        _pack(layer, room, centres)
    cost = len(room) + len(pulls)
    passes = max(1, min(MAX_PASSES, PLACE_WORK // max(1, 2 * cost)))
    for _ in range(passes):
        for layer in layers:
            _settle(layer, room, centres, up, None)
        for layer in reversed(layers):
            _settle(layer, room, centres, None, down)
    for layer in layers:
        _settle(layer, room, centres, up, down)
    return Placed(centres, (2 * passes + 2) * cost)


def _pack(layer: Sequence[int], room: Sequence[float], centres: list[float]) -> None:
    at = -sum(room[element] for element in layer) / 2
    for element in layer:
        centres[element] = at + room[element] / 2
        at += room[element]


def _settle(
    layer: Sequence[int],
    room: Sequence[float],
    centres: list[float],
    up: Sequence[Sequence[Pull]] | None,
    down: Sequence[Sequence[Pull]] | None,
) -> None:
    """Move the elements of a layer to where they are pulled, as far as their order and their room allow.

    With the room taken off, this is a weighted isotonic regression: neighbours that would overlap are pooled and stand
    where their weighted mean is (pool adjacent violators; each element is pooled once).
    """
    # Each pool: weight, weighted sum, number of elements.
    pools: list[tuple[float, float, int]] = []
    shift, shifts = 0.0, []
    for number, element in enumerate(layer):
        if number:
            shift += (room[layer[number - 1]] + room[element]) / 2
        shifts.append(shift)
        weight, total = _IDLE, _IDLE * centres[element]
        for pull in up[element] if up else ():
            weight += pull.weight
            total += pull.weight * (centres[pull.upper] + pull.offset)
        for pull in down[element] if down else ():
            weight += pull.weight
            total += pull.weight * (centres[pull.lower] - pull.offset)
        size = 1
        total -= weight * shift
        while pools and pools[-1][1] * weight > total * pools[-1][0]:
            before = pools.pop()
            weight, total, size = weight + before[0], total + before[1], size + before[2]
        pools.append((weight, total, size))
    number = 0
    for weight, total, size in pools:
        for _ in range(size):
            centres[layer[number]] = total / weight + shifts[number]
            number += 1
