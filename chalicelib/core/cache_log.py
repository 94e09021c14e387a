"""The writing half of the hot cache: every unit of work that changes a cached row bumps that row's scope.

The bump is made in `before_commit`, after the flush and as the unit's last statements: the row locks on
`cache_version` serialise the numbering, so versions become visible in commit order, and a rollback undoes them.
No writer can forget it, because the keys come from the models themselves (`cache_scope`, `cache_key`); a bulk
statement, which names no row, logs `*` and so drops the whole scope.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String, event, insert, select, update
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, Unit, UtcDateTime

SCOPES = ("agents", "apps", "breakers", "flows", "plugins", "tools")
EVERYTHING = "*"
KEPT_VERSIONS = 10_000
_CHANGES = "hotplug.cache_changes"


class CacheVersion(Base):
    """One row per scope: the number of the newest committed change, and the epoch that numbering belongs to."""

    __tablename__ = "cache_version"
    __table_args__ = MYSQL_TABLE
    cache_scope: ClassVar[None] = None
    scope: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, default=0)
    # A restore from backup takes numbers back; a new epoch tells every warm function to drop all it has.
    epoch: Mapped[str] = mapped_column(String(36), default=lambda: str(uuid.uuid4()))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


class CacheChange(Base):
    """Which keys a version of a scope touched."""

    __tablename__ = "cache_change"
    __table_args__ = (Index("ix_cache_change_at", "at"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    scope: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    item_key: Mapped[str] = mapped_column(String(128), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


def touch(session: Session, scope: str, key: str) -> None:
    """Add (scope, key) to what this unit's commit will bump, for a change that no mapped row shows."""
    session.info.setdefault(_CHANGES, set()).add((scope, key))


def _remember_flushed(session: Unit, _context: Any) -> None:
    for row in (*session.new, *session.dirty, *session.deleted):
        if (scope := row.cache_scope) is not None and (row not in session.dirty or session.is_modified(row)):
            touch(session, scope, str(getattr(row, row.cache_key)))


def _remember_bulk(state: ORMExecuteState) -> None:
    if not (state.is_insert or state.is_update or state.is_delete) or state.bind_mapper is None:
        return
    scope = state.bind_mapper.class_.cache_scope
    if scope is not None:
        touch(state.session, scope, EVERYTHING)


def _bump(session: Unit) -> None:
    if session.in_nested_transaction():
        return
    session.flush()
    changes: set[tuple[str, str]] = session.info.pop(_CHANGES, set())
    if not changes:
        return
    scopes = sorted({scope for scope, _ in changes})
    now = datetime.now(UTC)
    connection = session.connection()
    # One statement: InnoDB takes the row locks in primary-key order, so two units that bump several scopes
    # cannot wait for each other in a circle.
    connection.execute(
        update(CacheVersion)
        .where(CacheVersion.scope.in_(scopes))
        .values(version=CacheVersion.version + 1, updated_at=now)
    )
    numbers = dict(
        connection.execute(
            select(CacheVersion.scope, CacheVersion.version).where(CacheVersion.scope.in_(scopes))
        ).tuples()
    )
    connection.execute(
        insert(CacheChange),
        [{"scope": s, "version": numbers[s], "item_key": k, "at": now} for s, k in sorted(changes)],
    )


def _forget(session: Unit, *_: Any) -> None:
    session.info.pop(_CHANGES, None)


event.listen(Unit, "after_flush", _remember_flushed)
event.listen(Unit, "do_orm_execute", _remember_bulk)
event.listen(Unit, "before_commit", _bump)
event.listen(Unit, "after_rollback", _forget)
