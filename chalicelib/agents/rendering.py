"""How threads, messages and moves leave the service: rows as JSON values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chalicelib.agents.models import DONE, AgentMove
from chalicelib.core.representation import timestamp


def thread(thread_id: str, created_at: datetime, last_message_at: datetime) -> dict[str, Any]:
    """Return what a listing shows of a thread."""
    return {
        "threadId": thread_id,
        "createdAt": timestamp(created_at),
        "lastMessageAt": timestamp(last_message_at),
    }


def message(row: Any) -> dict[str, Any]:
    """Return a message of a thread; `row` is one of any history model."""
    return {
        "messageId": str(row.id),
        "role": row.role,
        "content": row.content,
        "metadata": row.extra_metadata,
        "createdAt": timestamp(row.created_at),
    }


def move(row: AgentMove) -> dict[str, Any]:
    """Return the resource of a move."""
    return {
        "moveId": row.id,
        "agentName": row.agent_name,
        "target": row.target,
        "state": row.state,
        "total": row.total,
        "copied": row.copied,
        "verified": row.verified,
        "sourceDigest": row.source_digest,
        "targetDigest": row.target_digest,
        # Of a move that led nowhere it is when the copies go, which concerns nobody.
        "keepUntil": timestamp(row.keep_until) if row.state == DONE else None,
        "error": row.error_code,
        "createdAt": timestamp(row.created_at),
        "updatedAt": timestamp(row.updated_at),
        "finishedAt": timestamp(row.finished_at),
    }
