"""Where circuits are kept: a row per app and host that ever opened, and the hot cache's scope `breakers`.

All circuits of one app are one entry of the cache, so that a call to another host costs no round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, cast

from sqlalchemy import BigInteger, Index, Integer, String, Table, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, Unit, UtcDateTime, is_duplicate
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.outbound.circuit import Circuit, State

SCOPE = "breakers"
# A host's name has 253 characters at most.
MAX_HOST_LENGTH = 260
# An app that is led to ever new hosts loses its oldest rows: what breaks is forgotten, nothing else.
MOST_PER_APP = 200
# Two that open at once may each find room for the last one.
_MOST_READ = 2 * MOST_PER_APP
# A call waits for it: the change may as well be recorded by the next one.
_ATTEMPTS = 2


class CircuitBreaker(Base):
    """The state of one app's way to one host (`host:port`). There is none before it first opens."""

    __tablename__ = "circuit_breaker"
    __table_args__ = (Index("ix_circuit_breaker_updated_at", "updated_at"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = SCOPE
    cache_key: ClassVar[str] = "app_id"
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    host: Mapped[str] = mapped_column(String(MAX_HOST_LENGTH), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(Integer)
    probe_owner: Mapped[str | None] = mapped_column(String(64))
    until_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    opened_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    failures: Mapped[int] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime())


# For reading: the first use of any model configures all of them.
_TABLE = cast(Table, CircuitBreaker.__table__)


class StoredCircuits:
    """The circuits of all apps, as this process knows them.

    Parameters
    ----------
    cache
        Refreshed for this invocation.
    """

    def __init__(self, database: DatabaseService, cache: HotCache) -> None:
        self._database = database
        self._cache = cache
        # What this process changed since its last refresh: the cache follows with the next one.
        self._own: dict[tuple[int, str], Circuit] = {}
        self._own_under: tuple[int, str] = (0, "")

    def get(self, app_id: int, host: str) -> Circuit:
        """Return the circuit; one round trip where the app's are not in memory."""
        self._forget_refreshed()
        own = self._own.get((app_id, host))
        if own is not None:
            return own
        of_app = self._cache.load((SCOPE, app_id), lambda session: _read(session, app_id))
        return of_app.get(host, Circuit())

    def swap(
        self, app_id: int, host: str, seen: Circuit, changed: Circuit, now: datetime
    ) -> tuple[bool, Circuit]:
        """Store `changed` if the circuit still is what was `seen`; return whether, and what it is now.

        Raises
        ------
        errors.Unavailable
            The database is away, or contended.
        """

        def work(session: Unit) -> tuple[bool, Circuit]:
            return _swap(session, app_id, host, seen, changed, now)

        try:
            swapped, current = self._database.run(work, attempts=_ATTEMPTS)
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            # Another inserted the row between our look and our insert; now it is there to be looked at.
            swapped, current = self._database.run(work, attempts=_ATTEMPTS)
        self._forget_refreshed()
        self._own[app_id, host] = current
        return swapped, current

    def _forget_refreshed(self) -> None:
        version = self._cache.version(SCOPE)
        if version != self._own_under:
            self._own.clear()
            self._own_under = version


def delete_old(session: Unit, before: datetime, limit: int) -> int:
    """Delete rows that did not change since `before`, and return how many.

    An open one among them is past its cool-down, and nobody called: closed is as good.
    """
    old = select(CircuitBreaker).where(CircuitBreaker.updated_at < before)
    rows = session.scalars(old.order_by(CircuitBreaker.updated_at).limit(limit)).all()
    for row in rows:
        # One by one: a bulk statement would drop the circuits of every app from memory.
        session.delete(row)
    return len(rows)


def _read(session: Session, app_id: int) -> tuple[Mapping[str, Circuit], list[Dependency]]:
    rows = session.execute(select(_TABLE).where(_TABLE.c.app_id == app_id).limit(_MOST_READ))
    circuits = {
        row.host: Circuit(
            State(row.state), row.revision, row.probe_owner, row.until_at, row.opened_at, row.failures
        )
        for row in rows
    }
    return MappingProxyType(circuits), [(SCOPE, str(app_id))]


def _swap(
    session: Unit, app_id: int, host: str, seen: Circuit, changed: Circuit, now: datetime
) -> tuple[bool, Circuit]:
    row = session.get(CircuitBreaker, (app_id, host), with_for_update=True)
    current = Circuit() if row is None else _circuit(row)
    if not current.is_same(seen):
        return False, current
    if row is None:
        _make_room(session, app_id)
        row = CircuitBreaker(app_id=app_id, host=host)
        session.add(row)
    row.state, row.revision, row.probe_owner = changed.state, changed.revision, changed.owner
    row.until_at, row.opened_at = changed.until, changed.opened_at
    row.failures, row.updated_at = changed.failures, now
    return True, changed


def _circuit(row: CircuitBreaker) -> Circuit:
    return Circuit(State(row.state), row.revision, row.probe_owner, row.until_at, row.opened_at, row.failures)


def _make_room(session: Unit, app_id: int) -> None:
    of_app = CircuitBreaker.app_id == app_id
    count = session.scalar(select(func.count()).select_from(CircuitBreaker).where(of_app)) or 0
    if count < MOST_PER_APP:
        return
    oldest = select(CircuitBreaker).where(of_app).order_by(CircuitBreaker.updated_at)
    for row in session.scalars(oldest.limit(count - MOST_PER_APP + 1)):
        session.delete(row)
