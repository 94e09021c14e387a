"""What flows remember between two runs, by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, LargeBinary, String
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime, ascii_text
from chalicelib.flows.dsl.limits import MAX_NAME_LENGTH
from chalicelib.flows.history.models import MAX_FLOW_ID, MAX_PERSON, PREFIX


class FlowVariable(Base):
    """A variable of a flow: of one app, one person and one conversation.

    Parameters
    ----------
    digest
        SHA-256 over the five columns that it follows: together they are longer than an index may be. It is the primary
        key and there is no other unique one, so of two writers the second waits for the row and nothing else.
    value
        JSON, of which null is kept as NULL.
    """

    __tablename__ = "flow_variable"
    __table_args__ = (
        Index(
            "ix_flow_variable_chat", "app_id", "flow_id", "uid", "chat_id",
            mysql_length={"uid": PREFIX, "chat_id": PREFIX},
        ),
        Index("ix_flow_variable_updated_at", "updated_at"),
        MYSQL_TABLE,
    )  # fmt: skip
    cache_scope: ClassVar[None] = None
    digest: Mapped[bytes] = mapped_column(
        LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb"), primary_key=True
    )
    app_id: Mapped[int] = mapped_column(BigInteger)
    flow_id: Mapped[str] = mapped_column(ascii_text(MAX_FLOW_ID))
    uid: Mapped[str] = mapped_column(String(MAX_PERSON))
    chat_id: Mapped[str] = mapped_column(String(MAX_PERSON))
    name: Mapped[str] = mapped_column(String(MAX_NAME_LENGTH))
    value: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))
