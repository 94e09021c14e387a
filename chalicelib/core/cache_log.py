"""The writing half of the hot cache: every unit of work that changes a cached row bumps that row's scope.

The bump is made in `before_commit`, after the flush and as the unit's last statements: the row locks on
`cache_version` serialise the numbering, so versions become visible in commit order, and a rollback undoes
them. No writer can forget it, because the keys come from the models themselves (`cache_scope`, `cache_key`);
a bulk statement, which names no row, logs `*` and so drops the whole scope. Statements that name no model are
refused on cached tables.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

from sqlalchemy import (
    BigInteger,
    CursorResult,
    String,
    TextClause,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, SessionTransaction, mapped_column, object_session

from chalicelib.core.database import MYSQL_TABLE, Base, Unit, UtcDateTime

SCOPES = ("agents", "apps", "breakers", "flows", "plugins", "tools")
EVERYTHING = "*"
KEPT_VERSIONS = 10_000
# A unit that touches more keys of one scope logs `*`: the statement stays short, and readers drop the scope
# anyway.
MOST_KEYS = 50
_PRUNE_BATCH = 1000
_CHANGES = "hotplug.cache_changes"
_BUMPED = "hotplug.cache_bumped"
_WRITING = re.compile(r"\s*(insert|update|delete|replace|truncate|merge|with|load)\b", re.IGNORECASE)


class CacheVersion(Base):
    """One row per scope: the number of the newest committed change, and the epoch that numbering belongs
    to."""

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
    __table_args__ = MYSQL_TABLE
    cache_scope: ClassVar[None] = None
    scope: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    item_key: Mapped[str] = mapped_column(String(128), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


def touch(session: Session, scope: str, key: str) -> None:
    """Add (scope, key) to what this unit's commit will bump, for a change that no mapped row shows.

    Raises
    ------
    RuntimeError
        After the bump: what changes then would be seen by nobody.
    """
    if session.info.get(_BUMPED):
        raise RuntimeError(f"a row of scope {scope} was changed after the unit had bumped its cache versions")
    session.info.setdefault(_CHANGES, set()).add((scope, key))


def seed(session: Session) -> None:
    """Add the scopes that have no row yet, all under one epoch. Whoever calls it lets nobody else do so
    meanwhile."""
    known = {row.scope: row.epoch for row in session.scalars(select(CacheVersion))}
    epoch = next(iter(known.values()), None) or str(uuid.uuid4())
    session.add_all(
        CacheVersion(scope=scope, version=0, epoch=epoch) for scope in SCOPES if scope not in known
    )


def renew_epoch(session: Session) -> str:
    """Tell every warm function to drop all it has, after a restore from backup took the numbers back."""
    epoch = str(uuid.uuid4())
    session.execute(update(CacheVersion).values(epoch=epoch, updated_at=datetime.now(UTC)))
    return epoch


def plan_prune(session: Session) -> dict[str, int]:
    """Return, for each scope with more than is kept, the newest version that may be deleted from the log."""
    oldest = select(CacheChange.scope, func.min(CacheChange.version).label("first")).group_by(
        CacheChange.scope
    )
    firsts = {row.scope: row.first for row in session.execute(oldest)}
    newest = {row.scope: row.version for row in session.scalars(select(CacheVersion))}
    ends = {scope: newest[scope] - KEPT_VERSIONS for scope in firsts if scope in newest}
    return {scope: end for scope, end in ends.items() if firsts[scope] <= end}


def prune(session: Session, scope: str, through: int) -> int:
    """Delete one batch of the log's oldest versions, none newer than `through`; 0 when there are none left.

    Always a prefix: a gap further up would make readers drop everything for no reason.
    """
    first = session.scalar(select(func.min(CacheChange.version)).where(CacheChange.scope == scope))
    if first is None or first > through:
        return 0
    last = min(through, first + _PRUNE_BATCH - 1)
    result = session.execute(
        delete(CacheChange)
        .where(CacheChange.scope == scope, CacheChange.version <= last)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", result).rowcount


# -- noticing ------------------------------------------------------------------------------------------------


def _remember(row: Base, keys: set[Any]) -> None:
    session = object_session(row)
    if session is not None and row.cache_scope is not None:
        for key in keys:
            touch(session, row.cache_scope, str(key))


def _inserted(_mapper: Any, _connection: Any, row: Base) -> None:
    if row.cache_key is not None:
        _remember(row, {getattr(row, row.cache_key)})


def _updated(_mapper: Any, _connection: Any, row: Base) -> None:
    session = object_session(row)
    if row.cache_key is None or session is None or not session.is_modified(row):
        return
    history = inspect(row).attrs[row.cache_key].history
    if history.added and not history.deleted:
        # The key changed and its old value was never loaded: entries under it can only be dropped with all
        # others.
        _remember(row, {EVERYTHING})
    else:
        _remember(row, {getattr(row, row.cache_key), *history.deleted})


def _remember_bulk(state: ORMExecuteState) -> None:
    if isinstance(state.statement, TextClause):
        _refuse_text(state.statement.text)
        return
    if not (state.is_insert or state.is_update or state.is_delete):
        return
    if state.bind_mapper is None:
        table = cast(Any, state.statement).table.name
        if table in _cached_tables():
            raise RuntimeError(
                f"a statement on the table {table} bumps no cache version; write it with its model"
            )
        return
    scope = state.bind_mapper.class_.cache_scope
    if scope is not None:
        touch(state.session, scope, EVERYTHING)


def _refuse_text(statement: str) -> None:
    if not _WRITING.match(statement):
        return
    for table in _cached_tables():
        if re.search(rf"\b{re.escape(table)}\b", statement, re.IGNORECASE):
            raise RuntimeError(
                f"SQL text that writes to {table} bumps no cache version; write it with its model"
            )


def _cached_tables() -> set[str]:
    return {
        mapper.class_.__tablename__
        for mapper in Base.registry.mappers
        if mapper.class_.cache_scope is not None
    }


# -- bumping -------------------------------------------------------------------------------------------------


def _bump(session: Unit) -> None:
    if session.in_nested_transaction():
        return
    session.flush()
    changes: set[tuple[str, str]] = session.info.pop(_CHANGES, set())
    session.info[_BUMPED] = True
    if not changes:
        return
    scopes = sorted({scope for scope, _ in changes})
    now = datetime.now(UTC)
    # One statement: InnoDB takes the row locks in primary-key order, so two units that bump several scopes
    # cannot wait for each other in a circle.
    session.execute(
        update(CacheVersion)
        .where(CacheVersion.scope.in_(scopes))
        .values(version=CacheVersion.version + 1, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    current = select(CacheVersion.scope, CacheVersion.version).where(CacheVersion.scope.in_(scopes))
    numbers = {row.scope: row.version for row in session.execute(current)}
    if missing := [scope for scope in scopes if scope not in numbers]:
        raise RuntimeError(
            f"cache_version has no row for {', '.join(missing)}: the database was not migrated"
        )
    session.execute(
        insert(CacheChange),
        [{"scope": s, "version": numbers[s], "item_key": k, "at": now} for s, k in _bounded(changes)],
    )


def _bounded(changes: set[tuple[str, str]]) -> list[tuple[str, str]]:
    bounded: list[tuple[str, str]] = []
    for scope in sorted({scope for scope, _ in changes}):
        keys = sorted(key for named, key in changes if named == scope)
        bounded += [(scope, key) for key in (keys if len(keys) <= MOST_KEYS else [EVERYTHING])]
    return bounded


def _forget(session: Unit, transaction: SessionTransaction) -> None:
    # Only at the end of the whole transaction: after a savepoint's rollback the rows that were flushed before
    # it are still to be committed. What the savepoint itself touched is bumped too, which costs a reload, no
    # more.
    if transaction.parent is None:
        session.info.pop(_CHANGES, None)
        session.info.pop(_BUMPED, None)


event.listen(Base, "after_insert", _inserted, propagate=True)
event.listen(Base, "after_update", _updated, propagate=True)
event.listen(Base, "before_delete", _inserted, propagate=True)
event.listen(Unit, "do_orm_execute", _remember_bulk)
event.listen(Unit, "before_commit", _bump)
event.listen(Unit, "after_transaction_end", _forget)
