"""From a flow's data to the flow that is drawn of it, also where it is not valid: what can be drawn is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chalicelib.flows.dsl.bodies import FLOW, Bodies, divide, starts_of
from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.findings import Findings
from chalicelib.flows.dsl.graph import Graph, reach
from chalicelib.flows.dsl.model import Flow
from chalicelib.flows.dsl.reading import Draft, read


@dataclass(frozen=True)
class Drawable:
    """A flow to be drawn.

    Parameters
    ----------
    flow
        Each node stands in one body, and every edge joins two nodes of one body; it may have cycles.
    violations
        How many there are, those of sub-flows aside.
    """

    flow: Flow
    violations: int


def drawable(data: Any) -> Drawable:
    """Read a flow's data, whatever is wrong with it. It never raises."""
    checked = check_flow(data)
    if checked.flow is not None:
        return Drawable(checked.flow, 0)
    draft = read(_without_empty_ids(data), Findings()) or Draft([], {}, [])
    return Drawable(_kept(draft), checked.total)


def _without_empty_ids(data: Any) -> Any:
    """The data without nodes that are called '', which is what the flow itself is called among the bodies."""
    nodes = data.get("nodes") if isinstance(data, dict) else None
    if not isinstance(nodes, list):
        return data
    return {**data, "nodes": [one for one in nodes if not (isinstance(one, dict) and one.get("id") == "")]}


def _kept(draft: Draft) -> Flow:
    out: list[list[int]] = [[] for _ in draft.nodes]
    joined = []
    for _, edge in draft.edges:
        source, target = draft.by_id.get(edge.source), draft.by_id.get(edge.target)
        if source is not None and target is not None:
            out[source].append(target)
            joined.append((source, target, edge))
    bodies = divide(draft, out, Findings())
    _house(draft, out, bodies)
    starts = starts_of(draft)
    nodes = [node.frozen() for node in draft.nodes]
    return Flow(
        nodes={node.id: node for node in nodes},
        edges=tuple(edge for source, target, edge in joined if bodies.owner[source] == bodies.owner[target]),
        start=nodes[starts[0]] if starts else None,
        bodies={
            "" if owner == FLOW else nodes[owner].id: tuple(nodes[number].id for number in sorted(members))
            for owner, members in bodies.members.items()
        },
    )


def _house(draft: Draft, out: Graph, bodies: Bodies) -> None:
    """Put what the start does not reach into bodies too: an editor draws an iteration before it is connected.

    A body whose owner is housed gets what its start reaches; all else belongs to the flow. Bodies that hold each other
    are taken apart at the first of their nodes.
    """
    left = [number for number in range(len(draft.nodes)) if number not in bodies.owner]
    inner = set(bodies.owner)
    reach(out, [start for owner, start in bodies.starts.items() if owner not in bodies.owner], inner)
    _claim(FLOW, [number for number in left if number not in inner], out, bodies)
    for number in left:
        if number not in bodies.owner:
            _claim(FLOW, [number], out, bodies)


def _claim(owner: int, numbers: list[int], out: Graph, bodies: Bodies) -> None:
    """Give nodes an owner, and what their bodies reach to them."""
    pending = [(owner, numbers)]
    for at, found in pending:  # grows while it is walked
        bodies.members.setdefault(at, []).extend(found)
        bodies.owner.update(dict.fromkeys(found, at))
        for number in found:
            start = bodies.starts.get(number)
            if start is not None and start not in bodies.owner:
                pending.append((number, _free(start, out, bodies)))


def _free(start: int, out: Graph, bodies: Bodies) -> list[int]:
    """What a start reaches of the nodes that have no owner yet."""
    return reach(out, [start], _Owned(bodies.owner))


class _Owned(set[int]):
    """The nodes that `reach` does not enter: those that have an owner, without a copy of them for each body."""

    def __init__(self, owner: Iterable[int]) -> None:
        super().__init__()
        self._owner = owner

    def __contains__(self, number: object) -> bool:
        return super().__contains__(number) or number in self._owner  # type: ignore[operator]
