"""Leases: who may work on something for a while, decided by one row.

A holder that is killed keeps nobody waiting for longer than its lease. Every take-over raises `fencing`, so a
holder that was only slow, and wakes up after its lease passed to another, can be told apart: it writes under
the condition that the row still carries its number (`holds`).

What is assumed of clocks: `now` is the caller's, because SQLite, MariaDB and MySQL agree on no expression
with microseconds. Two functions' clocks may differ by less than a lease lasts; an early clock then takes
over early, and the fencing number, not the clock, keeps the two from both committing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String, delete, select, update
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, UtcDateTime

# The owner of a row that nobody holds; the row stays, so that its fencing number goes on.
NOBODY = ""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
PRUNE_BATCH = 500


class LeaseRow(Base):
    """One row per leased name (`install:01H…`, `job:sweep`)."""

    __tablename__ = "lease"
    __table_args__ = (Index("ix_lease_expires_at", "expires_at"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime())
    fencing: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Lease:
    """A lease that was granted. `fencing` is greater than that of every earlier holder of the name."""

    name: str
    owner: str
    expires_at: datetime
    fencing: int


def acquire(session: Session, name: str, owner: str, seconds: float, now: datetime) -> Lease | None:
    """Take the lease when it is free or has expired, in the caller's unit of work.

    Two callers at once: the second waits for the first one's row lock and then sees it taken. The answer
    counts once the unit has committed.

    Parameters
    ----------
    owner
        Unique to the attempt (a ULID), at most 64 characters. The owner that still holds the lease gets it
        again with a new number: that is how a commit whose outcome was lost is resolved.
    seconds
        How long it lasts; longer than the work and than any two clocks differ.

    Returns
    -------
    The lease, or None while another holds it.
    """
    if not 0 < len(name) <= 128 or not 0 < len(owner) <= 64 or seconds <= 0:
        raise ValueError("a lease has a name of 1-128 and an owner of 1-64 characters, and lasts")
    expires_at = now + timedelta(seconds=seconds)
    if not _take(session, name, owner, expires_at, now):
        if _row(session, name) is not None:
            return None
        _ensure_row(session, name)
        if not _take(session, name, owner, expires_at, now):
            return None
    taken = _row(session, name)
    return None if taken is None else Lease(name, owner, expires_at, taken.fencing)


def renew(session: Session, lease: Lease, seconds: float, now: datetime) -> Lease | None:
    """Prolong a lease that is still held; None when it expired or passed to another: stop the work then."""
    expires_at = now + timedelta(seconds=seconds)
    renewed = _update(session, _held_by(lease) & (LeaseRow.expires_at > now), expires_at=expires_at)
    return Lease(lease.name, lease.owner, expires_at, lease.fencing) if renewed else None


def release(session: Session, lease: Lease, now: datetime) -> bool:
    """Free the lease; False when it had passed to another, whose lease stays untouched."""
    return _update(session, _held_by(lease), owner=NOBODY, expires_at=now)


def holds(session: Session, lease: Lease) -> bool:
    """Lock the row and say whether nobody took over: the first statement of a holder's writing unit.

    It locks (by an update that changes nothing) so that no take-over can slip in before this unit's commit.
    """
    return _update(session, _held_by(lease), fencing=lease.fencing)


def is_held(session: Session, name: str, now: datetime) -> bool:
    """Say whether anyone holds the name at `now`."""
    row = _row(session, name)
    return row is not None and row.owner != NOBODY and row.expires_at > now


def prune(session: Session, before: datetime) -> int:
    """Delete up to 500 rows that ended before `before` and return how many.

    Their numbering starts again, so `before` must lie further back than any holder can still be running.
    """
    ended = select(LeaseRow.name).where(LeaseRow.expires_at < before)
    names = session.scalars(ended.order_by(LeaseRow.expires_at).limit(PRUNE_BATCH)).all()
    if not names:
        return 0
    gone = delete(LeaseRow).where(LeaseRow.name.in_(names), LeaseRow.expires_at < before)
    return _count(session.execute(gone, execution_options={"synchronize_session": False}))


def _take(session: Session, name: str, owner: str, expires_at: datetime, now: datetime) -> bool:
    free = (LeaseRow.expires_at <= now) | LeaseRow.owner.in_((NOBODY, owner))
    return _update(
        session,
        (LeaseRow.name == name) & free,
        owner=owner,
        expires_at=expires_at,
        fencing=LeaseRow.fencing + 1,
    )


def _ensure_row(session: Session, name: str) -> None:
    """Insert a free row unless there is one. On MySQL the duplicate locks the row exclusively at once; a
    plain INSERT would take a shared lock first, and two of those deadlock in the update that follows."""
    values = {"name": name, "owner": NOBODY, "expires_at": _NEVER, "fencing": 0}
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite_insert(LeaseRow).values(values).on_conflict_do_nothing())
    else:
        statement = mysql_insert(LeaseRow).values(values)
        session.execute(statement.on_duplicate_key_update(name=statement.inserted.name))


def _held_by(lease: Lease) -> Any:
    return (
        (LeaseRow.name == lease.name) & (LeaseRow.owner == lease.owner) & (LeaseRow.fencing == lease.fencing)
    )


def _update(session: Session, condition: Any, **values: Any) -> bool:
    statement = update(LeaseRow).where(condition).values(**values)
    return _count(session.execute(statement, execution_options={"synchronize_session": False})) == 1


def _count(result: Any) -> int:
    return int(result.rowcount)


def _row(session: Session, name: str) -> LeaseRow | None:
    statement = select(LeaseRow).where(LeaseRow.name == name)
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
