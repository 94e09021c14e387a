"""The end of a run: one transaction, which only one of those who may end it gets through."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, update

from chalicelib.core import telemetry
from chalicelib.core.database import Unit
from chalicelib.flows.engine.interpreter import Outcome
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import SUCCEEDED
from chalicelib.flows.runs.recording import Recorder, error_of


def finish(
    session: Unit, run_id: str, outcome: Outcome, recorder: Recorder, *, among: Collection[str], fencing: int
) -> bool:
    """Store how a run ended with all that it told; False where it had ended already, or another process runs it now.

    Parameters
    ----------
    recorder
        It has the terminal frame.
    among
        The states that the run may be in.
    fencing
        The number under which the caller runs it.
    """
    error = None if outcome.error is None else error_of(outcome.error)
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "state": outcome.state,
        "active": 0,
        "slot": None,
        "result": {"outputs": dict(outcome.outputs), "content": outcome.content},
        "error": error,
        "event": None,
        "pending": None,
        "usage": outcome.usage.as_dict(),
        "progress": recorder.progress,
        "wake_at": None,
        "finished_at": now,
    }
    if not _changed(session, run_id, among, fencing, values):
        return False
    session.execute(
        update(FlowRun)
        .where(FlowRun.run_id == run_id, FlowRun.callback_url.is_not(None))
        .values(callback_at=now)
    )
    recorder.write(session)
    return True


def measure(outcome: Outcome, mode: str, duration_ms: float) -> None:
    """Count a run in the metrics."""
    telemetry.metric("flow.runs", 1)
    telemetry.metric("flow.failures", int(outcome.state != SUCCEEDED))
    telemetry.metric(f"flow.{mode}_duration", duration_ms, "Milliseconds")


def _changed(
    session: Unit, run_id: str, among: Collection[str], fencing: int, values: dict[str, Any]
) -> bool:
    found = session.execute(
        update(FlowRun)
        .where(FlowRun.run_id == run_id, FlowRun.state.in_(list(among)), FlowRun.fencing == fencing)
        .values(**values),
        execution_options={"synchronize_session": False},
    )
    return cast(CursorResult[Any], found).rowcount == 1
