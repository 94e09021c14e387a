"""Which execution environment runs what: one row each, so that a reload is confirmed, not hoped for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, JsonDocument, UtcDateTime
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import timestamp

HEARTBEAT_EVERY_S = 5
KEPT = timedelta(hours=1)
# A change is numbered a moment before it commits, and two functions' clocks differ: an invocation that began this
# soon after the number was written may rightly have seen the state before it.
COMMIT_GRACE = timedelta(seconds=1)
CURRENT, STALE, IDLE = "current", "stale", "idle"
_ENVIRONMENTS_REMEMBERED = 1000


class Instance(Base):
    """One warm environment: its function, tenant, the cache versions it knows and the plugins it has
    loaded."""

    __tablename__ = "instance"
    __table_args__ = (Index("ix_instance_seen_at", "seen_at"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    instance_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    function: Mapped[str] = mapped_column(String(128))
    # Empty for environments that serve every tenant.
    tenant: Mapped[str] = mapped_column(String(64), default="")
    versions: Mapped[Any] = mapped_column(JsonDocument(), default=dict)
    loaded: Mapped[Any] = mapped_column(JsonDocument(), default=list)
    load_error: Mapped[str | None] = mapped_column(String(500))
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


# FUNCTION is a reserved word of MySQL since 8.0.1, though not of MariaDB; SQLite takes MySQL's quotes.
_COLUMNS = "instance_id, `function`, tenant, versions, loaded, load_error, memory_bytes, started_at, seen_at"
_VALUES = ":instance_id, :function, :tenant, :versions, :loaded, :load_error, :memory_bytes, :now, :now"
_SET = ("versions", "loaded", "load_error", "memory_bytes", "seen_at")
_MYSQL = text(
    f"INSERT INTO instance ({_COLUMNS}) VALUES ({_VALUES}) ON DUPLICATE KEY UPDATE "  # noqa: S608 - constants
    + ", ".join(f"{name} = VALUES({name})" for name in _SET)
)
_SQLITE = text(
    f"INSERT INTO instance ({_COLUMNS}) VALUES ({_VALUES}) ON CONFLICT (instance_id) DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{name} = excluded.{name}" for name in _SET)
)


# What a row says of an environment: versions, what is loaded, why something is not.
_State = tuple[dict[str, int], list[Any] | None, str | None]


class Heartbeat:
    """Writes this process's instance rows, at most one statement per instance every few seconds unless what
    it runs has changed. Threads may share it."""

    def __init__(self, database: DatabaseService, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._written: dict[str, tuple[float, _State | None]] = {}
        self._lock = threading.Lock()

    def beat(
        self,
        instance_id: str,
        function: str,
        *,
        tenant: str = "",
        versions: dict[str, int],
        loaded: list[Any] | None = None,
        load_error: str | None = None,
        memory_bytes: int = 0,
        seen_at: datetime | None = None,
    ) -> bool:
        """Upsert one row; False where it was not due.

        A failure of the database is no failure of the request that this rides on: the row is written next time,
        and an instance that is not seen shows as idle. A statement that the database does not understand is ours and
        is raised: passed over in silence, no row would ever be written and nobody would know.

        Parameters
        ----------
        instance_id, function, tenant
            Which environment, of which function; empty where it serves every tenant.
        versions
            Cache versions by scope that the invocation ran under. Kept to compare with, as `loaded` is: neither may
            be changed afterwards.
        loaded, load_error, memory_bytes
            What a runtime environment has loaded, why it could not, and what it needs for it.
        seen_at
            When the invocation began, before it read `versions`; now where not given.
        """
        state = (versions, loaded, load_error)
        if not self._claim(instance_id, state):
            return False
        values = {
            "instance_id": instance_id,
            "function": function,
            "tenant": tenant,
            "versions": json.dumps(versions),
            "loaded": json.dumps(loaded or []),
            "load_error": load_error[:500] if load_error else None,
            "memory_bytes": memory_bytes,
            "now": _sql_text(seen_at or datetime.now(UTC)),
        }
        try:
            with self._database.connection() as connection:
                connection.execute(_SQLITE if self._database.is_sqlite else _MYSQL, values)
        except ProgrammingError:
            self._forget(instance_id)
            raise
        except (DBAPIError, PoolTimeout):
            self._forget(instance_id)
            return False
        return True

    def _claim(self, instance_id: str, state: _State) -> bool:
        """True where the row is due; the others of several threads that ask at once need not write it too."""
        with self._lock:
            at, before = self._written.get(instance_id, (0.0, None))
            if state == before and self._clock() - at < HEARTBEAT_EVERY_S:
                return False
            if len(self._written) >= _ENVIRONMENTS_REMEMBERED:
                self._written.clear()
            self._written[instance_id] = (self._clock(), state)
            return True

    def _forget(self, instance_id: str) -> None:
        with self._lock:
            self._written.pop(instance_id, None)


def _sql_text(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def list_instances(session: Session, page: Page) -> dict[str, Any]:
    """Return a page of environments, each with what it runs and its state against the current versions.

    `current` knows every change; `idle` was not invoked since a change and reloads before it answers; `stale` was
    invoked after a change and did not know it, which must not happen.
    """
    # Before the rows: an instance that is ahead of what is compared with is current.
    newest = {row.scope: row for row in session.scalars(select(CacheVersion))}
    return list_page(
        session, select(Instance), page, [Instance.instance_id], lambda row: describe(row, newest)
    )


def describe(row: Instance, newest: Mapping[str, CacheVersion]) -> dict[str, Any]:
    """Return the resource of one environment."""
    return {
        "instanceId": row.instance_id,
        "function": row.function,
        "tenant": row.tenant or None,
        "versions": row.versions,
        "loaded": row.loaded,
        "loadError": row.load_error,
        "memoryBytes": row.memory_bytes,
        "startedAt": timestamp(row.started_at),
        "seenAt": timestamp(row.seen_at),
        "state": _state(row, newest),
    }


def _state(row: Instance, newest: Mapping[str, CacheVersion]) -> str:
    behind = [
        newest[scope]
        for scope, version in row.versions.items()
        if scope in newest and version < newest[scope].version
    ]
    if not behind:
        return CURRENT
    changed = min(scope.updated_at for scope in behind)
    return STALE if row.seen_at > changed + COMMIT_GRACE else IDLE
