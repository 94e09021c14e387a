"""Writers that race for one lease, on SQLite and on a server of the MySQL family, each with its engine."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.core import leases
from chalicelib.core.database import DatabaseService
from chalicelib.core.leases import Lease, LeaseRow

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WRITERS = 4
ROUNDS = 15


@pytest.fixture
def url(database_url: str) -> str:
    """The URL of a database that has the lease table and nothing else."""
    service = DatabaseService(database_url)
    service.create_db_and_tables([LeaseRow])
    service.close()
    return database_url


def race(url: str, name: str, now: datetime) -> list[Lease]:
    """Let the writers acquire at the same moment, each with an engine of its own; return who was granted."""
    barrier, won, failed = threading.Barrier(WRITERS), [], []

    def write(owner: str) -> None:
        service = DatabaseService(url)
        try:
            barrier.wait(30)
            lease = service.run(lambda session: leases.acquire(session, name, owner, 30, now))
            if lease is not None:
                won.append(lease)
        except Exception as error:
            failed.append(error)
        finally:
            service.close()

    writers = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failed == []
    return won


def test_exactly_one_of_several_writers_gets_a_new_lease(url: str) -> None:
    for number in range(ROUNDS):
        assert [lease.fencing for lease in race(url, f"job-{number}", NOW)] == [1]


def test_exactly_one_of_several_writers_takes_an_expired_lease_over(url: str) -> None:
    for number in range(ROUNDS):
        won = race(url, "job", NOW + timedelta(seconds=31 * number))
        assert [lease.fencing for lease in won] == [number + 1]


def test_a_take_over_waits_for_the_holder_that_is_just_committing(url: str) -> None:
    """`holds` locks: a take-over cannot slip in between the check and the commit of the holder's unit."""
    holder, other = DatabaseService(url), DatabaseService(url)
    lease = holder.run(lambda session: leases.acquire(session, "job", "slow", 30, NOW))
    assert lease is not None
    later = NOW + timedelta(seconds=60)
    order: list[str] = []
    began = threading.Event()

    def take_over() -> None:
        began.set()
        taken = other.run(lambda session: leases.acquire(session, "job", "next", 30, later))
        order.append(f"taken {taken.fencing}" if taken else "refused")

    thread = threading.Thread(target=take_over)
    with holder.session_getter() as session:
        assert leases.holds(session, lease)
        thread.start()
        began.wait(10)
        thread.join(0.3)
        assert thread.is_alive()
        order.append("committed")
    thread.join(30)
    assert order == ["committed", "taken 2"]
    assert not holder.run(lambda session: leases.holds(session, lease))
    holder.close()
    other.close()


_HOLD_AND_DIE = """
import os, sys
from datetime import datetime
from chalicelib.core import leases
from chalicelib.core.database import DatabaseService
service = DatabaseService(sys.argv[1])
now = datetime.fromisoformat(sys.argv[2])
assert service.run(lambda session: leases.acquire(session, "job", "killed", 30, now))
with service.session_getter() as session:
    leases.acquire(session, "uncommitted", "killed", 30, now)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_process_blocks_the_name_no_longer_than_its_lease(url: str) -> None:
    dead = subprocess.run([sys.executable, "-c", _HOLD_AND_DIE, url, NOW.isoformat()], timeout=60)
    assert dead.returncode == -9
    service = DatabaseService(url)

    def acquire(name: str, seconds: float) -> Lease | None:
        at = NOW + timedelta(seconds=seconds)
        return service.run(lambda session: leases.acquire(session, name, "next", 30, at))

    assert acquire("job", 29) is None
    taken = acquire("job", 30)
    assert taken is not None and taken.fencing == 2
    # What the process had not committed never was.
    fresh = acquire("uncommitted", 0)
    assert fresh is not None and fresh.fencing == 1
    service.close()
