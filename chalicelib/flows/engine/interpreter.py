"""Runs a flow: begins what is ready, follows the edges of what has ended, until nothing is left.

It knows neither Lambda nor the database: works go to `Steps`, what happened to `Trace`. What it does is a function of
the flow and of what `Steps` returns, in that order: a durable run is replayed by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from chalicelib.core.llm.model import Usage
from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, START, Node
from chalicelib.flows.engine import questions
from chalicelib.flows.engine.call import Result, Scope
from chalicelib.flows.engine.errors import (
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
from chalicelib.flows.engine.frames import Frames
from chalicelib.flows.engine.held import Held
from chalicelib.flows.engine.inputs import inputs_of
from chalicelib.flows.engine.outcome import Outcome, RunError, RunFailed, answer_of, content_of, cut_content
from chalicelib.flows.engine.owners import Owner, check_depth, subflow_outputs
from chalicelib.flows.engine.passes import PASSES
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.engine.records import About, record_of
from chalicelib.flows.engine.steps import Ended, Steps, Work
from chalicelib.flows.engine.trace import FAILED, SUCCEEDED, Trace
from chalicelib.flows.engine.ways import default_branch, on_failure, taken

SUBFLOW = "flow"
MAX_DECIDED = 1_000_000
"""Nodes of one run, those of all passes together: a loop within a loop within an iteration has an end."""

Compute = Callable[[Node, dict[str, Any]], Result]
OpenSubflow = Callable[[Scope, Node, Mapping[str, Any]], tuple[Plan, Scope]]
"""Gets the node's scope, a sub-flow node and what the step of it found; returns the sub-flow."""


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
        self._frames = Frames()
        self._root: Frame | None = None
        self._questions: deque[tuple[Frame, int, dict[str, Any]]] = deque()
        self._done: deque[Frame] = deque()
        self._running = self._decided = self._recorded = 0
        self._held = Held()
        self._usage = Usage()

    def run(self, parameters: Mapping[str, Any]) -> Outcome:
        """Run the flow and return how it ended; whatever a node raises is an outcome.

        Parameters
        ----------
        parameters
            Of the start node, not yet checked.
        """
        root = self._frames.open(self._plan, self._plan.root, self._scope, begins_with=parameters)
        self._root = root
        try:
            self._until_nothing_is_left()
            outputs, content = answer_of(root)
        except RunFailed as failed:
            return self._failed(root, failed.error, FAILED)
        except Interrupt as interrupt:
            state = "cancelled" if interrupt.cancelled else FAILED
            return self._failed(root, RunError(interrupt.code, interrupt.message, None), state)
        return Outcome(SUCCEEDED, outputs, content, None, self._usage)

    def _failed(self, root: Frame, error: RunError, state: str) -> Outcome:
        return Outcome(state, {}, cut_content(content_of(root)), error, self._usage)

    def _until_nothing_is_left(self) -> None:
        while True:
            self._steps.check()
            if self._done:
                self._frame_ended(self._done.popleft())
            elif (ready := self._frames.next()) is not None:
                self._begin(*ready)
            elif self._running:
                for ended in self._steps.wait():
                    self._running -= 1
                    if ended.work.frame.is_open:
                        self._work_ended(ended)
            elif self._questions:
                self._ask(*self._questions.popleft())
            else:
                return

    # -- beginning ---------------------------------------------------------------------------------------------

    def _begin(self, frame: Frame, number: int) -> None:
        node = frame.body.nodes[number]
        began = time.perf_counter()
        try:
            inputs = inputs_of(node, frame)
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            self._node_failed(frame, number, {}, self._decide(error, node), About(began))
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
            self._node_failed(frame, number, given, decision, About(began))
            return
        self._succeeded(frame, number, given, result, About(began))

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
            self._node_failed(frame, number, inputs, decision, About(began, started_at))
            return
        self._succeeded(frame, number, inputs, result, About(began, started_at))

    # -- bodies and sub-flows ----------------------------------------------------------------------------------

    def _open_passes(self, frame: Frame, number: int, node: Node, inputs: dict[str, Any]) -> None:
        self._trace.started(frame.key(number), node.id)
        owner = Owner(frame, number, inputs, time.perf_counter(), _now())
        try:
            check_depth(frame, ITERATION_FAILED)
            owner.passes = PASSES[node.type](node, inputs)
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            decision = self._decide(error, node)
            self._node_failed(frame, number, inputs, decision, owner.about)
            return
        self._go_on(owner)

    def _go_on(self, owner: Owner) -> None:
        """Begin the passes that may begin, or end their owner."""
        passes, outer, node = owner.passes, owner.frame, owner.node
        if passes is None:
            raise AssertionError("a sub-flow has one pass")
        while (following := passes.next()) is not None:
            item, given = following
            body = outer.plan.bodies[node.id]
            prefix = f"{outer.key(owner.number)}[{item}]/"
            rank = (*outer.rank, owner.number, item)
            frame = self._frames.open(
                outer.plan, body, outer.scope,
                prefix=prefix, rank=rank, parent=outer, outer=outer, begins_with=given,
            )  # fmt: skip
            self._frames.own(owner, frame, item)
        outputs = passes.outputs()
        if outputs is not None:
            self._owner_ended(owner, Result(outputs))

    def _owner_ended(self, owner: Owner, result: Result) -> None:
        self._succeeded(*owner.what, result, owner.about)

    def _begin_subflow(self, ended: Ended, result: Result) -> None:
        work = ended.work
        try:
            check_depth(work.frame, SUBFLOW_FAILED)
            plan, scope = self._open_subflow(work.scope, work.node, result.outputs)
        except NodeError as error:
            self._work_failed(ended, self._decide(error, work.node))
            return
        owner = Owner(work.frame, work.number, work.inputs, time.perf_counter(), ended.started_at)
        frame = self._frames.open(
            plan, plan.root, scope, prefix=f"{work.key}>/", parent=work.frame, begins_with=work.inputs
        )
        self._frames.own(owner, frame, 0)

    def _frame_ended(self, frame: Frame) -> None:
        owned = self._frames.end(frame)
        if owned is None:
            return
        owner, item = owned
        if not owner.frame.is_open:
            return  # something further out failed in the same round
        outputs: dict[str, Any] | None = None
        try:
            if owner.passes is None:
                outputs = subflow_outputs(owner.node, frame)
            else:
                owner.passes.ended(item, frame.result())
        except Exception as error:  # noqa: BLE001 - the handlers decide, as about a work's
            decision = self._decide(error, owner.node)
            self._node_failed(*owner.what, decision, owner.about)
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
            self._succeeded(work.frame, work.number, work.inputs, result, _about(ended))

    def _work_failed(self, ended: Ended, decision: Decision) -> None:
        work = ended.work
        self._node_failed(work.frame, work.number, work.inputs, decision, _about(ended))

    def _succeeded(
        self, frame: Frame, number: int, inputs: Mapping[str, Any], result: Result, about: About
    ) -> None:
        node = frame.body.nodes[number]
        outputs = {"errorCode": 0, "errorMessage": "", **result.outputs}
        try:
            self._held.take(result)
        except NodeError as error:
            self._node_failed(frame, number, inputs, self._decide(error, node), about)
            return
        self._usage += result.usage
        frame.values[node.id] = outputs
        if node.type == END or node.type in BODY_ENDS:
            frame.ends.append((number, result.outputs))
        if result.content is not None:
            frame.home.contents.append(((*frame.rank, number), result.content))
        if result.exchange is not None:
            self._trace.remember(node.id, frame.scope.flow_id, result.exchange)
        self._settle(frame, number, taken(result.branch))
        self._record(frame, number, inputs, outputs, SUCCEEDED, None, result, about)
        self._follow(frame)

    def _node_failed(
        self, frame: Frame, number: int, inputs: Mapping[str, Any], decision: Decision, about: About
    ) -> None:
        node = frame.body.nodes[number]
        outputs: dict[str, Any] = {"errorCode": decision.code, "errorMessage": decision.message}
        state = FAILED
        if decision.verdict is Verdict.CUSTOM_OUTPUT:
            state = SUCCEEDED
            outputs |= node.retry.custom_output
            if node.type == END or node.type in BODY_ENDS:
                frame.ends.append((number, node.retry.custom_output))
            self._settle(frame, number, taken(default_branch(node)))
        elif decision.verdict is Verdict.FAILURE_EDGES:
            self._settle(frame, number, on_failure)
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
        while (owner := self._frames.owner_of(frame)) is not None:
            self._frames.close(owner)
            its = self._decide(
                NodeError(owner.failure_code, f"{blamed.node_id}: {blamed.message}"), owner.node
            )
            if its.verdict is not Verdict.FAIL_RUN:
                self._node_failed(*owner.what, its, owner.about)
                return
            outputs = {"errorCode": its.code, "errorMessage": its.message}
            self._record(*owner.what, outputs, FAILED, its, Result(), owner.about)
            if owner.passes is None:
                # A node of another flow means nothing to whoever runs this one.
                blamed = RunError(its.code, its.message, owner.node.id)
            frame = owner.frame
        raise RunFailed(blamed)

    def _decide(self, error: Exception, node: Node) -> Decision:
        """What follows from an error that no further attempt could mend."""
        if isinstance(error, NodeError):
            error.is_transient = False
        return self._handlers.handle(error, node, self._context, 1)

    def _settle(self, frame: Frame, number: int, takes: Takes) -> None:
        before = frame.undecided
        self._frames.push(frame, frame.settle(number, takes))
        self._decided += before - frame.undecided
        if self._decided > MAX_DECIDED:
            raise RunFailed(RunError(NODE_FAILED, f"The run has more than {MAX_DECIDED} nodes.", None))

    def _follow(self, frame: Frame) -> None:
        if frame.undecided == 0:
            self._done.append(frame)

    def _record(
        self,
        frame: Frame,
        number: int,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        state: str,
        decision: Decision | None,
        result: Result,
        about: About,
    ) -> None:
        record = record_of(
            frame, number, inputs, outputs, state,
            position=self._recorded, decision=decision, usage=result.usage, about=about,
        )  # fmt: skip
        self._recorded += 1
        self._trace.ended(record, result.content, self._progress())

    def _progress(self) -> float:
        return 0.0 if self._root is None else 1 - self._root.undecided / len(self._root.body.nodes)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _about(ended: Ended) -> About:
    return About(started_at=ended.started_at, attempts=ended.attempts, duration_ms=ended.duration_ms)
