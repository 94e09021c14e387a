"""What is kept of a run: one row, and its share of the minute's counts. Params, results and logs are payloads and
are not kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import NotFound
from chalicelib.core.paging import Page, list_page
from chalicelib.plugins import metrics, rendering
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.run_models import PluginExecution

MAX_ERROR_CODE = 64  # t_plugin_execution.error_code
# How a run ends. `limit` is memory or the size of the result, `internal` is our side.
OUTCOMES = ("success", "failed", "timeout", "limit", "load_failed", "internal")


@dataclass(frozen=True)
class Execution:
    """A run that has ended; times in milliseconds as the runtime measured them."""

    execution_id: str
    plugin_id: str
    app_id: int
    version: str
    action: str
    subject: str
    request_id: str
    started_at: datetime
    outcome: str
    error_code: str | None
    result: Any
    logs: str
    duration_ms: float
    cold_load: bool
    load_ms: float
    memory_bytes: int
    instance_id: str

    def as_dict(self) -> dict[str, Any]:
        """Return the answer to the caller."""
        return {
            "executionId": self.execution_id,
            "result": self.result,
            "durationMs": self.duration_ms,
            "logs": self.logs,
            "version": self.version,
            "coldLoad": self.cold_load,
        }


def store(session: Session, execution: Execution) -> None:
    """Write the row of a run and count it."""
    session.add(
        PluginExecution(
            execution_id=execution.execution_id,
            plugin_id=execution.plugin_id,
            app_id=execution.app_id,
            version=execution.version,
            action=execution.action,
            subject=execution.subject,
            outcome=execution.outcome,
            error_code=execution.error_code,
            duration_us=round(execution.duration_ms * 1000),
            cold_load=int(execution.cold_load),
            load_us=round(execution.load_ms * 1000),
            memory_bytes=execution.memory_bytes,
            instance_id=execution.instance_id[:36],
            request_id=execution.request_id[:64],
            started_at=execution.started_at,
        )
    )
    session.flush()
    metrics.count(
        session,
        plugin_id=execution.plugin_id,
        app_id=execution.app_id,
        version=execution.version,
        at=execution.started_at,
        duration_ms=execution.duration_ms,
        error_code=execution.error_code,
        cold_load=execution.cold_load,
        load_us=round(execution.load_ms * 1000),
        memory_bytes=execution.memory_bytes,
    )


def list_executions(
    session: Session,
    caller: Caller,
    found: Registration,
    page: Page,
    *,
    outcome: str | None = None,
    since: datetime | None = None,
) -> dict[str, Any]:
    """Return a page of the runs that the caller's app made of a plugin, newest first."""
    query = select(PluginExecution).where(
        PluginExecution.plugin_id == found.plugin_id, PluginExecution.app_id == caller.app_id
    )
    if outcome is not None:
        query = query.where(PluginExecution.outcome == outcome)
    if since is not None:
        query = query.where(PluginExecution.started_at >= since)
    return list_page(session, query, page, [PluginExecution.id], rendering.execution)


def read_execution(
    session: Session, caller: Caller, found: Registration, execution_id: str
) -> dict[str, Any]:
    """Return one run that the caller's app made of a plugin.

    Raises
    ------
    errors.NotFound
    """
    row = session.scalars(
        select(PluginExecution).where(
            PluginExecution.execution_id == execution_id,
            PluginExecution.plugin_id == found.plugin_id,
            PluginExecution.app_id == caller.app_id,
        )
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such execution.", code="execution.not_found")
    return rendering.execution(row)
