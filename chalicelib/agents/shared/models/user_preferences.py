from __future__ import annotations

from typing import Any

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import SharedTable
from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, TimestampMixin


class SharedUserPreferences(SharedTable, Base, TimestampMixin):
    """What a user of an app told an agent to remember: one JSON value a name."""

    __tablename__ = "agentflow_shared_user_preferences"
    __table_args__ = (
        UniqueConstraint(
            "app_id", "agent_name", "user_id", "name", name="uq_agentflow_shared_user_preferences_name"
        ),
        MYSQL_TABLE,
    )
    user_id: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(128))
    value: Mapped[Any] = mapped_column(JsonDocument())
