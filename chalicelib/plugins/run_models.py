"""What ran, and how well."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index, SmallInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, UtcDateTime
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.plugins.models import FLAG, now


class PluginExecution(Base):
    """One row per run. Parameters, results and logs are payloads and are not kept."""

    __tablename__ = "t_plugin_execution"
    __table_args__ = (
        UniqueConstraint("execution_id"),
        Index("ix_t_plugin_execution_plugin", "plugin_id", "app_id", "id"),
        Index("ix_t_plugin_execution_started", "started_at"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    execution_id: Mapped[str] = mapped_column(String(26), default=new_ulid)
    plugin_id: Mapped[str] = mapped_column(String(96))
    app_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(128), default="")
    outcome: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(64))
    duration_us: Mapped[int] = mapped_column(BigInteger)
    cold_load: Mapped[int] = mapped_column(FLAG, default=0)
    load_us: Mapped[int] = mapped_column(BigInteger, default=0)
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    instance_id: Mapped[str] = mapped_column(String(36), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)


class PluginMetric(Base):
    """Executions of one plugin version in one minute that took about as long: one row per bucket of a histogram with
    fixed bounds (plugins/metrics.py), because MySQL has no percentile."""

    __tablename__ = "t_plugin_metric"
    __table_args__ = (
        Index("ix_t_plugin_metric_minute", "minute"),
        Index("ix_t_plugin_metric_app", "app_id", "minute"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    plugin_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    # Unix time of the minute, in minutes.
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Index into the histogram's bounds.
    bucket: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    executions: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    cold_loads: Mapped[int] = mapped_column(BigInteger, default=0)
    load_us: Mapped[int] = mapped_column(BigInteger, default=0)
    # The most that was seen.
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime())
    last_error: Mapped[str | None] = mapped_column(String(64))
    last_error_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
