from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import SharedTable
from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, JsonDocument, TimestampMixin


class SharedConversationHistory(SharedTable, Base, TimestampMixin):
    """The messages of every agent that has no history table of its own."""

    __tablename__ = "agentflow_shared_conversation_history"
    __table_args__ = (
        Index(
            "ix_agentflow_shared_conversation_history_thread",
            "app_id", "agent_name", "thread_id", "created_at", "id",
        ),
        Index("ix_agentflow_shared_conversation_history_agent", "agent_name", "created_at"),
        # A move walks one agent's rows in the order of their ids, past those of all the others.
        Index("ix_agentflow_shared_conversation_history_move", "agent_name", "id"),
        MYSQL_TABLE,
    )  # fmt: skip
    thread_id: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(50))
    content: Mapped[str] = mapped_column(MEDIUM_TEXT)
    extra_metadata: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
