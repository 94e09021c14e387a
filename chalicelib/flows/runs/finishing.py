"""The end of a run: one transaction, which only one of those who may end it gets through."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from chalicelib.core import telemetry
from chalicelib.core.database import Unit
from chalicelib.flows.engine.call import Scope
from chalicelib.flows.engine.outcome import Outcome
from chalicelib.flows.runs import memory
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import SUCCEEDED
from chalicelib.flows.runs.recording import Recorder, error_of


def finish(
    session: Unit, scope: Scope, outcome: Outcome, recorder: Recorder, *, among: Collection[str]
) -> bool:
    """Store how a run ended with all that it told; False where somebody else has ended it already.

    Parameters
    ----------
    scope
        The run's.
    recorder
        It has the terminal frame.
    among
        The states that the run may be in.
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
    if not change(session, scope.run_id, FlowRun.state.in_(list(among)), **values):
        return False
    change(session, scope.run_id, FlowRun.callback_url.is_not(None), callback_at=now)
    recorder.write(session)
    if outcome.state == SUCCEEDED:
        memory.keep(session, scope, recorder.exchanges)
    return True


def measure(outcome: Outcome, mode: str, duration_ms: float) -> None:
    """Count a run in the metrics."""
    telemetry.metric("flow.runs", 1)
    telemetry.metric("flow.failures", int(outcome.state != SUCCEEDED))
    telemetry.metric(f"flow.{mode}_duration", duration_ms, "Milliseconds")
