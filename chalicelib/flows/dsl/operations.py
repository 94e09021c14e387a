"""How many durable operations a run may take: what decides whether it may be durable at all."""

from __future__ import annotations

from chalicelib.flows.dsl.bodies import FLOW, Bodies
from chalicelib.flows.dsl.limits import ITERATION_OPERATIONS
from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, ITERATION, LOOP, START
from chalicelib.flows.dsl.reading import Draft, DraftNode

PURE_TYPES = frozenset({START, END, *BODY_STARTS, *BODY_ENDS, "message", "text-joiner", "if-else"})
"""Types that are computed again on every replay and are no operations."""

_MOST = 10**9  # nested loops multiply: without an end, a number of megabytes


def worst_case(draft: Draft, bodies: Bodies) -> int:
    """The largest number of operations of one run, at most 10^9.

    Each node that is a step is one, whichever branches are taken; what the engine adds for what runs side by side is
    not counted. A loop is one and its body `maxCount` times. How many items an iteration gets is known only when it
    runs: it is one and at most `ITERATION_OPERATIONS`, because larger ones become chained executions.
    """
    inside: dict[int, int] = {}
    for owner in reversed(bodies.members):  # bodies before what holds them
        inside[owner] = min(_MOST, sum(_cost(number, draft, inside) for number in bodies.members[owner]))
    return inside.get(FLOW, 0)


def _cost(number: int, draft: Draft, inside: dict[int, int]) -> int:
    node = draft.nodes[number]
    if node.type == LOOP and node.params is not None:
        rounds: int = int(node.params["maxCount"])
        return 1 + rounds * inside.get(number, 0)
    if node.type == ITERATION:
        return 1 + (ITERATION_OPERATIONS if inside.get(number, 0) else 0)
    return int(not is_pure(node))


def is_pure(node: DraftNode) -> bool:
    """Whether a node is no operation: it only computes, or reads what a replay may read again."""
    if node.type == "node-variable" and node.params is not None:
        return bool(node.params["method"] == "get")
    return node.type in PURE_TYPES or not node.type
