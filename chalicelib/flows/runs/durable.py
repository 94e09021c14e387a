"""Durable runs: executions of a function of their own, which are replayed until they have ended."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import undefer

from chalicelib.core import telemetry
from chalicelib.core.database import Unit
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.representation import timestamp
from chalicelib.core.settings import settings
from chalicelib.flows import licensing
from chalicelib.flows.engine.attempts import attempts_of
from chalicelib.flows.engine.call import Call, Result, Scope
from chalicelib.flows.engine.durable import DurableSteps
from chalicelib.flows.engine.errors import NODE_FAILED, Interrupt, chain
from chalicelib.flows.engine.interpreter import SUBFLOW, Interpreter
from chalicelib.flows.engine.outcome import Outcome
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.engine.steps import Question
from chalicelib.flows.nodes.pure import PURE
from chalicelib.flows.runs import cancelling, finishing, memory, plans, resuming
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.express import subflow_scope
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import QUEUED, RESUMING, RUNNING, WAITING
from chalicelib.flows.runs.recording import Recorder, stored
from chalicelib.flows.runs.starting import RESEND_S, keep_data, read_data
from chalicelib.flows.runs.values import StoredValues
from chalicelib.flows.services import Services

if TYPE_CHECKING:
    from aws_durable_execution_sdk_python import DurableContext

LOOK_AFTER_S = 20 * 60
"""When the sweep asks the service about a run that has told nothing: longer than any invocation."""


def send(services: Services, run_id: str) -> None:
    """Start a run's execution, once; where the service is away the sweep does it later. Not inside a unit."""
    try:
        services.executions.start(settings().run_function, run_id, {"runId": run_id})
    except Unavailable as error:
        telemetry.exception("run.unsent", error, runId=run_id)


def event_id(callback_id: str) -> str:
    """Return what a question is called by outside: it tells nothing of the service's own id."""
    return hashlib.sha256(callback_id.encode()).hexdigest()[:32]


def handle(services: Services, run_id: str, context: DurableContext) -> dict[str, Any]:
    """Go on with a run, as far as it gets in this invocation.

    Raises
    ------
    InvocationError
        Something is away that will be back; the service invokes again.
    """
    from aws_durable_execution_sdk_python.exceptions import InvocationError

    try:
        services.cache.refresh()
        taken = _take(services, run_id, context.execution_context.durable_execution_arn)
        if taken is not None:
            DurableRun(services, taken, context).run()
    except HotplugError as error:
        telemetry.exception("run.interrupted", error, runId=run_id)
        raise InvocationError(f"{error.code} while running {run_id}") from error
    return {"runId": run_id}


@dataclass(frozen=True)
class _Taken:
    run_id: str
    scope: Scope
    plan: Plan
    parameters: Mapping[str, Any]
    is_debug: bool
    event_id: str | None
    frames: int
    nodes: int


def _take(services: Services, run_id: str, execution: str) -> _Taken | None:
    """Read what a run needs, and note that it runs; None for one that has ended."""

    def begin(session: Unit) -> tuple[FlowRun, str, tuple[int, int]] | None:
        query = select(FlowRun).where(FlowRun.run_id == run_id).options(undefer(FlowRun.parameters))
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None or not row.active:
            return None
        now = datetime.now(UTC)
        if row.state == QUEUED:
            row.state, row.started_at = RUNNING, now
        row.execution = execution
        if row.state == RUNNING:
            row.wake_at = now + timedelta(seconds=LOOK_AFTER_S)
        data = read_data(session, row.digest, now)
        session.flush()
        return row, data, stored(session, run_id)

    found = services.database.run(begin)
    if found is None:
        return None
    row, data, (frames, nodes) = found
    runner = plans.app_of(services.cache, row.app_id, row.credential_id, row.request_id)
    author = plans.author_of(services.cache, runner, row.author_id)
    scope = Scope(run_id, runner, author, row.flow_id, row.uid, row.chat_id, bool(row.keeps_history))
    plan = plans.plan_of_text(services.cache, data, row.digest, row.flow_id)
    event = None if row.event is None else row.event["eventId"]
    return _Taken(run_id, scope, plan, row.parameters, not row.version, event, frames, nodes)


class DurableRun:
    """One invocation of a durable run."""

    def __init__(self, services: Services, taken: _Taken, context: DurableContext) -> None:
        self._services, self._taken, self._context = services, taken, context
        self._recorder = Recorder(taken.run_id, taken.frames, taken.nodes)
        self._event_id = taken.event_id

    def run(self) -> None:
        """Run until the end, or until the execution is suspended."""
        taken, handlers = self._taken, chain()
        steps = DurableSteps(
            self._context,
            attempts_of({**self._services.kinds, SUBFLOW: self._resolve}),
            handlers,
            taken.run_id,
            check=self._check,
            asking=self._asking,
            asked=self._asked,
            answered=self._answered,
            values=StoredValues(self._services.storage, taken.run_id),
        )
        interpreter = Interpreter(
            taken.plan,
            memory.told(self._services.database, taken.scope, taken.plan),
            steps,
            self._recorder,
            pure=PURE,
            open_subflow=self._open_subflow,
            handlers=handlers,
        )
        self._recorder.tell("run.started")
        began = time.perf_counter()
        try:
            outcome = interpreter.run(taken.parameters)
        except BaseException:
            # Suspended, or something is away: what was told so far is kept.
            self._flush()
            raise
        finally:
            steps.close()
        self._finish(outcome)
        finishing.measure(outcome, "durable", (time.perf_counter() - began) * 1000)

    def _finish(self, outcome: Outcome) -> None:
        self._recorder.end(outcome)
        with telemetry.operation(
            "flow.run", runId=self._taken.run_id, flowId=self._taken.scope.flow_id, mode="durable"
        ) as operation:
            operation.note(state=outcome.state)
            self._services.database.run(
                lambda session: finishing.finish(
                    session,
                    self._taken.scope,
                    outcome,
                    self._recorder,
                    among=(RUNNING, WAITING, RESUMING),
                )
            )

    # -- while it runs -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Before each round: write what there is; end the run where it was cancelled or may go on no more."""
        self._flush()
        with self._services.database.reads() as session:
            row = session.execute(
                select(FlowRun.active, FlowRun.cancel).where(FlowRun.run_id == self._taken.run_id)
            ).one_or_none()
        if row is None or not row.active or row.cancel:
            raise Interrupt(NODE_FAILED, "The run was cancelled.", cancelled=True)
        if self._taken.is_debug:
            return
        self._services.cache.refresh()
        scope = self._taken.scope
        try:
            licensing.check(self._services.cache, scope.caller.alias_id, scope.flow_id)
        except HotplugError as error:
            if error.status >= 500:
                raise
            raise Interrupt(NODE_FAILED, f"{error.detail} ({error.code})") from error

    def _flush(self) -> None:
        if not self._recorder.has_news:
            return
        self._services.database.run(self._write)
        self._recorder.written()

    def _write(self, session: Unit) -> None:
        now = datetime.now(UTC)
        change(
            session,
            self._taken.run_id,
            FlowRun.state == RUNNING,
            progress=self._recorder.progress,
            wake_at=now + timedelta(seconds=LOOK_AFTER_S),
        )
        self._recorder.write(session)

    # -- questions ---------------------------------------------------------------------------------------------

    def _asking(self, question: Question, callback_id: str) -> None:
        self._recorder.tell("run.waiting", nodeId=question.node_id, eventId=event_id(callback_id))

    def _asked(self, question: Question, callback_id: str) -> None:
        expires_at = datetime.now(UTC) + timedelta(seconds=question.timeout_s)
        event: dict[str, Any] = {
            "eventId": event_id(callback_id),
            "nodeId": question.node_id,
            "type": question.kind,
            "question": question.text,
            "options": [dict(option) for option in question.options],
            "expiresAt": timestamp(expires_at),
            "callbackId": callback_id,
        }
        if event["eventId"] == self._event_id:
            return  # invoked again while it waits

        def wait(session: Unit) -> bool:
            # It needs no place while it waits, which may be for weeks.
            is_waiting = change(
                session,
                self._taken.run_id,
                FlowRun.state == RUNNING,
                state=WAITING,
                event=event,
                slot=None,
                progress=self._recorder.progress,
                wake_at=expires_at + timedelta(seconds=RESEND_S),
            )
            self._recorder.write(session)
            # Whoever asks for the end of a run that waits ends it at once; this one was asked a moment before.
            return is_waiting and cancelling.end_if_asked(
                session, self._taken.scope.caller, self._taken.run_id
            )

        is_over = self._services.database.run(wait)
        self._recorder.written()
        self._event_id = event["eventId"]
        if is_over:
            resuming.hand_over(self._services, self._taken.run_id, callback_id, {"action": "abort"})

    def _answered(self, question: Question, callback_id: str) -> None:
        self._recorder.tell("run.resumed", nodeId=question.node_id, eventId=event_id(callback_id))
        if event_id(callback_id) != self._event_id:
            return  # it was answered in an earlier invocation

        def go_on(session: Unit) -> None:
            change(
                session,
                self._taken.run_id,
                FlowRun.state.in_((WAITING, RESUMING)),
                state=RUNNING,
                event=None,
                pending=None,
                wake_at=datetime.now(UTC) + timedelta(seconds=LOOK_AFTER_S),
            )

        self._services.database.run(go_on)
        self._event_id = None

    # -- sub-flows ---------------------------------------------------------------------------------------------

    def _resolve(self, call: Call) -> Result:
        result, text = plans.resolve_subflow(self._services.cache, call)
        keep_data(self._services.database, result.outputs["digest"], text)
        return result

    def _open_subflow(self, scope: Scope, _node: Any, found: Mapping[str, Any]) -> tuple[Plan, Scope]:
        text = self._services.database.run(
            lambda session: read_data(session, found["digest"], datetime.now(UTC))
        )
        plan = plans.plan_of_text(self._services.cache, text, found["digest"], found["flowId"])
        inner = subflow_scope(self._services.cache, scope, found)
        return plan, memory.told(self._services.database, inner, plan)
