from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import cache_log, housekeeping
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.housekeeping import housekeeping_jobs
from chalicelib.core.idempotency_record import IdempotencyRecord
from chalicelib.core.instances import Instance
from chalicelib.core.jobs import Runner
from chalicelib.core.leases import LeaseRow
from tests.conftest import create_schema

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    service = create_schema(sqlite_url)
    yield service
    service.close()


def add(database: DatabaseService, *rows: Base) -> None:
    with database.session_getter() as session:
        session.add_all(rows)


def names(database: DatabaseService, column: Any) -> list[Any]:
    with database.reads() as session:
        return list(session.scalars(select(column).order_by(column)))


def run(database: DatabaseService, name: str) -> dict[str, Any]:
    job = next(job for job in housekeeping_jobs(database, lambda: NOW) if job.name == name)
    return Runner(database, deadline_s=30, now=lambda: NOW).run(job)


def instance(name: str, seen_at: datetime) -> Instance:
    return Instance(instance_id=name, function="api", seen_at=seen_at)


def record(name: str, expires_at: datetime) -> IdempotencyRecord:
    return IdempotencyRecord(
        id=name,
        status="COMPLETED",
        owner="o",
        expires_at=int(expires_at.timestamp()),
        payload_hash="h",
        response="{}",
    )


def lease(name: str, expires_at: datetime) -> LeaseRow:
    return LeaseRow(name=name, owner="", expires_at=expires_at, fencing=1)


def test_environments_not_seen_for_an_hour_are_forgotten(database: DatabaseService) -> None:
    hour = timedelta(hours=1)
    add(database, instance("gone", NOW - hour - timedelta(microseconds=1)), instance("warm", NOW - hour))
    report = run(database, "prune_instances")
    assert report["plan"] == [{"action": "delete_rows", "target": "instance", "count": 1}]
    assert names(database, Instance.instance_id) == ["warm"]


def test_idempotency_records_go_an_hour_after_they_expired(database: DatabaseService) -> None:
    add(
        database,
        record("old", NOW - timedelta(hours=1, seconds=1)),
        record("just expired", NOW - timedelta(hours=1)),
        record("valid", NOW + timedelta(hours=1)),
    )
    run(database, "prune_idempotency")
    assert names(database, IdempotencyRecord.id) == ["just expired", "valid"]


def test_leases_that_ended_a_day_ago_go(database: DatabaseService) -> None:
    day = timedelta(days=1)
    add(database, lease("old", NOW - day - timedelta(seconds=1)), lease("recent", NOW - day))
    run(database, "prune_leases")
    # The job's own lease is there too, freed just now.
    assert names(database, LeaseRow.name) == ["job/prune_leases", "recent"]


def test_rows_go_in_batches(database: DatabaseService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 2)
    monkeypatch.setattr(housekeeping, "COUNTED", 3)
    add(database, *(instance(f"i{number}", NOW - timedelta(days=1)) for number in range(5)))
    report = run(database, "prune_instances")
    # Counting stops at its bound, deleting does not.
    assert (report["plan"][0]["count"], report["more"]) == (3, True)
    assert names(database, Instance.instance_id) == []


def test_the_change_log_loses_a_prefix_and_never_its_newest_versions(
    database: DatabaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_log, "KEPT_VERSIONS", 3)
    monkeypatch.setattr(cache_log, "_PRUNE_BATCH", 2)
    add(database, *(CacheChange(scope="plugins", version=n, item_key="k") for n in range(1, 9)))
    add(database, *(CacheChange(scope="apps", version=n, item_key="k") for n in range(1, 3)))
    with database.session_getter() as session:
        for scope, version in (("plugins", 8), ("apps", 2)):
            row = session.get(CacheVersion, scope)
            assert row is not None
            row.version = version
    report = run(database, "prune_log")
    assert report["plan"] == [{"action": "prune_log", "target": "plugins through 5", "count": 5}]
    with database.reads() as session:
        rows = session.execute(
            select(CacheChange.scope, CacheChange.version).order_by(CacheChange.scope, CacheChange.version)
        ).all()
        versions = {row.scope: row.version for row in session.scalars(select(CacheVersion))}
    assert [tuple(row) for row in rows] == [
        ("apps", 1),
        ("apps", 2),
        ("plugins", 6),
        ("plugins", 7),
        ("plugins", 8),
    ]
    # Pruning is no change: no function drops anything.
    assert (versions["plugins"], versions["apps"]) == (8, 2)


@pytest.mark.parametrize("name", ["prune_log", "prune_instances", "prune_idempotency", "prune_leases"])
def test_nothing_to_do_is_no_action(database: DatabaseService, name: str) -> None:
    report = run(database, name)
    assert (report["planned"], report["failed"], report["more"]) == (0, 0, False)
