"""The table behind Idempotency-Key; apart from core/idempotency.py, which costs 100 ms to import."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base


class IdempotencyRecord(Base):
    """One key: who works on it, until when that may be believed, and the stored answer."""

    __tablename__ = "idempotency_record"
    __table_args__ = (Index("ix_idempotency_record_expires_at", "expires_at"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    status: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(String(32))
    # Unix seconds, and milliseconds: powertools' units.
    expires_at: Mapped[int] = mapped_column(BigInteger)
    in_progress_until_ms: Mapped[int | None] = mapped_column(BigInteger)
    payload_hash: Mapped[str] = mapped_column(String(64))
    response: Mapped[str | None] = mapped_column(MEDIUM_TEXT)
