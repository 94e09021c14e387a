from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import OwnTable
from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, JsonDocument, TimestampMixin


class CommonQaConversationHistory(OwnTable, Base, TimestampMixin):
    """The messages of common_qa, and of nobody else."""

    __tablename__ = "agentflow_common_qa_conversation_history"
    __table_args__ = (
        Index(
            "ix_agentflow_common_qa_conversation_history_thread",
            "app_id", "thread_id", "created_at", "id",
        ),
        MYSQL_TABLE,
    )  # fmt: skip
    thread_id: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(50))
    content: Mapped[str] = mapped_column(MEDIUM_TEXT)
    extra_metadata: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
