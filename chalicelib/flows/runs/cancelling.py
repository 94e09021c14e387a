"""Ending a run from outside: at once where nothing runs, else as soon as the run looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.call import Scope
from chalicelib.flows.engine.errors import NODE_FAILED
from chalicelib.flows.engine.outcome import Outcome, RunError
from chalicelib.flows.runs import finishing, resource
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import CANCELLED, FAILED, QUEUED, RESUMING, WAITING
from chalicelib.flows.runs.recording import Recorder, stored

_IDLE = (QUEUED, WAITING, RESUMING)


def cancel(session: Unit, caller: Caller, run_id: str) -> tuple[dict[str, Any], str | None]:
    """Cancel a run and return it; one that has ended is returned as it is.

    Returns
    -------
    The run, and the id of the callback that its execution waits for: once the unit has been committed, an answer wakes
    it, so that it finds that the run is over.

    Raises
    ------
    errors.NotFound
    """
    row = resource.read(session, caller, run_id, lock=True)
    if not row.active or row.cancel:
        return resource.run(row), None
    callback = None if row.event is None else str(row.event["callbackId"])
    audit.record(session, caller, "run.cancel", "run", run_id)
    if not end(session, caller, row, _cancelled(), _IDLE):
        change(session, run_id, FlowRun.active == 1, cancel=1)
        callback = None
    return resource.run(resource.read(session, caller, run_id)), callback


def end_if_asked(session: Unit, caller: Caller, run_id: str) -> bool:
    """End a run that has just begun to wait if somebody asked for its end before; say whether it was so."""
    row = resource.read(session, caller, run_id, lock=True)
    return bool(row.cancel) and end(session, caller, row, _cancelled(), _IDLE)


def fail(session: Unit, caller: Caller, row: FlowRun, message: str, among: Sequence[str]) -> bool:
    """End a run whose function is gone; False where it goes on after all."""
    return end(
        session, caller, row, Outcome(FAILED, {}, "", RunError(NODE_FAILED, message, None), Usage()), among
    )


def _cancelled() -> Outcome:
    return Outcome(CANCELLED, {}, "", RunError(NODE_FAILED, "The run was cancelled.", None), Usage())


def end(session: Unit, caller: Caller, row: FlowRun, outcome: Outcome, among: Sequence[str]) -> bool:
    """End a run that nothing executes, with its terminal frame; False where it is in none of the states.

    The unit holds the row: what the run tells meanwhile would have the same numbers.
    """
    recorder = Recorder(row.run_id, *stored(session, row.run_id))
    recorder.progress = row.progress
    recorder.end(outcome)
    scope = Scope(row.run_id, caller, caller, row.flow_id)
    return finishing.finish(session, scope, outcome, recorder, among=among)
