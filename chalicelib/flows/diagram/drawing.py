"""A flow as an SVG: `draw` is what this package is for.

The text is XML whatever a flow's author wrote, refers to nothing outside of itself, runs nothing, and is the same for
the same flow. Attributes stand in single quotes, which take one byte in the JSON of a function's answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from chalicelib.core.errors import Invalid
from chalicelib.flows.diagram import shapes
from chalicelib.flows.diagram.arrangement import Link
from chalicelib.flows.diagram.branches import label_of, names_of
from chalicelib.flows.diagram.layout import Layout, lay_out
from chalicelib.flows.diagram.limits import DETAILED_NODES, MAX_NODES, MAX_SVG_BYTES
from chalicelib.flows.diagram.palette import STATES, style
from chalicelib.flows.diagram.shapes import Line
from chalicelib.flows.diagram.text import clean, cut, escape, fit, width
from chalicelib.flows.dsl.model import Edge, Flow

_MARGIN, _HEADING = 32, 84
"""Pixels around the graph, and those that the flow's name takes above it."""
_LEAST_WIDTH = 360
_RAN = frozenset({"succeeded", "failed", "running", "waiting"})


def draw(flow: Flow, *, name: str, states: Mapping[str, str] | None = None, violations: int = 0) -> str:
    """Return a flow as an SVG document.

    Parameters
    ----------
    flow
        As `check_flow` or `drawable` gives it: each node in one body. Edges between bodies, or without an end, are left
        out; where edges form a cycle, one of them is marked.
    name
        The flow's, as its title.
    states
        Of a run, by node id: succeeded, failed, running, waiting or skipped. Nodes are coloured, and edges marked whose
        ends both ran: a failure edge if its source failed, any other if it succeeded.
    violations
        How many rules the flow breaks, for the description.

    Raises
    ------
    errors.Invalid
        `flow.too_large_to_draw`
    """
    if len(flow.nodes) > MAX_NODES:
        raise _too_large()
    bodies = _in_document_order(flow)
    lines = _lines(flow, bodies)
    layout = lay_out(bodies, _links(lines, bodies))
    svg = "".join(_parts(flow, layout, lines, clean(name), states, violations))
    if len(json.dumps(svg)) > MAX_SVG_BYTES:
        raise _too_large()
    return svg


def _too_large() -> Invalid:
    message = (
        f"A drawing has at most {MAX_NODES} nodes and {MAX_SVG_BYTES} bytes; this flow's would have more."
    )
    return Invalid(message, code="flow.too_large_to_draw")


def _in_document_order(flow: Flow) -> dict[str, list[str]]:
    """The bodies with their nodes as they are written, so that a draft looks like the version made of it."""
    owner_of = {node_id: owner for owner, ids in flow.bodies.items() for node_id in ids}
    bodies: dict[str, list[str]] = {owner: [] for owner in ("", *flow.bodies)}
    for node_id in flow.nodes:
        bodies[owner_of[node_id]].append(node_id)
    return bodies


def _lines(flow: Flow, bodies: Mapping[str, list[str]]) -> list[Line]:
    """The edges that are drawn, each once, with the names of their branches."""
    owner_of = {node_id: owner for owner, ids in bodies.items() for node_id in ids}
    names = {node_id: names_of(node) for node_id, node in flow.nodes.items()}
    found = []
    for edge in dict.fromkeys(flow.edges):
        owner = owner_of.get(edge.source)
        if owner is not None and owner == owner_of.get(edge.target):
            found.append(
                Line(edge, owner, label_of(edge, names[edge.source]), _rank(edge, names[edge.source]))
            )
    return found


def _rank(edge: Edge, names: Mapping[str, str]) -> int:
    if edge.failure or edge.handle not in names:
        return len(names)
    return list(names).index(edge.handle)


def _links(lines: Iterable[Line], bodies: Mapping[str, list[str]]) -> dict[str, list[Link]]:
    found: dict[str, list[Link]] = {owner: [] for owner in bodies}
    for number, line in enumerate(lines):
        edge = line.edge
        taken = min(shapes.LABEL_WIDTH, width(line.label, shapes.SMALL)) if line.label else 0
        found[line.owner].append(Link(edge.source, edge.target, edge.handle, line.rank, taken, number))
    return found


def _parts(
    flow: Flow,
    layout: Layout,
    lines: list[Line],
    name: str,
    states: Mapping[str, str] | None,
    violations: int,
) -> Iterator[str]:
    shown = name or "Flow"
    broken = f"{violations} rule{'' if violations == 1 else 's'} broken" if violations else ""
    counted = f"{len(flow.nodes)} nodes, {len(lines)} edges"
    across = max(layout.width + 2 * _MARGIN, _LEAST_WIDTH)
    down = layout.height + _HEADING + _MARGIN
    yield (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{across}' height='{down}' viewBox='0 0 {across} {down}'"
        " role='img' aria-labelledby='t d'>"
        f"<title id='t'>{escape(cut(shown, 200))}</title>"
        f"<desc id='d'>{escape(_description(flow, lines, states, violations))}</desc>"
        f"<style>{style()}</style><defs>{shapes.MARKERS}</defs><rect class='bg' width='100%' height='100%'/>"
        f"<text class='h' x='{_MARGIN}' y='40'>{escape(fit(shown, 18, across - 2 * _MARGIN))}</text>"
        f"<text class='d' x='{_MARGIN}' y='59'>{'; '.join(filter(None, (counted, broken)))}</text>"
        f"<g transform='translate({_MARGIN} {_HEADING})'>"
    )
    if not flow.nodes:
        yield "<text class='d' x='0' y='0'>There is nothing to draw.</text>"
    # Bodies lie above the box they are in, links behind the boxes that they pass.
    for node_id, box in layout.boxes.items():
        if box.has_body:
            yield shapes.body(flow.nodes[node_id], box, _state(states, node_id))
    for route in layout.routes:
        edge = lines[route.link.key].edge
        yield shapes.line(lines[route.link.key], route, None if states is None else _taken(edge, states))
    detailed = len(flow.nodes) <= DETAILED_NODES
    for node_id, box in layout.boxes.items():
        if not box.has_body:
            yield shapes.box(flow.nodes[node_id], box, _state(states, node_id), detailed=detailed)
    yield "</g></svg>\n"


def _description(flow: Flow, lines: list[Line], states: Mapping[str, str] | None, violations: int) -> str:
    """What a screen reader says of the picture."""
    bodies = len(flow.bodies) - 1
    said = [f"A flow of {len(flow.nodes)} nodes and {len(lines)} edges"]
    if bodies > 0:
        said.append(
            f"{bodies} of the nodes with a body of their own" if bodies > 1 else "one node with a body"
        )
    said.append("no rule broken" if not violations else f"violations: {violations}")
    if states is not None:
        counts = {state: sum(_state(states, node_id) == state for node_id in flow.nodes) for state in STATES}
        said += [f"{state}: {count}" for state, count in counts.items() if count]
    return "; ".join(said) + "."


def _state(states: Mapping[str, str] | None, node_id: str) -> str:
    state = "" if states is None else states.get(node_id, "")
    return state if state in STATES else ""


def _taken(edge: Edge, states: Mapping[str, str]) -> bool:
    ended = "failed" if edge.failure else "succeeded"
    return states.get(edge.source) == ended and states.get(edge.target) in _RAN
