"""Runs as the API shows them: to the app that started them, and to nobody else."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from chalicelib.core.answers import fitting
from chalicelib.core.caller import Caller
from chalicelib.core.errors import NotFound
from chalicelib.core.llm.model import Usage
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.representation import timestamp
from chalicelib.flows.runs.models import FlowRun, FlowRunData, FlowRunEvent, FlowRunNode
from chalicelib.flows.runs.names import FAILED, WAITING, shown

MOST_FRAMES = 500
"""Frames that one answer holds."""


def not_found() -> NotFound:
    """Return the 404 for a run, also for another tenant's."""
    return NotFound("There is no such run.", code="run.not_found")


def read(session: Session, caller: Caller, run_id: str, *, whole: bool = True, lock: bool = False) -> FlowRun:
    """Return the caller's run.

    Parameters
    ----------
    whole
        With its result.
    lock
        Hold the row until the unit ends.

    Raises
    ------
    errors.NotFound
    """
    query = select(FlowRun).where(FlowRun.run_id == run_id, FlowRun.app_id == caller.app_id)
    if whole:
        query = query.options(undefer(FlowRun.result))
    if lock:
        query = query.with_for_update()
    found = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if found is None:
        raise not_found()
    return found


def run(row: FlowRun) -> dict[str, Any]:
    """Return a run with its result."""
    result = row.result or {}
    return {
        **listed(row),
        "content": result.get("content", ""),
        "outputs": result.get("outputs", {}),
        "event": event(row),
    }


def event(row: FlowRun) -> dict[str, Any] | None:
    """Return the question that a run waits for, without what only the service needs to know."""
    if row.event is None or row.state != WAITING:
        return None
    return {name: value for name, value in row.event.items() if name != "callbackId"}


def listed(row: FlowRun) -> dict[str, Any]:
    """Return a run as it stands in a list."""
    return {
        "runId": row.run_id,
        "flowId": str(row.flow_id),
        "version": row.version or None,
        "mode": row.mode,
        "state": shown(row.state),
        "progress": round(row.progress, 4),
        "error": row.error,
        "usage": row.usage or Usage().as_dict(),
        "uid": row.uid,
        "chatId": row.chat_id,
        "createdAt": timestamp(row.created_at),
        "startedAt": timestamp(row.started_at),
        "finishedAt": timestamp(row.finished_at),
    }


def list_runs(session: Session, caller: Caller, flow_id: int, page: Page) -> dict[str, Any]:
    """Return a page of the runs that the caller's app made of a flow, newest first."""
    own = (FlowRun.app_id == caller.app_id, FlowRun.flow_id == flow_id)
    query = through(select(FlowRun).where(*own), FlowRun, "ix_flow_run_app")
    return list_page(session, query, page, [FlowRun.run_id], listed)


def list_nodes(session: Session, run_id: str, page: Page) -> dict[str, Any]:
    """Return a page of the nodes of a run that have ended, in the order of their ends."""
    query = select(FlowRunNode).where(FlowRunNode.run_id == run_id)
    return list_page(session, query, page, [FlowRunNode.position], _node, descending=False, large=True)


def node_states(session: Session, row: FlowRun) -> dict[str, str]:
    """Return how the nodes of a run's own flow stand, by node id; one in a body as the worst of its passes.

    Nodes that are not there did not run: they were skipped, once the run has ended.
    """
    query = select(FlowRunNode.node_id, FlowRunNode.state).where(
        # A sub-flow's nodes have a `>` in their keys, which no id has.
        FlowRunNode.run_id == row.run_id,
        FlowRunNode.node_key.not_like("%>/%"),
    )
    states: dict[str, str] = {}
    for node_id, state in session.execute(query.distinct()):
        if states.get(node_id) != FAILED:
            states[node_id] = state
    if row.event is not None and row.state == WAITING:
        states.setdefault(row.event["nodeId"], WAITING)
    return states


def draft_data(session: Session, row: FlowRun) -> str:
    """Return what a run of a draft, or of one node of it, ran, as JSON; the draft may have been edited since.

    Raises
    ------
    errors.NotFound
        `run.data_gone`: it is not kept for ever.
    """
    text = session.scalar(select(FlowRunData.data).where(FlowRunData.digest == row.digest))
    if text is None:
        raise NotFound("What the run ran is not kept any more.", code="run.data_gone")
    return text


def frames(session: Session, run_id: str, after: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the frames of a run behind the number `after`, as many as one answer holds, and whether there are more."""
    query = (
        select(FlowRunEvent.frame)
        .where(FlowRunEvent.run_id == run_id, FlowRunEvent.seq > after)
        .order_by(FlowRunEvent.seq)
        .limit(MOST_FRAMES + 1)
    )
    found = list(session.scalars(query))
    shown = found[:MOST_FRAMES]
    shown = shown[: fitting(shown)]
    return shown, len(shown) < len(found)


def _node(row: FlowRunNode) -> dict[str, Any]:
    return {
        "position": row.position,
        "nodeKey": row.node_key,
        "nodeId": row.node_id,
        "nodeType": row.node_type,
        "aliasName": row.alias_name,
        "attempt": row.attempt,
        "state": row.state,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "error": row.error,
        "usage": row.usage,
        "startedAt": timestamp(row.started_at),
        "durationMs": row.duration_us / 1000,
    }
