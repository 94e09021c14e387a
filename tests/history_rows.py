"""An agent with a shared and an independent history, and messages in them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Index, String, insert, select, text
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.base import Reply
from chalicelib.agents.columns import OwnTable
from chalicelib.agents.history.place import Place
from chalicelib.agents.history.thread import ThreadHistory, Turn
from chalicelib.agents.models import INDEPENDENT, SHARED, AgentMove, AgentRow
from chalicelib.agents.shared.models import SharedConversationHistory
from chalicelib.core import cache_log
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.caller import Caller
from chalicelib.core.database import (
    MEDIUM_TEXT,
    MYSQL_TABLE,
    Base,
    DatabaseService,
    JsonDocument,
    TimestampMixin,
)
from chalicelib.core.jobs import JobRun
from chalicelib.core.leases import LeaseRow
from chalicelib.core.paging import Page

AGENT, STRANGER = "notes", "other"
APP, OTHER_APP = 7, 8
CALLER = Caller(APP, "tests", 11, "admin", "request-1")
START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class NotesConversationHistory(OwnTable, Base, TimestampMixin):
    """The independent history of the agent `notes`."""

    __tablename__ = "agentflow_notes_conversation_history"
    __table_args__ = (
        Index("ix_agentflow_notes_conversation_history_thread", "app_id", "thread_id", "created_at", "id"),
        MYSQL_TABLE,
    )
    thread_id: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(50))
    content: Mapped[str] = mapped_column(MEDIUM_TEXT)
    extra_metadata: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)


MODELS = {SHARED: SharedConversationHistory, INDEPENDENT: NotesConversationHistory}


def place(mode: str = SHARED, moving_to: str | None = None) -> Place:
    """Return where the agent's history is, by default in the shared table."""
    return Place(MODELS, mode, moving_to)


def history_database(url: str) -> DatabaseService:
    """Return a service on a database with the tables that a history needs and no others, and two agents' rows."""
    database = DatabaseService(url)
    database.create_db_and_tables(
        [AgentRow, AgentMove, AuditLog, CacheChange, CacheVersion, JobRun, LeaseRow, *MODELS.values()]
    )
    database.run(cache_log.seed)
    rows = [AgentRow(name=name, version="1.0.0") for name in (AGENT, STRANGER)]
    database.run(lambda session: session.add_all(rows))
    return database


def put_messages(
    database: DatabaseService,
    mode: str,
    count: int,
    *,
    agent: str = AGENT,
    app_id: int = APP,
    thread: str = "T1",
    first_id: int = 1,
    every_us: int = 1,
) -> None:
    """Store messages with consecutive ids, `every_us` microseconds apart."""
    model = MODELS[mode]
    own = {"agent_name": agent} if mode == SHARED else {}
    for begin in range(0, count, 5000):
        rows = [
            {
                **own, "id": first_id + i, "app_id": app_id, "thread_id": thread, "role": "user",
                "content": f"message {i}: żółć", "extra_metadata": {"n": i} if i % 3 else None,
                "created_at": START + i * every_us * MICROSECOND,
                "updated_at": START,
            }
            for i in range(begin, min(count, begin + 5000))
        ]  # fmt: skip
        database.run(lambda session: session.execute(insert(model), rows))  # noqa: B023


def put_many(database: DatabaseService, mode: str, count: int, *, first_id: int = 1) -> None:
    """Store what `put_messages` does, on a real server, which makes the rows itself: at most 100,000 of them."""
    digits = "(SELECT 0 d" + "".join(f" UNION ALL SELECT {digit}" for digit in range(1, 10)) + ")"
    places = ", ".join(f"{digits} d{power}" for power in range(5))
    number = " + ".join(f"d{power}.d * {10**power}" for power in range(5))
    own = {"agent_name": f"'{AGENT}'"} if mode == SHARED else {}
    columns = {
        **own, "id": f"{first_id} + i", "app_id": str(APP), "thread_id": "'T1'", "role": "'user'",
        "content": "CONCAT('message ', i, ': żółć')",
        "extra_metadata": "IF(i % 3 = 0, NULL, CONCAT('{\"n\":', i, '}'))",
        "created_at": "'2026-01-01' + INTERVAL i MICROSECOND", "updated_at": "'2026-01-01'",
    }  # fmt: skip
    table = MODELS[mode].__tablename__
    statement = text(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
        f" FROM (SELECT {number} AS i FROM {places}) n WHERE i < {count} ORDER BY i"
    )
    database.run(lambda session: session.execute(statement))


def say(
    database: DatabaseService,
    message: str,
    *,
    thread: str = "T1",
    app_id: int = APP,
    agent: str = AGENT,
    known: Place | None = None,
) -> bool:
    """Store a turn as an invocation does; return whether the thread was new."""
    history = ThreadHistory(database, app_id, agent, thread, known or place())
    return database.run(lambda session: history.store(session, Turn(message, Reply(f"re: {message}"))))


def rows(database: DatabaseService, mode: str) -> list[Any]:
    """Return all rows of a table, by id."""
    model: Any = MODELS[mode]
    with database.reads() as session:
        return list(session.scalars(select(model).order_by(model.id)))


def values(found: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return what a move must keep of rows."""
    return [
        (r.id, r.app_id, r.thread_id, r.role, r.content, r.extra_metadata, r.created_at, r.updated_at)
        for r in found
    ]


def page(limit: int = 30, cursor: str | None = None) -> Page:
    """Return a page as a request asks for it."""
    return Page(limit, cursor, {"$app": APP}, b"key")
