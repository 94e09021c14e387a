"""What the nodes of flows were asked and answered, by the people that they were asked by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, UtcDateTime, ascii_text
from chalicelib.core.ids import new_id
from chalicelib.flows.dsl.limits import MAX_ID_LENGTH

MAX_PERSON = 255
"""Characters of a uid, and of a chat's id."""
MAX_FLOW_ID = 64
# Four bytes a character: three whole texts of 255 would be more than the 3,072 bytes that an index may have.
PREFIX = 64


class NodeHistory(Base):
    """One turn of a node: what it was asked, and what it answered.

    Parameters
    ----------
    id
        Of ours, so in the order of time: turns of one microsecond keep the order in which they were added.
    app_id
        The app that ran the flow, not the one that owns it.
    flow_id
        The flow's id as decimal text, as in the system that this table comes from.
    uid, chat_id
        The person and the conversation, as the app calls them; '' where a run names none.
    """

    __tablename__ = "workflow_node_history"
    __table_args__ = (
        Index(
            "ix_workflow_node_history_chat", "app_id", "flow_id", "uid", "chat_id", "node_id", "id",
            mysql_length={"uid": PREFIX, "chat_id": PREFIX},
        ),
        Index("ix_workflow_node_history_chat_id", "chat_id", mysql_length={"chat_id": PREFIX}),
        Index("ix_workflow_node_history_node_id", "node_id", mysql_length={"node_id": PREFIX}),
        Index("ix_workflow_node_history_uid", "uid", mysql_length={"uid": PREFIX}),
        MYSQL_TABLE,
    )  # fmt: skip
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    flow_id: Mapped[str] = mapped_column(ascii_text(MAX_FLOW_ID))
    node_id: Mapped[str] = mapped_column(ascii_text(MAX_ID_LENGTH))
    uid: Mapped[str] = mapped_column(String(MAX_PERSON), default="")
    chat_id: Mapped[str] = mapped_column(String(MAX_PERSON), default="")
    raw_question: Mapped[str] = mapped_column(MEDIUM_TEXT)
    raw_answer: Mapped[str] = mapped_column(MEDIUM_TEXT)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))
