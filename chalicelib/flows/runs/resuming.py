"""Answering the question that a run waits for: once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.core import audit, telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, TooLarge, Unavailable
from chalicelib.flows.runs import resource, starting
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.names import RESUMING, WAITING
from chalicelib.flows.runs.starting import RESEND_S
from chalicelib.flows.services import Services

ABORT = "abort"
MAX_ANSWER = 200 * 1024
"""Bytes of an answer as JSON; the service takes 256 KB with a callback."""


def resume(services: Services, caller: Caller, run_id: str, event_id: str, action: str, content: Any) -> None:
    """Answer a question, and wake the run. Not inside a unit.

    Of several answers the first counts; once it is stored it is handed over, if need be by the sweep. A run that goes
    on takes a place among the runs of its app again: an app could let any number of them wait, and then go on at once.

    Parameters
    ----------
    action
        resume, ignore or abort.

    Raises
    ------
    errors.NotFound
    errors.Conflict
        `run.not_waiting`, `run.other_event`
    errors.TooLarge
        `run.answer_too_large`
    errors.TooManyRequests
        `run.too_many`
    """
    pending = {"action": action, "content": content}
    if len(json.dumps(pending, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_ANSWER:
        raise TooLarge(f"An answer has at most {MAX_ANSWER} bytes.", code="run.answer_too_large")

    def take(session: Unit) -> str:
        row = resource.read(session, caller, run_id, whole=False)
        if row.state != WAITING or row.event is None:
            raise _not_waiting()
        if row.event["eventId"] != event_id:
            raise Conflict("The run waits for the answer to another question.", code="run.other_event")
        # The same question: it may have been answered, and another asked, since the row was read.
        seen = (FlowRun.state == WAITING, FlowRun.event == row.event)
        wake_at = datetime.now(UTC) + timedelta(seconds=RESEND_S)
        slot = None if action == ABORT else starting.free_slot(session, caller.app_id)
        if not change(session, run_id, *seen, state=RESUMING, pending=pending, wake_at=wake_at, slot=slot):
            raise _not_waiting()
        audit.record(session, caller, f"run.{action}", "run", run_id)
        return str(row.event["callbackId"])

    hand_over(services, run_id, starting.with_place(lambda: services.database.run(take)), pending)


def hand_over(services: Services, run_id: str, callback_id: str, pending: dict[str, Any]) -> None:
    """Hand an answer to the execution; where the service is away the sweep does it later. Not inside a unit."""
    try:
        services.executions.answer(callback_id, pending)
    except Unavailable as error:
        telemetry.exception("run.unanswered", error, runId=run_id)


def _not_waiting() -> Conflict:
    return Conflict("The run waits for no answer.", code="run.not_waiting")
