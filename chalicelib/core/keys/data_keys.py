"""Data keys: one per app, stored wrapped by a master key, in versions of which the newest encrypts.

They are read and made here; the master is never asked inside a unit of work. `rewrapping.py` follows a change of the
master.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index, Integer, String, Text, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, UtcDateTime
from chalicelib.core.keys.master_keys import WrappedKey, masters, plain_keys
from chalicelib.core.keys.secret_box import SecretBox


class DataKey(Base):
    """One version of an app's data key, wrapped. The newest encrypts, every one decrypts."""

    __tablename__ = "app_data_key"
    # How far a change of the master key is.
    __table_args__ = (Index("ix_app_data_key_wrapped_by", "wrapped_by"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = "apps"
    cache_key: ClassVar[str] = "app_id"
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key_version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    wrapped: Mapped[str] = mapped_column(Text)
    wrapped_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


def open_box(database: DatabaseService, app_id: int) -> SecretBox:
    """Return the box of an app, making its first data key where it has none. Not inside a unit of work.

    Raises
    ------
    errors.Unavailable
        `secrets.no_key` where no master key is configured, `secrets.away` where KMS cannot be reached.
    """
    return box_of(app_id, load_or_create_data_key(database, app_id))


def box_of(app_id: int, keys: Sequence[WrappedKey]) -> SecretBox:
    """Return the box of an app from its stored keys (from the hot cache): no statement, and no call to the
    master for keys that this process unwrapped before."""
    return SecretBox(app_id, {key.key_version: plain_keys.plain(key) for key in keys})


def stored_keys(session: Session, app_id: int) -> tuple[WrappedKey, ...]:
    """Return every version of an app's data key, the oldest first."""
    rows = session.scalars(select(DataKey).where(DataKey.app_id == app_id).order_by(DataKey.key_version))
    return tuple(WrappedKey(row.app_id, row.key_version, row.wrapped, row.wrapped_by) for row in rows)


def load_or_create_data_key(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    """Return an app's stored keys, after making version 1 where there is none.

    Of two writers at once exactly one key wins; the other reads it back and forgets its own.
    """
    return _read(database, app_id) or _make(database, app_id)


def _read(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    with database.reads() as session:
        return stored_keys(session, app_id)


def _make(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    current = masters().current
    _, wrapped = current.generate(app_id)
    row = {"app_id": app_id, "key_version": 1, "wrapped": wrapped, "wrapped_by": current.name}
    lost: IntegrityError | None = None
    try:
        database.run(lambda unit: unit.add(DataKey(**row)))
    except IntegrityError as error:
        lost = error
    keys = _read(database, app_id)
    if lost is not None and not keys:
        raise lost
    return keys
