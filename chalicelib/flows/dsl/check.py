"""A flow's data judged as a whole: everything that is wrong with it, or the flow.

A pure function, linear in nodes, edges and references: drafts are checked on every save, by 10,000 nodes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalicelib.flows.dsl import graph
from chalicelib.flows.dsl.bodies import FLOW, Bodies, check_starts_and_ends, divide, starts_of
from chalicelib.flows.dsl.branches import offers
from chalicelib.flows.dsl.carried import check_carried
from chalicelib.flows.dsl.findings import Findings, FlowViolation, shown
from chalicelib.flows.dsl.model import START, Flow
from chalicelib.flows.dsl.nodes import check_node
from chalicelib.flows.dsl.operations import worst_case
from chalicelib.flows.dsl.reading import Draft, read
from chalicelib.flows.dsl.recursion import Subflow, check_recursion
from chalicelib.flows.dsl.references import check_references, referenced

_MOST_NAMED = 10
"""Nodes of a cycle that a message names."""


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Parameters
    ----------
    flow
        The flow; None where there is any violation.
    violations
        The first 1,000.
    warnings
        What may be meant, at most 1,000: a reference to another type than the input declares.
    input_schema
        JSON Schema of the run's parameters, from the start node as far as it can be read.
    operations
        The worst case of durable operations; see `operations.worst_case`.
    total
        How many violations there are, those that are not listed included.
    """

    flow: Flow | None
    violations: tuple[FlowViolation, ...]
    warnings: tuple[FlowViolation, ...]
    input_schema: dict[str, Any]
    operations: int
    total: int


def check_flow(data: Any, *, subflow: Subflow | None = None, flow_id: str | None = None) -> Checked:
    """Judge a flow's data. It never raises, whatever the data.

    Parameters
    ----------
    data
        Parsed JSON. Keys may be spelt in snake_case.
    subflow
        Gives the data of a published flow in a version (None: the latest), or None where there is none. Without it,
        sub-flows are not looked at.
    flow_id
        The flow's own id, by which it would call itself.
    """
    findings, warnings = Findings(data), Findings(data)
    draft = read(data, findings)
    if draft is None:
        return Checked(None, tuple(findings.kept), (), _input_schema(None), 0, findings.total)
    for node in draft.nodes:
        check_node(node, findings)
    bodies, out = _check_graph(draft, findings, warnings)
    if subflow is not None:
        check_recursion(draft, flow_id, subflow, findings)
    flow = _flow(draft, bodies, out) if findings.total == 0 else None
    return Checked(
        flow,
        tuple(findings.kept),
        tuple(warnings.kept),
        _input_schema(draft),
        worst_case(draft, bodies, out),
        findings.total,
    )


def _check_graph(draft: Draft, findings: Findings, warnings: Findings) -> tuple[Bodies, list[list[int]]]:
    drawn: list[list[int]] = [[] for _ in draft.nodes]
    for source, target in _check_edges(draft, findings):
        drawn[source].append(target)
    bodies = divide(draft, drawn, findings)
    check_starts_and_ends(draft, bodies, findings)
    out = _own_edges(draft, drawn, bodies, findings)
    parts = graph.components(out)
    _check_cycles(draft, out, parts, findings)
    _check_reached(draft, bodies, findings)
    check_carried(draft, bodies, findings)
    widened = _with_ways_into_bodies(out, bodies)
    before = graph.ancestors(widened, graph.components(widened), referenced(draft))
    check_references(draft, before, findings, warnings)
    return bodies, out


def _check_edges(draft: Draft, findings: Findings) -> list[tuple[int, int]]:
    """Report edges without ends and wrong handles; return those with two ends."""
    found = []
    for index, edge in draft.edges:
        source, target = draft.by_id.get(edge.source), draft.by_id.get(edge.target)
        for end, name, given in (
            (source, "sourceNodeId", edge.source),
            (target, "targetNodeId", edge.target),
        ):
            if end is None:
                message = f"there is no node {shown(given)}"
                findings.add("edge.dangling", edge.source, name, message, ("edges", index, name))
        if source is None:
            continue
        if not offers(draft.nodes[source], edge.handle):
            message = f"it offers no branch {shown(edge.handle)!r}"
            steps = ("edges", index, "sourceHandle")
            findings.add("edge.handle", edge.source, "sourceHandle", message, steps)
        if target is not None:
            found.append((source, target))
    return found


def _own_edges(draft: Draft, drawn: list[list[int]], bodies: Bodies, findings: Findings) -> list[list[int]]:
    """The edges without those that lead into or out of a body, which are reported."""
    out: list[list[int]] = [[] for _ in drawn]
    for index, edge in draft.edges:
        source, target = draft.by_id.get(edge.source), draft.by_id.get(edge.target)
        if source is None or target is None:
            continue
        if bodies.crosses(source, target):
            message = f"{shown(edge.target)} belongs to another body"
            steps = ("edges", index, "targetNodeId")
            findings.add("edge.dangling", edge.source, "targetNodeId", message, steps)
        else:
            out[source].append(target)
    return out


def _check_cycles(draft: Draft, out: graph.Graph, parts: list[list[int]], findings: Findings) -> None:
    cyclic = [part for part in parts if graph.is_cyclic(out, part)]
    for part in sorted(cyclic, key=min):
        ids = [shown(draft.nodes[number].id) for number in graph.cycle(out, part)[: _MOST_NAMED + 1]]
        first = draft.nodes[min(part)]
        more = "" if len(ids) <= _MOST_NAMED else " → …"
        message = " → ".join(ids[:_MOST_NAMED]) + more
        findings.add("graph.cycle", first.id, "edges", message, ("nodes", first.index))


def _check_reached(draft: Draft, bodies: Bodies, findings: Findings) -> None:
    if not starts_of(draft):
        return  # unreachable from what? The missing start is told.
    for number, node in enumerate(draft.nodes):
        if number not in bodies.owner:
            message = "nothing leads to it from the start"
            findings.add("graph.unreachable", node.id, "id", message, ("nodes", node.index, "id"))


def _with_ways_into_bodies(out: list[list[int]], bodies: Bodies) -> list[list[int]]:
    """The edges, and more to the start of each body from all that leads to its owner: a body sees what its owner
    sees, but never the owner, which ends after it."""
    return [
        [*targets, *(bodies.starts[target] for target in targets if target in bodies.starts)]
        for targets in out
    ]


def _flow(draft: Draft, bodies: Bodies, out: graph.Graph) -> Flow:
    nodes = {node.id: node.frozen() for node in draft.nodes}
    members: dict[int, list[str]] = {owner: [] for owner in bodies.members}
    for number in graph.topological(out):
        members[bodies.owner[number]].append(draft.nodes[number].id)
    return Flow(
        nodes=nodes,
        edges=tuple(edge for _, edge in draft.edges),
        start=nodes[draft.nodes[starts_of(draft)[0]].id],
        bodies={"" if owner == FLOW else draft.nodes[owner].id: tuple(ids) for owner, ids in members.items()},
    )


def _input_schema(draft: Draft | None) -> dict[str, Any]:
    outputs = next((node.outputs for node in draft.nodes if node.type == START), []) if draft else []
    return {
        "type": "object",
        "properties": {
            output.name: {
                key: output.schema[key]
                for key in ("type", "description", "properties", "items", "required", "default")
                if key in output.schema and not (key == "required" and output.schema[key] in (True, False))
            }
            for output in outputs
        },
        "required": [output.name for output in outputs if output.required],
        "additionalProperties": False,
    }
