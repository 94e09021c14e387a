"""What is not kept for ever of tools: calls beyond thirty days, and what was deleted more than ninety days ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import load_only

from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.housekeeping import DAY_S, count_rows, plan_rows
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.steps import declare, step
from chalicelib.tools import registry
from chalicelib.tools.models import TOOL, ToolDocument, ToolExecution, ToolMeta, ToolSchema

STEPS = declare("tool_retention", ("delete_versions",))
KEPT_EXECUTIONS = timedelta(days=30)
KEPT_DELETED = timedelta(days=90)
# Each row that goes may be the last of its tool, whose lock the unit then holds, and carries megabytes into the log.
VERSIONS_A_UNIT = 20


def tool_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs of the tool domain."""
    return (
        Job(
            "retain_tool_executions",
            "Delete calls of tools older than thirty days",
            DAY_S,
            lambda _: _plan_executions(database, now),
        ),
        Job(
            "purge_tools",
            "Delete for good what was deleted of tools and MCP servers more than ninety days ago",
            DAY_S,
            lambda _: _plan_purge(database, now),
        ),
    )


def _plan_executions(database: DatabaseService, now: Clock) -> Plan:
    old = ToolExecution.started_at < now() - KEPT_EXECUTIONS
    return plan_rows(database, ToolExecution, ToolExecution.id, old, ToolExecution.started_at)


def _plan_purge(database: DatabaseService, now: Clock) -> Plan:
    before = now() - KEPT_DELETED
    with database.reads() as session:
        count = count_rows(session, ToolSchema.id, _deleted(before))
    work = _purge(database, before)
    return Plan((Action("purge_versions", ToolSchema.__tablename__, work, count),) if count else ())


def _deleted(before: datetime) -> ColumnElement[bool]:
    # Nothing changes a deleted row: the time of its last change is that of its deletion.
    return (ToolSchema.is_deleted > 0) & (ToolSchema.update_at < before)


def _purge(database: DatabaseService, before: datetime) -> Callable[[], bool]:
    def work() -> bool:
        step("tool_retention", "delete_versions")
        return database.run(lambda session: _delete_versions(session, before))

    return work


def _delete_versions(session: Unit, before: datetime) -> bool:
    """Delete some version rows for good, and every tool that has none left; return whether there may be more."""
    candidates = select(ToolSchema.id, ToolSchema.tool_id).where(_deleted(before))
    found = session.execute(candidates.order_by(ToolSchema.is_deleted).limit(VERSIONS_A_UNIT)).all()
    # In one order: two units that hold several tools cannot wait for each other in a circle.
    for tool_id in sorted({row.tool_id for row in found}):
        # Whoever changes a version holds this row: what is restored meanwhile is live when it is looked at below.
        held = select(ToolMeta).where(ToolMeta.tool_id == tool_id).with_for_update()
        meta = session.scalars(held).one_or_none()
        if meta is not None:
            _delete_of_tool(session, meta, [row.id for row in found if row.tool_id == tool_id], before)
    return len(found) == VERSIONS_A_UNIT


def _delete_of_tool(session: Unit, meta: ToolMeta, row_ids: list[int], before: datetime) -> None:
    rows = session.scalars(
        select(ToolSchema)
        .where(ToolSchema.id.in_(row_ids), _deleted(before))
        .options(load_only(ToolSchema.id, ToolSchema.tool_id, ToolSchema.version))
    ).all()
    caller = Caller(meta.app_id, "", 0, "admin", "job/purge_tools")
    action, object_type = ("tool.purge", "tool") if meta.kind == TOOL else ("mcp.purge", "mcp_server")
    for row in rows:
        audit.record(session, caller, action, object_type, meta.tool_id, before={"version": row.version})
        session.delete(row)
    documents = select(ToolDocument).where(ToolDocument.schema_id.in_([row.id for row in rows]))
    # Not their contents, of which a summary of two thousand operations takes 400 KB.
    for document in session.scalars(
        documents.options(load_only(ToolDocument.schema_id, ToolDocument.tool_id))
    ):
        session.delete(document)
    session.flush()
    left = select(ToolSchema.id).where(ToolSchema.tool_id == meta.tool_id).limit(1)
    if session.scalars(left).first() is None:
        registry.forget_credentials(session, meta.tool_id)
        session.delete(meta)
