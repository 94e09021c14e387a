from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import SharedTable
from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, TimestampMixin


class SharedAnalyticsEvents(SharedTable, Base, TimestampMixin):
    """What agents count: one row an event."""

    __tablename__ = "agentflow_shared_analytics_events"
    __table_args__ = (
        Index("ix_agentflow_shared_analytics_events_name", "app_id", "agent_name", "event_name", "id"),
        Index("ix_agentflow_shared_analytics_events_created_at", "created_at"),
        MYSQL_TABLE,
    )
    event_name: Mapped[str] = mapped_column(String(128))
    thread_id: Mapped[str | None] = mapped_column(String(255))
    properties: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
