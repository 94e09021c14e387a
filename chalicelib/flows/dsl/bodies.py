"""Which nodes belong together: the flow itself, and the body of each iteration and loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.graph import Graph, reach
from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, START, START_PARAMETERS
from chalicelib.flows.dsl.reading import Draft, DraftNode

FLOW = -1
"""Stands for the owner of what belongs to the flow itself."""


@dataclass
class Bodies:
    """The division of a draft; nodes and owners by their numbers.

    Parameters
    ----------
    starts
        By iteration or loop, the start node of its body.
    owner_of_start
        The same the other way round.
    members
        By owner (or `FLOW`), its nodes; outer bodies come before those within them.
    owner
        By node, its owner; what nothing reaches is not there.
    """

    starts: dict[int, int] = field(default_factory=dict)
    owner_of_start: dict[int, int] = field(default_factory=dict)
    members: dict[int, list[int]] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)

    def crosses(self, source: int, target: int) -> bool:
        """Whether an edge leads from one graph into another."""
        here = self.owner.get(source)
        there = self.owner_of_start.get(target, self.owner.get(target))
        return here is not None and there is not None and here != there


def divide(draft: Draft, out: Graph, findings: Findings) -> Bodies:
    """Find what belongs to the flow, then what belongs to the bodies in it, from outside to inside.

    A node that two graphs reach belongs to the outer one; the edge that leads to it from the other is then wrong.
    """
    bodies = Bodies()
    _claim_starts(draft, bodies, findings)
    seen = set(bodies.owner_of_start)
    pending = deque([FLOW])
    while pending:
        owner = pending.popleft()
        if owner == FLOW:
            roots = _roots(draft, out, bodies)
        else:
            roots = [bodies.starts[owner]]
            seen.discard(roots[0])
        members = reach(out, roots, seen)
        bodies.members[owner] = members
        bodies.owner.update(dict.fromkeys(members, owner))
        pending.extend(member for member in members if member in bodies.starts)
    return bodies


def _claim_starts(draft: Draft, bodies: Bodies, findings: Findings) -> None:
    for number, node in enumerate(draft.nodes):
        name = START_PARAMETERS.get(node.type)
        if name is None or node.params is None:
            continue
        start_id = node.params[name]
        start = draft.by_id.get(start_id)
        message = ""
        if start is None:
            message = f"there is no node {shown(start_id)}"
        elif BODY_STARTS.get(draft.nodes[start].type) != node.type:
            message = f"{shown(start_id)} does not start the body of a node of type {node.type}"
        elif start in bodies.owner_of_start:
            owner = draft.nodes[bodies.owner_of_start[start]]
            message = f"{shown(start_id)} already starts the body of {shown(owner.id)}"
        else:
            bodies.owner_of_start[start] = number
            bodies.starts[number] = start
        if message:
            findings.add("param.schema", node.id, f"nodeParam.{name}", message, node.steps("nodeParam", name))


def starts_of(draft: Draft) -> list[int]:
    """The start nodes of the flow itself."""
    return [number for number, node in enumerate(draft.nodes) if node.type == START]


def _roots(draft: Draft, out: Graph, bodies: Bodies) -> list[int]:
    """Where the flow begins; without a start node, all that nothing leads to, so that the rest can be judged."""
    starts = starts_of(draft)
    if starts:
        return starts
    entered = {target for targets in out for target in targets}
    return [
        number
        for number, node in enumerate(draft.nodes)
        if number not in entered and node.type not in BODY_STARTS
    ]


def check_starts_and_ends(draft: Draft, bodies: Bodies, findings: Findings) -> None:
    """One start, an end that it reaches, and in each body an end of its kind."""
    starts = starts_of(draft)
    if len(starts) != 1:
        named = ", ".join(shown(draft.nodes[number].id) for number in starts[:5])
        message = f"has {len(starts)} start nodes ({named})" if starts else "has no start node"
        findings.add("start.count", "", "nodes", message, ("nodes",))
    ends = [number for number, node in enumerate(draft.nodes) if node.type == END]
    if not ends:
        findings.add("end.missing", "", "nodes", "has no end node", ("nodes",))
    elif starts and not any(bodies.owner.get(end) == FLOW for end in ends):
        end = draft.nodes[ends[0]]
        findings.add("end.unreachable", end.id, "id", "no end is reached from the start", _id(end))
    for owner, members in bodies.members.items():
        _check_body(draft, owner, members, bodies, findings)


def _check_body(draft: Draft, owner: int, members: list[int], bodies: Bodies, findings: Findings) -> None:
    kind = "" if owner == FLOW else draft.nodes[owner].type
    for number, message in _misplaced(draft, kind, members, bodies):
        node = draft.nodes[number]
        findings.add("node.type", node.id, "id", message, _id(node))
    if kind and not body_ends(draft, kind, members):
        node, name = draft.nodes[owner], START_PARAMETERS[kind]
        message = f"its body reaches no {kind}-node-end"
        findings.add("end.missing", node.id, f"nodeParam.{name}", message, node.steps("nodeParam", name))


def body_ends(draft: Draft, kind: str, members: list[int]) -> list[int]:
    """The nodes that end the body of an iteration or a loop."""
    return [number for number in members if BODY_ENDS.get(draft.nodes[number].type) == kind]


def _misplaced(draft: Draft, kind: str, members: list[int], bodies: Bodies) -> Iterator[tuple[int, str]]:
    for number in members:
        node_type = draft.nodes[number].type
        if node_type == END and kind:
            yield number, f"a flow ends in it, but it stands in the body of a node of type {kind}"
        elif node_type in BODY_ENDS and BODY_ENDS[node_type] != kind:
            yield number, f"it ends the body of a node of type {BODY_ENDS[node_type]}, but stands in none"
        elif node_type in BODY_STARTS and number not in bodies.owner_of_start:
            yield number, "it starts no body"


def _id(node: DraftNode) -> tuple[str | int, ...]:
    return "nodes", node.index, "id"
