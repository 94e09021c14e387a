"""Runs a flow: begins what is ready, follows the edges of what has ended, until nothing is left.

It knows neither Lambda nor the database: works go to `Steps`, what happened to `Trace`. What it does is a function of
the flow and of what `Steps` returns, in that order: a durable run is replayed by it.
"""

from __future__ import annotations

import heapq
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chalicelib.core.llm import Usage
from chalicelib.flows.dsl.branches import branch_list
from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, START, Edge, Node, plain_handle
from chalicelib.flows.dsl.nodes import is_default
from chalicelib.flows.engine import questions
from chalicelib.flows.engine.attempts import check_outputs
from chalicelib.flows.engine.call import Result, Scope
from chalicelib.flows.engine.errors import (
    BRANCH_FAILED,
    ITERATION_FAILED,
    NODE_FAILED,
    SUBFLOW_FAILED,
    Decision,
    ErrorContext,
    ErrorHandler,
    Interrupt,
    NodeError,
    Verdict,
)
from chalicelib.flows.engine.frame import Frame, Takes
from chalicelib.flows.engine.inputs import inputs_of
from chalicelib.flows.engine.passes import PASSES, Passes
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.engine.steps import Ended, Steps, Work
from chalicelib.flows.engine.trace import FAILED, SUCCEEDED, NodeRecord, Trace

SUBFLOW = "flow"
MAX_DECIDED = 1_000_000
"""Nodes of one run, those of all passes together: a loop within a loop within an iteration has an end."""
MAX_HELD = 64 * 1024 * 1024
"""Characters that the outputs of one run may have together: a text that doubles in every round of a loop would fill any
memory."""
MAX_LEVELS = 100
"""How deep a value may be nested. A loop that wraps it in a list in every round makes one that no JSON encoder can
write; MySQL and the parsers of others end at about as many."""
MAX_ANSWER = 5 * 1024 * 1024
"""Bytes of the outputs and the content that a run ends with: a function answers with no more than 6 MB."""
MAX_DEPTH = 32
"""Bodies and sub-flows within one another: flows that were published one after the other may call each other, and the
keys of nodes grow with each."""

Compute = Callable[[Node, dict[str, Any]], Result]
OpenSubflow = Callable[[Scope, Node, Mapping[str, Any]], tuple[Plan, Scope]]
"""Gets the node's scope, a sub-flow node and what the step of it found; returns the sub-flow."""


@dataclass(frozen=True)
class RunError:
    """Why a run failed; `node_id` is None where no node is to blame."""

    code: int
    message: str
    node_id: str | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `state` is succeeded, failed or cancelled."""

    state: str
    outputs: Mapping[str, Any]
    content: str
    error: RunError | None
    usage: Usage


class _Failed(Exception):
    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class _Owner:
    """A node that opened frames: where it stands, and what they are for."""

    frame: Frame
    number: int
    inputs: Mapping[str, Any]
    began: float
    started_at: str
    passes: Passes | None
    open: dict[int, Frame]

    @property
    def node(self) -> Node:
        return self.frame.body.nodes[self.number]

    @property
    def failure_code(self) -> int:
        return SUBFLOW_FAILED if self.passes is None else ITERATION_FAILED

    @property
    def about(self) -> dict[str, Any]:
        return {"began": self.began, "started_at": self.started_at}


class Interpreter:
    """One run.

    Parameters
    ----------
    pure
        What nodes that only compute do, by type.
    handlers
        The first of the error handlers.
    """

    def __init__(
        self,
        plan: Plan,
        scope: Scope,
        steps: Steps,
        trace: Trace,
        *,
        pure: Mapping[str, Compute],
        open_subflow: OpenSubflow,
        handlers: ErrorHandler,
    ) -> None:
        self._plan, self._scope, self._steps, self._trace = plan, scope, steps, trace
        self._pure, self._open_subflow, self._handlers = pure, open_subflow, handlers
        self._context = ErrorContext(scope.run_id)
        self._ready: list[tuple[int, int]] = []
        self._frames: dict[int, Frame] = {}
        self._owners: dict[int, tuple[_Owner, int]] = {}
        self._questions: deque[tuple[Frame, int, dict[str, Any]]] = deque()
        self._done: deque[Frame] = deque()
        self._running = self._opened = self._decided = self._recorded = self._held = 0
        self._usage = Usage()

    def run(self, parameters: Mapping[str, Any]) -> Outcome:
        """Run the flow and return how it ended; whatever a node raises is an outcome.

        Parameters
        ----------
        parameters
            Of the start node, not yet checked.
        """
        root = self._open(self._plan, self._plan.bodies[""], self._scope, begins_with=parameters)
        try:
            self._until_nothing_is_left()
            outputs, content = self._answer(root)
        except _Failed as failed:
            return self._failed(root, failed.error, "failed")
        except Interrupt as interrupt:
            state = "cancelled" if interrupt.cancelled else "failed"
            return self._failed(root, RunError(interrupt.code, interrupt.message, None), state)
        return Outcome(SUCCEEDED, outputs, content, None, self._usage)

    def _failed(self, root: Frame, error: RunError, state: str) -> Outcome:
        return Outcome(state, {}, _content(root)[:MAX_ANSWER], error, self._usage)

    def _until_nothing_is_left(self) -> None:
        while True:
            self._steps.check()
            if self._done:
                self._frame_ended(self._done.popleft())
            elif self._ready:
                frame_number, number = heapq.heappop(self._ready)
                frame = self._frames[frame_number]
                if frame.is_open:
                    self._begin(frame, number)
            elif self._running:
                for ended in self._steps.wait():
                    self._running -= 1
                    if ended.work.frame.is_open:
                        self._work_ended(ended)
            elif self._questions:
                self._ask(*self._questions.popleft())
            else:
                return

    def _answer(self, root: Frame) -> tuple[Mapping[str, Any], str]:
        outputs, content = root.result(), _content(root)
        if outputs is None:
            raise _Failed(RunError(BRANCH_FAILED, "No branch led to an end node.", None))
        size = len(content.encode("utf-8", "surrogatepass")) + len(
            _compact(outputs).encode("utf-8", "surrogatepass")
        )
        if size > MAX_ANSWER:
            message = f"Outputs and content are larger than {MAX_ANSWER} bytes."
            raise _Failed(RunError(NODE_FAILED, message, None))
        return outputs, content

    # -- beginning ---------------------------------------------------------------------------------------------

    def _open(self, plan: Plan, body: Any, scope: Scope, **more: Any) -> Frame:
        frame = Frame(plan, body, scope, number=self._opened, **more)
        self._opened += 1
        self._frames[frame.number] = frame
        self._push(frame, frame.begin())
        return frame

    def _push(self, frame: Frame, numbers: list[int]) -> None:
        for number in numbers:
            heapq.heappush(self._ready, (frame.number, number))

    def _begin(self, frame: Frame, number: int) -> None:
        node = frame.body.nodes[number]
        began = time.perf_counter()
        try:
            inputs = inputs_of(node, frame)
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            self._node_failed(frame, number, {}, self._decide(error, node), began=began)
            return
        if node.type in self._pure:
            self._compute(frame, number, node, inputs)
        elif node.type in PASSES:
            self._open_passes(frame, number, node, inputs)
        elif node.type == questions.QUESTION:
            self._questions.append((frame, number, inputs))
        else:
            key = frame.key(number)
            self._trace.started(key, node.id)
            self._steps.start(Work(key, node, inputs, frame.scope, frame, number))
            self._running += 1

    def _compute(self, frame: Frame, number: int, node: Node, inputs: dict[str, Any]) -> None:
        is_start = node.type == START or node.type in BODY_STARTS
        given = dict(frame.begins_with) if is_start else inputs
        began = time.perf_counter()
        try:
            result = self._pure[node.type](node, given)
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            decision = self._decide(error, node)
            if node.type == START and not decision.interrupts:
                # Wrong parameters are the caller's: no strategy of the flow makes them right.
                decision = Decision(Verdict.FAIL_RUN, decision.code, decision.message)
            self._node_failed(frame, number, given, decision, began=began)
            return
        self._succeeded(frame, number, given, result, began=began)

    def _ask(self, frame: Frame, number: int, inputs: dict[str, Any]) -> None:
        """Ask; nothing else is ready or under way, and no second question is asked before the answer."""
        node = frame.body.nodes[number]
        if not frame.is_open:
            return
        began, started_at = time.perf_counter(), _now()
        try:
            question = questions.question_of(node, frame.key(number), inputs)
            self._trace.started(question.key, node.id)
            result = questions.result_of(node, question, self._steps.ask(question))
        except NodeError as error:
            decision = self._decide(error, node)
            self._node_failed(frame, number, inputs, decision, began=began, started_at=started_at)
            return
        self._succeeded(frame, number, inputs, result, began=began, started_at=started_at)

    # -- bodies and sub-flows ----------------------------------------------------------------------------------

    def _open_passes(self, frame: Frame, number: int, node: Node, inputs: dict[str, Any]) -> None:
        self._trace.started(frame.key(number), node.id)
        owner = _Owner(frame, number, inputs, time.perf_counter(), _now(), None, {})
        try:
            _check_depth(frame, ITERATION_FAILED)
            owner.passes = PASSES[node.type](node, inputs)
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            decision = self._decide(error, node)
            self._node_failed(frame, number, inputs, decision, **owner.about)
            return
        self._go_on(owner)

    def _go_on(self, owner: _Owner) -> None:
        """Begin the passes that may begin, or end their owner."""
        passes, outer, node = owner.passes, owner.frame, owner.node
        if passes is None:
            raise AssertionError("a sub-flow has one pass")
        while (following := passes.next()) is not None:
            item, given = following
            body = outer.plan.bodies[node.id]
            prefix = f"{outer.key(owner.number)}[{item}]/"
            rank = (*outer.rank, owner.number, item)
            frame = self._open(
                outer.plan, body, outer.scope,
                prefix=prefix, rank=rank, parent=outer, outer=outer, begins_with=given,
            )  # fmt: skip
            self._own(owner, frame, item)
        outputs = passes.outputs()
        if outputs is not None:
            self._owner_ended(owner, Result(outputs))

    def _own(self, owner: _Owner, frame: Frame, item: int) -> None:
        owner.open[frame.number] = frame
        self._owners[frame.number] = (owner, item)

    def _owner_ended(self, owner: _Owner, result: Result) -> None:
        self._succeeded(owner.frame, owner.number, owner.inputs, result, **owner.about)

    def _begin_subflow(self, ended: Ended, result: Result) -> None:
        work = ended.work
        try:
            _check_depth(work.frame, SUBFLOW_FAILED)
            plan, scope = self._open_subflow(work.scope, work.node, result.outputs)
        except NodeError as error:
            self._work_failed(ended, self._decide(error, work.node))
            return
        owner = _Owner(work.frame, work.number, work.inputs, time.perf_counter(), ended.started_at, None, {})
        frame = self._open(
            plan, plan.root, scope, prefix=f"{work.key}>/", parent=work.frame, begins_with=work.inputs
        )
        self._own(owner, frame, 0)

    def _frame_ended(self, frame: Frame) -> None:
        owned = self._owners.pop(frame.number, None)
        del self._frames[frame.number]
        if owned is None:
            return
        owner, item = owned
        del owner.open[frame.number]
        if not owner.frame.is_open:
            return  # something further out failed in the same round
        outputs: dict[str, Any] | None = None
        try:
            if owner.passes is None:
                outputs = _subflow_outputs(owner.node, frame)
            else:
                owner.passes.ended(item, frame.result())
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            decision = self._decide(error, owner.node)
            self._node_failed(owner.frame, owner.number, owner.inputs, decision, **owner.about)
            return
        if outputs is None:
            self._go_on(owner)
        else:
            self._owner_ended(owner, Result(outputs))

    # -- ending ------------------------------------------------------------------------------------------------

    def _work_ended(self, ended: Ended) -> None:
        work, result = ended.work, ended.result
        if result is None:
            if ended.decision is None:
                raise AssertionError(f"{work.key} ended with nothing")
            self._work_failed(ended, ended.decision)
        elif work.node.type == SUBFLOW:
            self._begin_subflow(ended, result)
        else:
            self._succeeded(
                work.frame, work.number, work.inputs, result,
                attempt=ended.attempts, started_at=ended.started_at, duration_ms=ended.duration_ms,
            )  # fmt: skip

    def _work_failed(self, ended: Ended, decision: Decision) -> None:
        work = ended.work
        self._node_failed(
            work.frame, work.number, work.inputs, decision,
            attempt=ended.attempts, started_at=ended.started_at, duration_ms=ended.duration_ms,
        )  # fmt: skip

    def _succeeded(
        self, frame: Frame, number: int, inputs: Mapping[str, Any], result: Result, **about: Any
    ) -> None:
        node = frame.body.nodes[number]
        outputs = {"errorCode": 0, "errorMessage": "", **result.outputs}
        try:
            self._hold(node, result)
        except NodeError as error:
            self._node_failed(frame, number, inputs, self._decide(error, node), **about)
            return
        self._usage += result.usage
        frame.values[node.id] = outputs
        if node.type == END or node.type in BODY_ENDS:
            frame.ends.append((number, result.outputs))
        if result.content is not None:
            frame.home.contents.append(((*frame.rank, number), result.content))
        if result.exchange is not None:
            self._trace.remember(node.id, frame.scope.flow_id, result.exchange)
        self._settle(frame, number, _taken(result.branch))
        self._record(frame, number, inputs, outputs, SUCCEEDED, None, result, about)
        self._follow(frame)

    def _node_failed(
        self, frame: Frame, number: int, inputs: Mapping[str, Any], decision: Decision, **about: Any
    ) -> None:
        node = frame.body.nodes[number]
        outputs: dict[str, Any] = {"errorCode": decision.code, "errorMessage": decision.message}
        state = FAILED
        if decision.verdict is Verdict.CUSTOM_OUTPUT:
            state = SUCCEEDED
            outputs |= node.retry.custom_output
            if node.type == END or node.type in BODY_ENDS:
                frame.ends.append((number, node.retry.custom_output))
            self._settle(frame, number, _taken(_default_branch(node)))
        elif decision.verdict is Verdict.FAILURE_EDGES:
            self._settle(frame, number, _is_failure)
        frame.values[node.id] = outputs
        self._record(frame, number, inputs, outputs, state, decision, Result(), about)
        if decision.verdict is Verdict.FAIL_RUN:
            self._pass_on(frame, node, decision)
            return
        self._follow(frame)

    def _pass_on(self, frame: Frame, node: Node, decision: Decision) -> None:
        """A node failed for good: what its frame was opened for fails with it, and so on outwards, unless one of these
        nodes has a strategy for that; else the run."""
        if decision.interrupts:
            raise Interrupt(decision.code, decision.message, cancelled=decision.cancelled)
        blamed = RunError(decision.code, decision.message, node.id)
        while frame.number in self._owners:
            owner, _ = self._owners[frame.number]
            self._close(owner)
            its = self._decide(
                NodeError(owner.failure_code, f"{blamed.node_id}: {blamed.message}"), owner.node
            )
            if its.verdict is not Verdict.FAIL_RUN:
                self._node_failed(owner.frame, owner.number, owner.inputs, its, **owner.about)
                return
            outputs = {"errorCode": its.code, "errorMessage": its.message}
            self._record(owner.frame, owner.number, owner.inputs, outputs, FAILED, its, Result(), owner.about)
            if owner.passes is None:
                # A node of another flow means nothing to whoever runs this one.
                blamed = RunError(its.code, its.message, owner.node.id)
            frame = owner.frame
        raise _Failed(blamed)

    def _close(self, owner: _Owner) -> None:
        for opened in owner.open.values():
            opened.close()
            del self._owners[opened.number]

    def _decide(self, error: Exception, node: Node) -> Decision:
        """What follows from an error that no further attempt could mend."""
        if isinstance(error, NodeError):
            error.is_transient = False
        return self._handlers.handle(error, node, self._context, 1)

    def _settle(self, frame: Frame, number: int, takes: Takes) -> None:
        before = frame.undecided
        self._push(frame, frame.settle(number, takes))
        self._decided += before - frame.undecided
        if self._decided > MAX_DECIDED:
            raise _Failed(RunError(NODE_FAILED, f"The run has more than {MAX_DECIDED} nodes.", None))

    def _follow(self, frame: Frame) -> None:
        if frame.undecided == 0:
            self._done.append(frame)

    def _hold(self, node: Node, result: Result) -> None:
        weight, levels = _size(result.outputs)
        self._held += weight + len(result.content or "")
        if self._held > MAX_HELD:
            message = f"The run's values are larger than {MAX_HELD} characters together."
            raise NodeError(NODE_FAILED, message, is_transient=False)
        if levels > MAX_LEVELS:
            message = f"A value of it is nested more than {MAX_LEVELS} deep."
            raise NodeError(NODE_FAILED, message, is_transient=False)

    def _record(
        self,
        frame: Frame,
        number: int,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        state: str,
        decision: Decision | None,
        result: Result,
        about: Mapping[str, Any],
    ) -> None:
        node = frame.body.nodes[number]
        duration_ms = about.get("duration_ms")
        if duration_ms is None:
            duration_ms = (time.perf_counter() - about["began"]) * 1000
        record = NodeRecord(
            key=frame.key(number),
            node_id=node.id,
            node_type=node.type,
            alias_name=node.alias_name,
            position=self._recorded,
            attempt=about.get("attempt", 1),
            state=state,
            inputs=inputs,
            outputs=outputs,
            error_code=0 if decision is None else decision.code,
            error_message="" if decision is None else decision.message,
            started_at=about.get("started_at"),
            duration_ms=round(duration_ms, 3),
            usage=result.usage,
        )
        self._recorded += 1
        self._trace.ended(record, result.content, self._progress())

    def _progress(self) -> float:
        root = self._frames.get(0)
        return 1.0 if root is None else 1 - root.undecided / len(root.body.nodes)


def _content(home: Frame) -> str:
    """What was said, in graph order: an end node's text after the messages."""
    ends = {number for number, _ in home.ends}

    def order(said: tuple[tuple[int, ...], str]) -> tuple[bool, tuple[int, ...]]:
        rank = said[0]
        return (len(rank) == 1 and rank[0] in ends, rank)

    return "".join(text for _, text in sorted(home.contents, key=order))


def _subflow_outputs(node: Node, frame: Frame) -> dict[str, Any]:
    """What a sub-flow that has ended gives its node: of its end's inputs those that the node declares.

    Raises
    ------
    NodeError
        22801: it reached no end; 20601: what it gave is not as declared.
    """
    result = frame.result()
    if result is None:
        raise NodeError(SUBFLOW_FAILED, "no branch of the sub-flow led to its end", is_transient=False)
    declared = {output.name for output in node.outputs}
    outputs = {name: value for name, value in result.items() if name in declared}
    if "content" in declared - outputs.keys():
        outputs["content"] = _content(frame)
    check_outputs(node, outputs)
    return outputs


def _taken(branch: str) -> Takes:
    return lambda edge: not edge.failure and edge.handle == branch


def _is_failure(edge: Edge) -> bool:
    return edge.failure


def _default_branch(node: Node) -> str:
    """The branch that is taken when no other is; "" for a node that has one way out."""
    listed = branch_list(node.type, dict(node.params))
    branches = [] if listed is None else listed[1]
    return next((plain_handle(one["id"]) for one in branches if is_default(node.type, one)), "")


def _check_depth(frame: Frame, code: int) -> None:
    if frame.depth >= MAX_DEPTH:
        message = f"bodies and sub-flows are nested more than {MAX_DEPTH} deep"
        raise NodeError(code, message, is_transient=False)


def _size(outputs: Mapping[str, Any]) -> tuple[int, int]:
    """Characters of all texts of a node's outputs, with one for anything else; and how deep they are nested.

    No recursion, and no way into what is too deep: a tool's answer may be anything.
    """
    total, levels = sum(len(name) for name in outputs), 0
    pending = list(outputs.values())
    while pending and levels <= MAX_LEVELS:
        levels += 1
        within: list[Any] = []
        for one in pending:
            total += len(one) if isinstance(one, str) else 1
            if isinstance(one, Mapping):
                within.extend(one.values())
                total += sum(len(name) for name in one)
            elif isinstance(one, list):
                within.extend(one)
        pending = within
    return total, levels


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat()
