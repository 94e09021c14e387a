"""How many durable operations a run may take: what decides whether it may be durable at all."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.flows.dsl.bodies import FLOW, Bodies
from chalicelib.flows.dsl.graph import Graph
from chalicelib.flows.dsl.limits import ITERATION_OPERATIONS
from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, ITERATION, LOOP, START
from chalicelib.flows.dsl.reading import Draft, DraftNode

PURE_TYPES = frozenset({START, END, *BODY_STARTS, *BODY_ENDS, "message", "text-joiner", "if-else"})
"""Types that are computed again on every replay and are no operations."""

_MOST = 10**9  # nested loops multiply: without an end, a number of megabytes


@dataclass(frozen=True)
class _Cost:
    """Of a node or a body.

    Parameters
    ----------
    steps
        Works and questions.
    alone
        Those of them that never run at the same time as another.
    """

    steps: int = 0
    alone: int = 0

    def times(self, count: int) -> _Cost:
        return _Cost(min(_MOST, self.steps * count), min(_MOST, self.alone * count))


def worst_case(draft: Draft, bodies: Bodies, out: Graph) -> int:
    """The largest number of operations of one run, at most 10^9.

    Each node that is a step is one, whichever branches are taken. Steps that are ready together are begun by one more,
    so for every two steps that may run at the same time there may be one. A loop takes its body `maxCount` times. How
    many items an iteration gets is known only when it runs: it is taken for `ITERATION_OPERATIONS`. Nor is known what
    version of a sub-flow there will be: it is one, without what is done in it. Where more comes of either, the run
    fails at the limit of the service.

    Parameters
    ----------
    out
        By node, those that its edges lead to within its body.
    """
    inside: dict[int, _Cost] = {}
    for owner in reversed(bodies.members):  # bodies before what holds them
        inside[owner] = _body(draft, bodies.members[owner], out, inside)
    whole = inside.get(FLOW, _Cost())
    return min(_MOST, whole.steps + (whole.steps - whole.alone) // 2)


def _body(draft: Draft, members: list[int], out: Graph, inside: dict[int, _Cost]) -> _Cost:
    costs = {number: _cost(number, draft, inside) for number in members}
    single = _single(members, out, {number for number, cost in costs.items() if cost.steps})
    steps = alone = 0
    for number, cost in costs.items():
        steps += cost.steps
        if number in single:
            alone += cost.alone
        elif draft.nodes[number].type == "question-answer":
            alone += 1  # it waits until nothing else is under way
    return _Cost(min(_MOST, steps), min(_MOST, alone))


def _cost(number: int, draft: Draft, inside: dict[int, _Cost]) -> _Cost:
    node, body = draft.nodes[number], inside.get(number, _Cost())
    if node.type == LOOP:
        return body.times(int(node.params["maxCount"])) if node.params is not None else body
    if node.type == ITERATION:
        return _Cost(ITERATION_OPERATIONS, ITERATION_OPERATIONS) if body.steps else _Cost()
    return _Cost() if is_pure(node) else _Cost(1, 1)


def _single(members: list[int], out: Graph, steps: set[int]) -> set[int]:
    """The steps that all others come before or after. Linear: when one step alone is ready, all that are left come
    after it; and the same against the edges."""
    onward: dict[int, list[int]] = {number: [] for number in members}
    back: dict[int, list[int]] = {number: [] for number in members}
    for source in members:
        for target in out[source]:
            if target in back:
                onward[source].append(target)
                back[target].append(source)
    after = _left_when_alone(members, onward, back, steps)
    before = _left_when_alone(members, back, onward, steps)
    return {
        number for number in after.keys() & before.keys() if after[number] + before[number] == len(steps) - 1
    }


def _left_when_alone(
    members: list[int], out: dict[int, list[int]], into: dict[int, list[int]], steps: set[int]
) -> dict[int, int]:
    """For each step that was once the only one ready, how many steps were left then."""
    waiting = {number: len(into[number]) for number in members}
    pure = [number for number in members if not waiting[number] and number not in steps]
    ready = [number for number in members if not waiting[number] and number in steps]
    left, found = len(steps), {}
    while pure or ready:
        if pure:
            number = pure.pop()
        else:
            number = ready.pop()
            left -= 1
            if not ready:
                found[number] = left
        for target in out[number]:
            waiting[target] -= 1
            if not waiting[target]:
                (ready if target in steps else pure).append(target)
    return found


def is_pure(node: DraftNode) -> bool:
    """Whether a node is no operation: it only computes."""
    return node.type in PURE_TYPES or not node.type
