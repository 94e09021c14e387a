from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Table

from chalicelib.core import leases
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.leases import Lease, LeaseRow

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
T = TypeVar("T")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[DatabaseService]:
    service = DatabaseService(f"sqlite:///{tmp_path}/leases.db")
    table = LeaseRow.__table__
    assert isinstance(table, Table)
    Base.metadata.create_all(service.engine, tables=[table])
    yield service
    service.close()


@pytest.fixture
def run(database: DatabaseService) -> Callable[..., Any]:
    """Call a function of the module in a unit of its own."""

    def call(function: Callable[..., T], *arguments: Any) -> T:
        return database.run(lambda session: function(session, *arguments))

    return call


def granted(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_a_free_name_is_granted(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    assert lease == Lease("job", "a", after(30), 1)
    assert run(leases.is_held, "job", NOW)


def test_a_held_name_is_refused_until_the_moment_it_expires(run: Any) -> None:
    run(leases.acquire, "job", "a", 30, NOW)
    assert run(leases.acquire, "job", "b", 30, after(29.999999)) is None
    assert granted(run(leases.acquire, "job", "b", 30, after(30))).fencing == 2


def test_names_are_independent_and_compared_byte_for_byte(run: Any) -> None:
    for name in ("job", "Job", "job "):
        assert granted(run(leases.acquire, name, "a", 30, NOW)).fencing == 1


def test_a_refusal_changes_nothing(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    run(leases.acquire, "job", "b", 300, after(1))
    assert run(leases.holds, lease)
    assert not run(leases.is_held, "job", after(31))


def test_a_released_name_is_free_at_once_even_for_an_earlier_clock(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    assert run(leases.release, lease, after(1))
    assert not run(leases.is_held, "job", NOW)
    taken = granted(run(leases.acquire, "job", "b", 30, NOW))
    assert taken.fencing == 2


def test_the_same_owner_gets_its_lease_again_with_a_new_number(run: Any) -> None:
    first = granted(run(leases.acquire, "job", "a", 30, NOW))
    again = granted(run(leases.acquire, "job", "a", 30, after(1)))
    assert again == Lease("job", "a", after(31), 2)
    assert not run(leases.holds, first)


def test_a_renewed_lease_lasts_longer_under_the_same_number(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    renewed = granted(run(leases.renew, lease, 30, after(20)))
    assert renewed == Lease("job", "a", after(50), 1)
    assert run(leases.acquire, "job", "b", 30, after(40)) is None


def test_an_expired_lease_is_not_renewed(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    assert run(leases.renew, lease, 30, after(30)) is None


def test_a_holder_that_slept_can_do_nothing_to_the_next_one(run: Any) -> None:
    # GIVEN a holder that stops for longer than its lease
    slow = granted(run(leases.acquire, "job", "a", 30, NOW))
    taken = granted(run(leases.acquire, "job", "b", 30, after(31)))
    # THEN nothing that it still believes in has an effect, whatever its clock says
    assert run(leases.renew, slow, 30, after(1)) is None
    assert not run(leases.release, slow, after(32))
    assert not run(leases.holds, slow)
    assert run(leases.holds, taken)


def test_a_released_lease_is_not_held_by_its_last_owner(run: Any) -> None:
    lease = granted(run(leases.acquire, "job", "a", 30, NOW))
    run(leases.release, lease, after(1))
    assert not run(leases.holds, lease)
    assert run(leases.renew, lease, 30, after(2)) is None


def test_a_rolled_back_unit_grants_nothing(database: DatabaseService, run: Any) -> None:
    with pytest.raises(LookupError), database.session_getter() as session:
        leases.acquire(session, "job", "a", 30, NOW)
        raise LookupError
    assert not run(leases.is_held, "job", NOW)
    assert granted(run(leases.acquire, "job", "b", 30, NOW)).fencing == 1


def test_prune_removes_what_ended_long_ago(run: Any) -> None:
    ended = granted(run(leases.acquire, "ended", "a", 30, NOW))
    run(leases.release, ended, after(1))
    run(leases.acquire, "expired", "a", 30, NOW)
    lasting = granted(run(leases.acquire, "lasting", "a", 300, NOW))
    assert run(leases.prune, after(30)) == 1  # "expired" ends exactly then
    assert run(leases.prune, after(31)) == 1
    assert run(leases.prune, after(31)) == 0
    assert run(leases.holds, lasting)


@pytest.mark.parametrize(
    ("name", "owner", "seconds"),
    [("", "a", 1), ("n" * 129, "a", 1), ("n", "", 1), ("n", "o" * 65, 1), ("n", "a", 0), ("n", "a", -1)],
)
def test_a_lease_needs_a_name_an_owner_and_a_time(run: Any, name: str, owner: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="a lease has"):
        run(leases.acquire, name, owner, seconds, NOW)
