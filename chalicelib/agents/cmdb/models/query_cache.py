from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import OwnTable
from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, TimestampMixin, UtcDateTime


class CmdbQueryCache(OwnTable, Base, TimestampMixin):
    """What the configuration database answered lately, so that it is not asked the same thing again and again."""

    __tablename__ = "agentflow_cmdb_query_cache"
    __table_args__ = (
        UniqueConstraint("app_id", "query_digest", name="uq_agentflow_cmdb_query_cache_query"),
        Index("ix_agentflow_cmdb_query_cache_expires_at", "app_id", "expires_at"),
        MYSQL_TABLE,
    )
    # SHA-256 hex of the question as the configuration database was asked it.
    query_digest: Mapped[str] = mapped_column(String(64))
    answer: Mapped[Any] = mapped_column(JsonDocument())
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime())
