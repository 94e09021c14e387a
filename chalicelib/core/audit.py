"""The audit log: one row, in the same transaction, for every change to what a tenant owns."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core.caller import Caller
from chalicelib.core.database import MYSQL_TABLE, Base, UtcDateTime
from chalicelib.core.ids import new_id


class AuditLog(Base):
    """Who did what to which object, and how its state changed (as digests: the log must not hold
    payloads)."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_app", "app_id", "id"),
        Index("ix_audit_log_action", "action", "id"),
        Index("ix_audit_log_object", "object_id", "id"),
        Index("ix_audit_log_type", "object_type", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    credential_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(64))
    object_type: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str] = mapped_column(String(128))
    before_digest: Mapped[str | None] = mapped_column(String(64))
    after_digest: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


def record(
    session: Session,
    caller: Caller,
    action: str,
    object_type: str,
    object_id: str,
    *,
    before: Any = None,
    after: Any = None,
) -> None:
    """Add one audit row to the unit of work.

    Parameters
    ----------
    action
        `plugin.enable`, `app.create`: object and verb.
    before, after
        JSON values of the object's representation; only their SHA-256 is kept.
    """
    session.add(
        AuditLog(
            app_id=caller.app_id,
            credential_id=caller.credential_id,
            action=action,
            object_type=object_type,
            object_id=object_id,
            before_digest=digest(before),
            after_digest=digest(after),
            request_id=caller.request_id,
        )
    )


def digest(value: Any) -> str | None:
    """Return the SHA-256 of a JSON value in canonical form, None for None."""
    if value is None:
        return None
    from chalicelib.core.representation import canonical

    return hashlib.sha256(canonical(value)).hexdigest()
