"""Express runs: from beginning to end within one invocation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core import telemetry
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.hotcache import HotCache
from chalicelib.flows.engine.attempts import attempts_of
from chalicelib.flows.engine.call import Call, Execute, Result, Scope
from chalicelib.flows.engine.errors import NODE_FAILED, Interrupt, chain
from chalicelib.flows.engine.express import ExpressSteps
from chalicelib.flows.engine.interpreter import SUBFLOW, Interpreter
from chalicelib.flows.engine.outcome import Outcome
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.nodes.pure import PURE
from chalicelib.flows.runs import finishing, memory, plans, resource
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import RUNNING
from chalicelib.flows.runs.recording import Recorder
from chalicelib.flows.runs.starting import LEASE_S, Begun

MAX_SECONDS = 25.0
"""What an express run may take: the gateway ends a request after 29 s."""
_BEAT_S = LEASE_S / 3


class ExpressRun:
    """One express run of this invocation.

    Parameters
    ----------
    kinds
        What nodes do, by type.
    """

    def __init__(
        self,
        database: DatabaseService,
        cache: HotCache,
        kinds: Mapping[str, Execute],
        begun: Begun,
        seconds: float = MAX_SECONDS,
    ) -> None:
        self._database, self._cache, self._begun = database, cache, begun
        self._kinds = {**kinds, SUBFLOW: self._resolve}
        self._texts: dict[str, str] = {}
        self._recorder = Recorder(begun.run_id)
        self._deadline = time.monotonic() + seconds
        self._beat_at = time.monotonic() + _BEAT_S
        self.outcome: Outcome | None = None

    def run(self) -> None:
        """Run the flow; what happens is written while it waits, how it ended by `store`. Not inside a unit."""
        begun, handlers = self._begun, chain()
        steps = ExpressSteps(
            attempts_of(self._kinds), handlers, begun.run_id, deadline=self._deadline, tick=self._tick
        )
        self._recorder.tell("run.started")
        interpreter = Interpreter(
            begun.runnable.plan,
            memory.told(self._database, begun.scope, begun.runnable.plan),
            steps,
            self._recorder,
            pure=PURE,
            open_subflow=self._open_subflow,
            handlers=handlers,
        )
        began = time.perf_counter()
        with telemetry.operation("flow.run", runId=begun.run_id, flowId=begun.runnable.flow_id) as operation:
            try:
                self.outcome = interpreter.run(begun.wanted.parameters)
            finally:
                steps.close()
            operation.note(mode=begun.mode, state=self.outcome.state)
        self._recorder.end(self.outcome)
        finishing.measure(self.outcome, begun.mode, (time.perf_counter() - began) * 1000)

    def store(self, session: Unit) -> dict[str, Any]:
        """Store how the run ended, unless somebody has ended it meanwhile; return the run."""
        if self.outcome is None:
            raise AssertionError("the run has not ended")
        finishing.finish(session, self._begun.scope, self.outcome, self._recorder, among=(RUNNING,))
        return resource.run(resource.read(session, self._begun.scope.caller, self._begun.run_id))

    # -- while it runs -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Write what there is, keep the lease, and see whether the run is to end."""
        if time.monotonic() >= self._beat_at or self._recorder.has_news:
            self._beat_at = time.monotonic() + _BEAT_S
            is_mine = self._database.run(self._write)
            self._recorder.written()
        else:
            with self._database.reads() as session:
                is_mine = _goes_on(session, self._begun.run_id)
        if not is_mine:
            raise Interrupt(NODE_FAILED, "The run was cancelled.", cancelled=True)

    def _write(self, session: Unit) -> bool:
        lease = datetime.now(UTC) + timedelta(seconds=LEASE_S)
        going_on, progress = FlowRun.state == RUNNING, self._recorder.progress
        if not change(session, self._begun.run_id, going_on, wake_at=lease, progress=progress):
            return False
        self._recorder.write(session)
        return _goes_on(session, self._begun.run_id)

    # -- sub-flows ---------------------------------------------------------------------------------------------

    def _resolve(self, call: Call) -> Result:
        result, text = plans.resolve_subflow(self._cache, call)
        self._texts[result.outputs["digest"]] = text
        return result

    def _open_subflow(self, scope: Scope, _node: Any, found: Mapping[str, Any]) -> tuple[Plan, Scope]:
        digest, flow_id = found["digest"], found["flowId"]
        plan = plans.plan_of_text(self._cache, self._texts[digest], digest, flow_id)
        return plan, memory.told(self._database, subflow_scope(self._cache, scope, found), plan)


def subflow_scope(cache: HotCache, scope: Scope, found: Mapping[str, Any]) -> Scope:
    """Return the scope of a sub-flow's nodes: its own author's tools, its own history."""
    author = plans.author_of(cache, scope.caller, found["authorId"])
    return Scope(scope.run_id, scope.caller, author, found["flowId"], scope.uid, scope.chat_id, scope.history)


def _goes_on(session: Session, run_id: str) -> bool:
    row = session.execute(select(FlowRun.state, FlowRun.cancel).where(FlowRun.run_id == run_id)).one_or_none()
    return row is not None and row.state == RUNNING and not row.cancel
