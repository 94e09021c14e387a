"""A flow made ready to be run: for each body its nodes by number, and which edges lead where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.flows.dsl.model import Edge, Flow, Node

ROOT = ""
"""The owner of what belongs to the flow itself, in `Flow.bodies`."""


@dataclass(frozen=True)
class Body:
    """Nodes that are run together: those of the flow itself, or those of an iteration or a loop.

    Parameters
    ----------
    nodes
        Each after all that it waits for: the graph order, in which contents and results stand.
    out
        By node, its edges with the number of the node that they lead to.
    incoming
        By node, how many edges lead to it.
    """

    nodes: tuple[Node, ...]
    out: tuple[tuple[tuple[Edge, int], ...], ...]
    incoming: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A flow with its bodies by owner; shared by all runs of it in a process, so never changed."""

    flow: Flow
    bodies: Mapping[str, Body]

    @property
    def root(self) -> Body:
        return self.bodies[ROOT]


def plan_of(flow: Flow) -> Plan:
    """Return the plan of a flow; linear in its nodes and edges."""
    owner_of: dict[str, str] = {}
    number: dict[str, int] = {}
    for owner, ids in flow.bodies.items():
        for position, node_id in enumerate(ids):
            owner_of[node_id], number[node_id] = owner, position
    out: dict[str, list[list[tuple[Edge, int]]]] = {o: [[] for _ in ids] for o, ids in flow.bodies.items()}
    incoming: dict[str, list[int]] = {owner: [0] * len(ids) for owner, ids in flow.bodies.items()}
    for edge in flow.edges:
        owner = owner_of[edge.source]
        out[owner][number[edge.source]].append((edge, number[edge.target]))
        incoming[owner][number[edge.target]] += 1
    return Plan(
        flow,
        {
            owner: Body(
                tuple(flow.nodes[node_id] for node_id in ids),
                tuple(tuple(edges) for edges in out[owner]),
                tuple(incoming[owner]),
            )
            for owner, ids in flow.bodies.items()
        },
    )
