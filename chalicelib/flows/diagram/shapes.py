"""The parts of a drawing: boxes of nodes, bodies, lines with their labels."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.flows.diagram.layout import Box, Point, Route
from chalicelib.flows.diagram.palette import kind_of
from chalicelib.flows.diagram.text import clean, cut, escape, fit
from chalicelib.flows.dsl.model import Edge, Node

NORMAL, SMALL = 13, 11
"""Font sizes in pixels."""
_ARROW = 7
"""Pixels that an arrow stands before its box."""
LABEL_WIDTH = 110
"""Pixels of a label at most."""


@dataclass(frozen=True)
class Line:
    """An edge that is drawn, the body that it is in, its label, and the place of its handle among its source's."""

    edge: Edge
    owner: str
    label: str
    rank: int


def _marker(name: str) -> str:
    return (
        f"<marker id='{name or 'm'}' viewBox='0 0 8 8' refX='1' refY='4' markerWidth='8' markerHeight='8'"
        f" markerUnits='userSpaceOnUse' orient='auto-start-reverse'><path class='m {name}' d='M0 0L8 4L0 8z'/></marker>"
    )


MARKERS = "".join(_marker(name) for name in ("", "fail", "back", "taken"))


def box(node: Node, place: Box, state: str, *, detailed: bool) -> str:
    """Return the box of a node without a body.

    Parameters
    ----------
    state
        Of a run, '' where there is none.
    detailed
        With the full texts, which are shown when one points at it.
    """
    middle = place.x + place.width // 2
    kind = kind_of(node.type)
    inside = place.width - (48 if kind in ("edge", "pick") else 24)
    name, kept = fit(_name(node), NORMAL, inside), fit(_type(node, state), SMALL, inside)
    told = f"<title>{escape(_full(node, state))}</title>" if detailed else ""
    top = place.y + place.height // 2
    return (
        f"<g class='{kind} {state}'>{told}{_outline(kind, place)}"
        f"<text class='k' text-anchor='middle' x='{middle}' y='{top - 6}'>{escape(kept)}</text>"
        f"<text class='a' text-anchor='middle' x='{middle}' y='{top + 13}'>{escape(name)}</text></g>"
    )


def body(node: Node, place: Box, state: str) -> str:
    """Return the box of a node that holds its body."""
    x, y, inside = place.x, place.y, place.width - 40
    name, kept = fit(_name(node), NORMAL, inside), fit(_type(node, state), SMALL, inside)
    return (
        f"<g class='body {state}'><title>{escape(_full(node, state))}</title>"
        f"<rect class='s' x='{x}' y='{y}' width='{place.width}' height='{place.height}' rx='14'/>"
        f"<text class='k' x='{x + 20}' y='{y + 20}'>{escape(kept)}</text>"
        f"<text class='a' x='{x + 20}' y='{y + 36}'>{escape(name)}</text></g>"
    )


def line(drawn: Line, route: Route, taken: bool | None) -> str:
    """Return an edge with its label.

    Parameters
    ----------
    taken
        Whether a run went along it; None where no run is shown.
    """
    look = "taken" if taken else "back" if route.turned else "fail" if drawn.edge.failure else ""
    dashes = "fail" if drawn.edge.failure else "back" if route.turned else ""
    faded = "idle" if taken is False else ""
    classes = " ".join(dict.fromkeys(filter(None, ("p", dashes, look, faded))))
    end = "marker-start" if route.turned else "marker-end"
    way = (
        _loop(route.points)
        if drawn.edge.source == drawn.edge.target
        else _way(route.points, turned=route.turned)
    )
    return f"<path class='{classes}' d='{way}' {end}='url(#{look or 'm'})'/>" + _label(drawn, route, faded)


def _label(drawn: Line, route: Route, faded: str) -> str:
    text, look = drawn.label, "fail" if drawn.edge.failure else ""
    if route.turned:
        text, look = ("cycle" if not text else f"cycle: {text}"), "back"
    if not text:
        return ""
    x, y = route.points[0]
    # Beside the arrow or the loop that stands here.
    x += 26 if len(route.points) == 2 else 12 if route.turned else 8
    shown = fit(text, SMALL, LABEL_WIDTH)
    told = "" if shown == text else f"<title>{escape(cut(text, 300))}</title>"
    classes = " ".join(filter(None, ("l", look, faded)))
    return f"<text class='{classes}' x='{x}' y='{y - 5}'>{told}{escape(shown)}</text>"


def _outline(kind: str, place: Box) -> str:
    x, y, width_, height = place.x, place.y, place.width, place.height
    if kind == "pick":
        slope = 14
        return (
            f"<path class='s' stroke-linejoin='round' d='M{x} {y + height // 2}L{x + slope} {y}H{x + width_ - slope}"
            f"L{x + width_} {y + height // 2}L{x + width_ - slope} {y + height}H{x + slope}z'/>"
        )
    corner = height // 2 if kind == "edge" else 8
    return f"<rect class='s' x='{x}' y='{y}' width='{width_}' height='{height}' rx='{corner}'/>"


def _way(points: tuple[Point, ...], *, turned: bool) -> str:
    """A path: straight through layers, and in between along curves that leave and arrive level."""
    (x, y), *rest = points
    if turned:
        x += _ARROW
    else:
        rest[-1] = (rest[-1][0] - _ARROW, rest[-1][1])
    parts = [f"M{x} {y}"]
    for number, (next_x, next_y) in enumerate(rest):
        if next_y == y:
            if number + 1 == len(rest) or rest[number + 1][1] != y:
                parts.append(f"H{next_x}")
        else:
            middle = (x + next_x) // 2
            parts.append(f"C{middle} {y} {middle} {next_y} {next_x} {next_y}")
        x, y = next_x, next_y
    return "".join(parts)


def _loop(points: tuple[Point, ...]) -> str:
    (x, y), (end, top) = points
    return f"M{x + _ARROW} {y}C{x + 30} {y} {x + 30} {top - 14} {x} {top - 14}H{end + 8}Q{end} {top - 14} {end} {top}"


def _name(node: Node) -> str:
    return clean(node.alias_name) or clean(node.id.partition("::")[2]) or clean(node.id)


def _type(node: Node, state: str) -> str:
    named = node.type or clean(node.id.partition("::")[0]) or "?"
    return f"{named} · {state}" if state else named


def _full(node: Node, state: str) -> str:
    told = (cut(clean(node.alias_name), 300), cut(clean(node.id), 300), state)
    return "\n".join(part for part in told if part)
