"""What is kept of a call: one row. Arguments and answers are payloads and are not kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.errors import Conflict, Forbidden, HotplugError, Invalid, Unavailable, UpstreamTimeout
from chalicelib.core.paging import Page, list_page
from chalicelib.tools import rendering
from chalicelib.tools.models import ToolExecution

MAX_ERROR_CODE = 64  # tool_execution.error_code
# How a call ends: `failed` is the server's answer, `timeout` its silence, `refused` ours before anything was sent.
OUTCOMES = ("success", "failed", "timeout", "refused")
# By kind, not by code: a credential that cannot be sent or opened, an open circuit, a forbidden address are ours.
_REFUSALS = (Conflict, Forbidden, Invalid, Unavailable)


@dataclass(frozen=True)
class Call:
    """A call that has ended; `duration_ms` in milliseconds, `status` what the server answered, None where it did
    not."""

    execution_id: str
    tool_id: str
    app_id: int
    version: str
    operation: str
    request_id: str
    started_at: datetime
    outcome: str
    error_code: str | None
    status: int | None
    duration_ms: float


def outcome_of(problem: HotplugError | None) -> str:
    """Return how a call ended that ended with this problem."""
    if problem is None:
        return "success"
    if isinstance(problem, _REFUSALS):
        return "refused"
    return "timeout" if isinstance(problem, UpstreamTimeout) else "failed"


def measure(call: Call) -> None:
    """Count a call in the metrics."""
    telemetry.metric("tool.executions", 1)
    telemetry.metric("tool.errors", 0 if call.error_code is None else 1)
    telemetry.metric("tool.duration", call.duration_ms, "Milliseconds")


def store(session: Session, call: Call) -> None:
    """Write the row of a call."""
    session.add(
        ToolExecution(
            execution_id=call.execution_id,
            tool_id=call.tool_id,
            app_id=call.app_id,
            version=call.version,
            operation=call.operation[:128],
            outcome=call.outcome,
            error_code=None if call.error_code is None else call.error_code[:MAX_ERROR_CODE],
            status=call.status,
            duration_us=round(call.duration_ms * 1000),
            request_id=call.request_id[:64],
            started_at=call.started_at,
        )
    )


def list_executions(
    session: Session, caller: Caller, tool_id: str, page: Page, *, outcome: str | None, since: datetime | None
) -> dict[str, Any]:
    """Return a page of the calls that the caller's app made of a tool, newest first."""
    query = select(ToolExecution).where(
        ToolExecution.tool_id == tool_id, ToolExecution.app_id == caller.app_id
    )
    if outcome is not None:
        query = query.where(ToolExecution.outcome == outcome)
    if since is not None:
        query = query.where(ToolExecution.started_at >= since)
    return list_page(session, query, page, [ToolExecution.id], rendering.execution)
