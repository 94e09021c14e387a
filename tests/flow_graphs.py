"""Random flows, and what must become of their nodes, told by an oracle that knows nothing of the interpreter.

The oracle walks the nodes in the order in which they were drawn, in which each stands after all that leads to it: a
node runs if an edge to it was taken, and then takes its own by what it was told to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import strategies as st

from tests.flow_builders import END, START, Data, case, edge, flow, literal, node, output, ref, start

FAIL = "fail_one_of::1"
YES, NO = "branch_one_of::yes", "branch_one_of::no"
SUCCEEDED, FAILED = "succeeded", "failed"


@dataclass
class Drawn:
    """One node, with what it does.

    Parameters
    ----------
    fails
        Attempts of it that fail; 9 stands for all.
    passes, body
        Of an iteration or a loop.
    """

    id: str
    kind: str
    retries: int = 0
    strategy: int = 0
    fails: int = 0
    says_yes: bool = True
    passes: int = 0
    body: Body | None = None

    @property
    def fails_for_good(self) -> bool:
        return self.fails > self.retries

    @property
    def handles(self) -> list[str]:
        if self.kind == "if-else":
            return [YES, NO]
        return ["", FAIL] if self.strategy == 2 else [""]


@dataclass
class Body:
    """Nodes, each after all that leads to it; the first begins it, and the last ends it."""

    nodes: list[Drawn] = field(default_factory=list)
    edges: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Expected:
    """What must come of a run.

    Parameters
    ----------
    states
        Of all nodes that end, by key; of those that `is_cut` is about, of which only some may get so far.
    cut
        Prefixes of keys of what a failure may cut short at any place.
    errors
        Keys of what may fail the run; the run succeeds where there is none.
    reached
        Whether an end was reached.
    before
        By key, the keys of what leads to a node by any edge and runs.
    """

    states: dict[str, str] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)
    reached: bool = True
    before: dict[str, set[str]] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether what ends does not depend on time."""
        return not self.cut and not self.errors


@st.composite
def bodies(
    draw: st.DrawFn,
    numbers: Any = None,
    depth: int = 2,
    first: str = START,
    last: str = END,
    most: int = 8,
) -> Body:
    """A start, up to `most` nodes, an end; bodies within it stand `depth` deep at most."""
    numbers = numbers or count(1)
    nodes = [Drawn(first, "start")]
    for _ in range(draw(st.integers(1, most))):
        nodes.append(_node(draw, numbers, depth))
    body = Body([*nodes, Drawn(last, "end")])
    used: set[tuple[str, str]] = set()
    for place, one in enumerate(body.nodes[1:], 1):
        sources = draw(st.sets(st.integers(0, place - 1), min_size=1, max_size=3))
        for source in sorted(sources):
            handle = draw(st.sampled_from(body.nodes[source].handles))
            used.add((body.nodes[source].id, handle))
            body.edges.append((body.nodes[source].id, handle, one.id))
    # What leads nowhere mostly leads to the end, so that runs have one.
    for one in body.nodes[:-1]:
        for handle in one.handles:
            if (one.id, handle) not in used and draw(st.integers(0, 3)):
                body.edges.append((one.id, handle, last))
    return body


def _node(draw: st.DrawFn, numbers: Any, depth: int) -> Drawn:
    kinds = ["code", "code", "code", "if-else", "message", "text-joiner"]
    kind = draw(st.sampled_from([*kinds, "iteration", "loop"] if depth else kinds))
    number = next(numbers)
    one = Drawn(f"{kind}::{number}", kind)
    if kind == "if-else":
        one.says_yes = draw(st.booleans())
    elif kind in ("code", "iteration", "loop"):
        one.strategy = draw(st.sampled_from([0, 1, 2, 2]))
        if kind == "code":
            one.retries = draw(st.sampled_from([0, 0, 1])) if one.strategy else 0
            one.fails = draw(st.sampled_from([0, 0, 1, 9] if one.strategy else [0, 0, 9]))
        else:
            one.passes = draw(st.integers(0 if kind == "iteration" else 1, 3))
            start_id, end_id = (f"{kind}-node-{side}::{number}" for side in ("start", "end"))
            one.body = draw(bodies(numbers, depth - 1, start_id, end_id, 3))
    return one


# -- as data -------------------------------------------------------------------------------------------------------


def data_of(body: Body) -> Data:
    """The flow's data."""
    nodes: list[Data] = []
    edges: list[Data] = []
    _add(body, nodes, edges)
    return flow(nodes, edges)


def _add(body: Body, nodes: list[Data], edges: list[Data]) -> None:
    sources: dict[str, list[str]] = {}
    kinds = {one.id: one for one in body.nodes}
    for source, handle, target in body.edges:
        edges.append(edge(source, target, handle))
        sources.setdefault(target, []).append(source)
    for one in body.nodes:
        inputs = [
            ref(f"i{place}", source, _name(kinds[source]))
            for place, source in enumerate(dict.fromkeys(sources.get(one.id, ())))
        ]
        nodes.append(_data(one, inputs))
        if one.body is not None:
            _add(one.body, nodes, edges)


def _name(one: Drawn) -> str:
    return {"code": "o", "text-joiner": "o", "iteration": "i0", "loop": "i0"}.get(one.kind, "errorMessage")


def _data(one: Drawn, inputs: list[Data]) -> Data:
    retry = {
        "shouldRetry": True, "maxRetries": one.retries, "errorStrategy": one.strategy, "backoff": 0,
        **({"customOutput": {}} if one.strategy == 1 else {}),
    }  # fmt: skip
    if one.kind == "start":
        return start() if one.id == START else node(one.id, outputs=[output("v", "integer")])
    if one.kind == "end":
        return node(one.id, {"outputMode": 0}, inputs=inputs or [literal("i0", "")])
    if one.kind == "code":
        return node(one.id, {"code": "x"}, inputs=inputs, outputs=[output("o")], retry=retry)
    if one.kind == "if-else":
        cases = [case("yes", operator="and" if one.says_yes else "or"), case("no", level=999)]
        return node(one.id, {"cases": cases}, inputs=inputs)
    if one.kind == "message":
        return node(one.id, {"template": f"{one.id} "}, inputs=inputs)
    if one.kind == "text-joiner":
        template = "".join(f"{{{{{given['name']}}}}}" for given in inputs)[:200] + one.id[-2:]
        return node(one.id, {"mode": 0, "prompt": template}, inputs=inputs, outputs=[output("o")])
    assert one.body is not None
    begin = one.body.nodes[0].id
    if one.kind == "iteration":
        params: Data = {"IterationStartNodeId": begin, "maxConcurrency": 2}
        given = [*inputs, literal("v", list(range(one.passes)), "array")]
        return node(one.id, params, inputs=given, outputs=[output("i0", "array")], retry=retry)
    params = {"LoopStartNodeId": begin, "maxCount": one.passes}
    given = [*inputs, literal("v", 0, "integer")]
    return node(one.id, params, inputs=given, outputs=[output("i0")], retry=retry)


# -- the oracle ----------------------------------------------------------------------------------------------------


def expected(body: Body) -> Expected:
    """What must come of a run."""
    found = Expected()
    found.reached = _walk(body, "", found)
    return found


def _walk(body: Body, prefix: str, found: Expected) -> bool:
    """Note what the nodes of a body come to; return whether its end was reached."""
    taken: set[str] = {body.nodes[0].id}
    ran: set[str] = set()
    sources: dict[str, set[str]] = {}
    for source, _, target in body.edges:
        sources.setdefault(target, set()).add(source)
    for one in body.nodes:
        if one.id not in taken:
            continue
        key = prefix + one.id
        ran.add(one.id)
        found.before[key] = {prefix + source for source in sources.get(one.id, set()) & ran}
        found.states[key], handle = _ended(one, key, found)
        taken |= {target for source, branch, target in body.edges if source == one.id and branch == handle}
    return body.nodes[-1].id in ran


def _ended(one: Drawn, key: str, found: Expected) -> tuple[str, str | None]:
    """The state of a node that runs, and the handle of the edges that it takes."""
    fails = one.fails_for_good
    if one.body is not None:
        fails = _passes(one, key, found)
    if one.kind == "if-else":
        return SUCCEEDED, YES if one.says_yes else NO
    if not fails:
        return SUCCEEDED, ""
    if one.strategy == 0:
        found.errors.add(key)
        return FAILED, None
    return (SUCCEEDED, "") if one.strategy == 1 else (FAILED, FAIL)


def _passes(one: Drawn, key: str, found: Expected) -> bool:
    """Walk through the passes of a node; return whether it fails."""
    assert one.body is not None
    inside = Expected()
    for item in range(one.passes):
        _walk(one.body, f"{key}[{item}]/", inside)
    found.states |= inside.states
    found.before |= inside.before
    found.cut += inside.cut
    if inside.errors:
        found.cut.append(f"{key}[")
    return bool(inside.errors)
