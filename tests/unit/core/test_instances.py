from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select

from chalicelib.apps.models import App
from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import DatabaseService
from chalicelib.core.instances import (
    COMMIT_GRACE,
    HEARTBEAT_EVERY_S,
    Heartbeat,
    Instance,
    describe,
    list_instances,
)
from chalicelib.core.paging import Page

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def instances(database: DatabaseService) -> list[Instance]:
    with database.reads() as session:
        return list(session.scalars(select(Instance).order_by(Instance.instance_id)))


def test_a_row_is_written_once_and_then_kept_up(database: DatabaseService) -> None:
    clock = Clock()
    heartbeat = Heartbeat(database, clock)
    assert heartbeat.beat("i1", "api", versions={"apps": 1}, seen_at=NOW)
    clock.now += HEARTBEAT_EVERY_S
    later = NOW + timedelta(seconds=5, microseconds=7)
    assert heartbeat.beat("i1", "api", versions={"apps": 1}, memory_bytes=9, seen_at=later)
    [row] = instances(database)
    assert (row.function, row.tenant, row.versions, row.loaded, row.load_error) == (
        "api",
        "",
        {"apps": 1},
        [],
        None,
    )
    assert (row.started_at, row.seen_at, row.memory_bytes) == (NOW, later, 9)


def test_nothing_is_written_within_five_seconds_unless_what_runs_has_changed(
    database: DatabaseService,
) -> None:
    clock = Clock()
    heartbeat = Heartbeat(database, clock)
    same: dict[str, Any] = {"versions": {"plugins": 1}, "loaded": [{"pluginId": "p"}]}
    assert heartbeat.beat("i1", "runtime", tenant="acme", **same)
    clock.now += HEARTBEAT_EVERY_S - 0.01
    assert not heartbeat.beat("i1", "runtime", tenant="acme", **same)
    assert heartbeat.beat("i2", "runtime", tenant="acme", **same)
    assert heartbeat.beat("i1", "runtime", tenant="acme", **(same | {"versions": {"plugins": 2}}))
    assert heartbeat.beat("i1", "runtime", tenant="acme", **(same | {"loaded": []}))
    assert heartbeat.beat("i1", "runtime", tenant="acme", load_error="x" * 600, **same)
    assert [len(row.load_error or "") for row in instances(database)] == [500, 0]


def test_a_heartbeat_that_fails_is_ignored_and_tried_again(database: DatabaseService) -> None:
    away = DatabaseService("mysql+pymysql://root@127.0.0.1:1/none")
    clock = Clock()
    heartbeat = Heartbeat(away, clock)
    assert not heartbeat.beat("i1", "api", versions={})
    assert not heartbeat.beat("i1", "api", versions={})
    assert instances(database) == []


def newest(version: int, updated_at: datetime) -> dict[str, CacheVersion]:
    return {"apps": CacheVersion(scope="apps", version=version, epoch="e", updated_at=updated_at)}


@pytest.mark.parametrize(
    ("known", "seen_after_the_change", "state"),
    [
        ({"apps": 5}, timedelta(0), "current"),
        ({"apps": 6}, timedelta(0), "current"),
        ({}, timedelta(days=1), "current"),
        ({"unknown": 1}, timedelta(days=1), "current"),
        ({"apps": 4}, timedelta(seconds=-1), "idle"),
        ({"apps": 4}, COMMIT_GRACE, "idle"),
        ({"apps": 4}, COMMIT_GRACE + timedelta(microseconds=1), "stale"),
    ],
)
def test_the_state_of_an_instance(
    known: dict[str, int], seen_after_the_change: timedelta, state: str
) -> None:
    row = Instance(
        instance_id="i", function="api", tenant="", versions=known, loaded=[], load_error=None,
        memory_bytes=0, started_at=NOW, seen_at=NOW + seen_after_the_change,
    )  # fmt: skip
    assert describe(row, newest(5, NOW))["state"] == state


def test_instances_are_listed_in_pages(database: DatabaseService) -> None:
    heartbeat = Heartbeat(database)
    for number in range(3):
        heartbeat.beat(f"i{number}", "api", tenant="acme" if number else "", versions={"apps": 0})
    with database.reads() as session:
        first = list_instances(session, Page(2, None, {}, b"k"))
        second = list_instances(session, Page(2, first["nextCursor"], {}, b"k"))
    assert [item["instanceId"] for item in first["items"]] == ["i2", "i1"]
    assert [(item["tenant"], item["state"]) for item in second["items"]] == [(None, "current")]
    assert second["nextCursor"] is None


def test_a_change_makes_those_that_have_not_been_invoked_since_idle(database: DatabaseService) -> None:
    Heartbeat(database).beat("i1", "api", versions={"apps": 0})
    database.run(lambda session: session.add(App(name="a", alias_id="acme")))
    with database.reads() as session:
        [item] = list_instances(session, Page(2, None, {}, b"k"))["items"]
    assert item["state"] == "idle"
    database.run(lambda session: session.execute(delete(Instance)))
