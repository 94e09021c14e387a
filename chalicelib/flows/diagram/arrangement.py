"""One graph laid out by itself, from left to right, its top left corner at (0, 0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chalicelib.flows.diagram import ordering, placement
from chalicelib.flows.diagram.layers import layers, turned

LAYER_GAP, BOX_GAP, LANE_ROOM = 56, 30, 16
MOST_SPREAD = 140
"""Pixels between two layers that are added at most where links between them rise or fall far."""
PORT_GAP = 22
"""Pixels between two ports of a box, which leave room for a label above each link."""
LABEL_ROOM = 18
"""Pixels beside a label: before it, and to where its link may begin to bend."""
_BACK = "\0"
"""The port of links that lead back to a box."""
_STRAIGHT = 2
"""Pixels that a link may rise or fall without anyone seeing why; it is drawn straight."""


@dataclass(frozen=True)
class Link:
    """An arrow between two boxes of one graph.

    Parameters
    ----------
    port
        What it leaves its source by: links of one port leave it at one place.
    rank
        Where its port stands among those of its source, as written.
    label_width
        Pixels that its label takes; 0 without one.
    key
        The caller's own.
    """

    source: str
    target: str
    port: str = ""
    rank: int = 0
    label_width: int = 0
    key: int = 0


@dataclass(frozen=True)
class Way:
    """The way of a link, see `layout.Route`."""

    link: Link
    points: tuple[tuple[int, int], ...]
    turned: bool


@dataclass
class Arrangement:
    """A graph laid out: of each box (x, y, width, height), in the order that they were given in."""

    places: list[tuple[int, int, int, int]]
    ways: list[Way]
    width: int
    height: int
    lanes: int
    work: int


@dataclass
class _Run:
    """A link on its way: from `upper` over its lanes to `lower`; `passes` says that it has no lanes for its length."""

    link: Link
    upper: int
    lower: int
    is_turned: bool
    lanes: list[int]
    passes: bool

    @property
    def port(self) -> str:
        return _BACK if self.is_turned else self.link.port

    @property
    def elements(self) -> list[int]:
        return [self.upper, *self.lanes, self.lower]


def arrange(
    names: Sequence[str], sizes: Sequence[tuple[int, int]], links: Sequence[Link], most_lanes: int
) -> Arrangement:
    """Lay out one graph.

    Parameters
    ----------
    names, sizes
        Of its boxes; width and least height in pixels.
    most_lanes
        Places that links longer than one layer may be given in all.
    """
    number_of = {name: number for number, name in enumerate(names)}
    runs, layer_of = _runs(number_of, links, most_lanes)
    ordered = ordering.order(layer_of, _pieces(runs))
    offsets = _ports(runs, ordered.layers, len(names))
    heights = [
        max(sizes[number][1], _even(PORT_GAP * len(offsets[number]) + 12)) for number in range(len(names))
    ]
    room = [height + BOX_GAP for height in heights] + [LANE_ROOM] * (len(layer_of) - len(names))
    placed = placement.place(ordered.layers, room, _pulls(runs, offsets, len(names)))
    tops = [round(centre) - height // 2 for centre, height in zip(placed.centres, heights, strict=False)]
    lanes = [round(centre) for centre in placed.centres[len(names) :]]
    # Ends at the outermost box or lane, whichever it is.
    least = min([*tops, *lanes], default=0)
    tops, lanes = [top - least for top in tops], [lane - least for lane in lanes]
    centres = [top + height // 2 for top, height in zip(tops, heights, strict=True)] + lanes
    widths = [width for width, _ in sizes]
    columns = _columns(ordered.layers, widths, runs, centres, offsets)
    places = [
        (columns[layer_of[number]][0], tops[number], widths[number], heights[number])
        for number in range(len(names))
    ]
    ways = [_way(run, places, columns, layer_of, centres, offsets) for run in runs]
    ways += [_loop(link, places[number_of[link.source]]) for link in links if link.source == link.target]
    bottoms = [top + height for top, height in zip(tops, heights, strict=True)]
    return Arrangement(
        places,
        ways,
        width=max((x + width for x, _, width, _ in places), default=0),
        height=_even(max([*bottoms, *lanes], default=0)),
        lanes=len(lanes),
        work=len(names) + len(links) + ordered.work + placed.work,
    )


def _even(number: int) -> int:
    return number + number % 2


def _runs(number_of: dict[str, int], links: Sequence[Link], most_lanes: int) -> tuple[list[_Run], list[int]]:
    """Turn round what leads back, find the layers, and give long links their lanes, the shortest first."""
    through = [link for link in links if link.source != link.target]
    pairs = [(number_of[link.source], number_of[link.target]) for link in through]
    back = turned(len(number_of), pairs)
    pairs = [pair[::-1] if turn else pair for pair, turn in zip(pairs, back, strict=True)]
    layer_of = layers(len(number_of), pairs)
    runs = [
        _Run(link, upper, lower, turn, [], layer_of[lower] - layer_of[upper] > 1)
        for link, (upper, lower), turn in zip(through, pairs, back, strict=True)
    ]
    left = most_lanes
    for run in sorted(runs, key=lambda one: layer_of[one.lower] - layer_of[one.upper]):
        needed = layer_of[run.lower] - layer_of[run.upper] - 1
        if needed > left:
            break
        left -= needed
        run.passes = False
        for layer in range(layer_of[run.upper] + 1, layer_of[run.lower]):
            run.lanes.append(len(layer_of))
            layer_of.append(layer)
    return runs, layer_of


def _pieces(runs: Sequence[_Run]) -> list[ordering.Piece]:
    found = []
    for run in runs:
        if run.passes:
            continue
        port, elements = run.link.rank, run.elements
        for upper, lower in pairwise(elements):
            found.append(ordering.Piece(upper, lower, port))
            port = 0
    return found


def _ports(runs: Sequence[_Run], layers: Sequence[Sequence[int]], count: int) -> list[dict[str, int]]:
    """Of each box, how far below its centre each of its ports stands: in the order of what they lead to, so that links
    of one box do not cross."""
    position = {element: place for layer in layers for place, element in enumerate(layer)}
    leads_to: list[dict[str, list[tuple[int, int]]]] = [{} for _ in range(count)]
    for run in runs:
        place = (position[run.elements[1]], run.link.rank)
        leads_to[run.upper].setdefault(run.port, []).append(place)
    offsets = []
    for ports in leads_to:
        mean = {
            port: (sum(place for place, _ in found) / len(found), min(rank for _, rank in found))
            for port, found in ports.items()
        }
        ordered = sorted(mean, key=mean.__getitem__)
        first = -PORT_GAP * (len(ordered) - 1) // 2
        offsets.append({port: first + PORT_GAP * number for number, port in enumerate(ordered)})
    return offsets


def _pulls(runs: Sequence[_Run], offsets: Sequence[dict[str, int]], count: int) -> list[placement.Pull]:
    """What a link pulls; the parts of long ones strongly, so that they run straight (Gansner et al. 1993)."""
    found = []
    for run in runs:
        if run.passes:
            continue
        offset, elements = offsets[run.upper][run.port], run.elements
        for upper, lower in pairwise(elements):
            weight = 1.0 + 2.0 * ((upper >= count) + (lower >= count))
            found.append(placement.Pull(upper, lower, offset, weight * (0.5 if run.is_turned else 1.0)))
            offset = 0
    return found


def _columns(
    layers: Sequence[Sequence[int]],
    widths: Sequence[int],
    runs: Sequence[_Run],
    centres: Sequence[int],
    offsets: Sequence[dict[str, int]],
) -> list[tuple[int, int]]:
    """Left and right end of each layer. What lies between two holds the labels and the bends of the links."""
    layer_of = {element: number for number, layer in enumerate(layers) for element in layer}
    beyond = [0] * len(layers)
    spread = [0] * len(layers)
    right = [max((widths[one] for one in layer if one < len(widths)), default=0) for layer in layers]
    for run in runs:
        at, label = layer_of[run.upper], run.link.label_width
        if label and not run.is_turned:
            beyond[at] = max(beyond[at], widths[run.upper] + label + LABEL_ROOM - right[at])
        if run.passes:
            continue
        height, elements = centres[run.upper] + offsets[run.upper][run.port], run.elements
        for upper, lower in pairwise(elements):
            at = layer_of[upper]
            spread[at] = max(spread[at], abs(centres[lower] - height))
            height = centres[lower]
    columns, x = [], 0
    for number, width in enumerate(right):
        columns.append((x, x + width))
        x += width + beyond[number] + LAYER_GAP + min(MOST_SPREAD, spread[number] // 6)
    return columns


def _way(
    run: _Run,
    places: Sequence[tuple[int, int, int, int]],
    columns: Sequence[tuple[int, int]],
    layer_of: Sequence[int],
    centres: Sequence[int],
    offsets: Sequence[dict[str, int]],
) -> Way:
    x, _, width, _ = places[run.upper]
    y = centres[run.upper] + offsets[run.upper][run.port]
    label = 0 if run.is_turned else run.link.label_width
    # Straight as far as its own layer and its label reach.
    bend = max(columns[layer_of[run.upper]][1], x + width + (label + LABEL_ROOM if label else 0))
    points = [(x + width, y), (bend, y)]
    for lane in run.lanes:
        left, right = columns[layer_of[lane]]
        y = centres[lane] if abs(centres[lane] - y) > _STRAIGHT else y
        points += [(left, y), (right, y)]
    end = centres[run.lower]
    points.append((places[run.lower][0], end if abs(end - y) > _STRAIGHT else y))
    return Way(run.link, tuple(points), run.is_turned)


def _loop(link: Link, place: tuple[int, int, int, int]) -> Way:
    """A link of a box with itself: from its right side to its top."""
    x, y, width, height = place
    return Way(link, ((x + width, y + height // 2), (x + width - 28, y)), turned=True)
