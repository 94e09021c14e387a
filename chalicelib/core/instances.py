"""Which execution environment runs what: one row each, so that a reload is confirmed, not hoped for."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, JsonDocument, UtcDateTime

HEARTBEAT_EVERY_S = 5
KEPT = timedelta(hours=1)


class Instance(Base):
    """One warm environment: its function, tenant, the cache versions it knows and the plugins it has loaded."""

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


_COLUMNS = "instance_id, function, tenant, versions, loaded, load_error, memory_bytes, started_at, seen_at"
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


class Heartbeat:
    """Writes this process's instance rows, at most one statement per instance every few seconds unless what it runs
    has changed."""

    def __init__(self, database: DatabaseService) -> None:
        self._database = database
        self._written: dict[str, tuple[float, str]] = {}

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
    ) -> bool:
        """Upsert one row; False where it was not due.

        A failure of the database is no failure of the request that this rides on: the row is written next time, and
        an instance that is not seen shows as idle.
        """
        state = json.dumps([versions, loaded, load_error], sort_keys=True)
        at, before = self._written.get(instance_id, (0.0, ""))
        if state == before and time.monotonic() - at < HEARTBEAT_EVERY_S:
            return False
        values = {
            "instance_id": instance_id,
            "function": function,
            "tenant": tenant,
            "versions": json.dumps(versions),
            "loaded": json.dumps(loaded or []),
            "load_error": load_error[:500] if load_error else None,
            "memory_bytes": memory_bytes,
            "now": datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds"),
        }
        try:
            with self._database.connection() as connection:
                connection.execute(_SQLITE if self._database.is_sqlite else _MYSQL, values)
        except DBAPIError:
            return False
        if len(self._written) > 1000:
            self._written.clear()
        self._written[instance_id] = (time.monotonic(), state)
        return True
