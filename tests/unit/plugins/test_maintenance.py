from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.core import steps, telemetry
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.jobs import Runner
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import (
    AWAITING_UPLOAD,
    CANCELLED,
    EXPIRED,
    FAILED,
    REJECTED,
    TASK_REGISTERED,
    VERIFYING,
    PluginInstall,
    PluginRemoval,
)
from chalicelib.plugins.maintenance import arrivals, objects, retention, stuck
from chalicelib.plugins.maintenance.catalog import plugin_jobs
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.models import Plugin, PluginHistory, PluginVersion
from chalicelib.plugins.run_models import PluginExecution, PluginMetric
from tests.conftest import create_schema
from tests.fakes.storage import MemoryStorage

APP, DISABLED_APP = 11, 22
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SECOND = timedelta(seconds=1)


class World:
    """A database and a bucket under maintenance, at a time that a test sets."""

    def __init__(self, database: DatabaseService) -> None:
        self.database = database
        self.storage = MemoryStorage()
        self.now = datetime.now(UTC)
        self.announced: list[tuple[str, str]] = []
        self.context = Context(
            database, self.storage, self.announce, timedelta(minutes=10), now=lambda: self.now
        )
        self.add(
            App(id=APP, name="Owner", alias_id="owner"),
            App(id=DISABLED_APP, name="Off", alias_id="off", status=0),
        )

    def announce(self, key: str, version_id: str) -> None:
        self.announced.append((key, version_id))

    def run(self, name: str, *, times: int = 1) -> dict[str, Any]:
        report: dict[str, Any] = {}
        for _ in range(times):
            job = next(job for job in plugin_jobs(self.context) if job.name == name)
            report = Runner(self.database, deadline_s=30, now=lambda: self.now).run(job)
            assert report["skipped"] is None
        return report

    def preview(self, name: str) -> list[tuple[str, str]]:
        job = next(job for job in plugin_jobs(self.context) if job.name == name)
        report = Runner(self.database, deadline_s=30, now=lambda: self.now).preview(job)
        return [(action["action"], action["target"]) for action in report["plan"]]

    def add(self, *rows: Base) -> None:
        with self.database.session_getter() as session:
            session.add_all(rows)

    def rows(self, model: Any) -> list[Any]:
        with self.database.reads() as session:
            return list(session.scalars(select(model)))

    def task(self, key: str, **values: Any) -> str:
        values = {"state": AWAITING_UPLOAD, "updated_at": self.now, **values}
        task = PluginInstall(app_id=APP, source="local", object_key=key, errors=[], timings={}, **values)
        self.add(task)
        return task.install_id

    def install(self, install_id: str) -> PluginInstall:
        found: PluginInstall = next(one for one in self.rows(PluginInstall) if one.install_id == install_id)
        return found

    def keys(self, prefix: str = "") -> list[str]:
        return [version.key for version in self.storage.list_versions(prefix)]

    def later(self, by: timedelta) -> None:
        self.now += by

    def version(self, plugin_id: str, number: str, *, wasm: str | None = None) -> PluginVersion:
        """Store a version's objects and its row, as a registration leaves them."""
        path = f"plugins/{plugin_id}/{number}/{plugin_id}_{number}.zip"
        content = number.encode()
        row = PluginVersion(
            plugin_id=plugin_id,
            version=number,
            checksum=hashlib.sha256(content).hexdigest(),
            size=len(content),
            s3_path=path,
            s3_version=self.storage.put(path, content),
            manifest={"name": "x", "version": number},
            runtime="wasm" if wasm else "python",
        )
        if wasm:
            row.wasm_sha256, row.compiled_path = wasm, f"compiled/{wasm}/engine.cwasm"
            row.compiled_version = self.storage.put(row.compiled_path, b"native")
        self.add(row)
        return row

    def plugin(self, plugin_id: str, active: str) -> None:
        name = plugin_id.split("_")[1]
        self.add(
            Plugin(
                plugin_id=plugin_id,
                app_id=APP,
                name=name,
                version=active,
                plugin_type="test",
                entry_point="main.py",
                checksum="0" * 64,
                default_config={},
                manifest={},
            )
        )


@pytest.fixture
def world(sqlite_url: str) -> Iterator[World]:
    service = create_schema(sqlite_url)
    yield World(service)
    service.close()


# -- sweep: installs ---------------------------------------------------------------------------------------


def verifying(world: World, **values: Any) -> tuple[str, str]:
    """An install whose function has died: its object is there, its lease has ended."""
    key = "incoming/tasks/one.zip"
    version = world.storage.put(key, b"zip")
    defaults = {
        "state": VERIFYING,
        "step": "place",
        "object_version": version,
        "attempts": 1,
        "lease_owner": "dead",
        "lease_until": world.now - SECOND,
    }
    return world.task(key, **{**defaults, **values}), version


def test_an_install_whose_lease_ended_is_announced_again(world: World) -> None:
    install_id, version = verifying(world)
    assert world.preview("sweep") == [("announce_install", install_id)]
    assert world.announced == []
    world.later(SECOND)
    world.run("sweep")
    assert world.announced == [("incoming/tasks/one.zip", version)]
    task = world.install(install_id)
    assert (task.state, task.lease_owner, task.updated_at) == (VERIFYING, None, world.now)


def test_an_announcement_is_given_a_minute(world: World) -> None:
    verifying(world)
    world.run("sweep")
    world.later(MINUTE)
    world.run("sweep")
    assert len(world.announced) == 1
    world.later(SECOND)
    world.run("sweep")
    assert len(world.announced) == 2


def test_a_live_lease_is_left_alone(world: World) -> None:
    verifying(world, lease_until=world.now + SECOND, updated_at=world.now - DAY)
    world.run("sweep")
    assert world.announced == []


@pytest.mark.parametrize("step", ["queued", ""])
def test_an_install_that_nobody_began_is_announced_after_a_minute(world: World, step: str) -> None:
    verifying(world, lease_until=None, lease_owner=None, step=step, updated_at=world.now - MINUTE)
    world.run("sweep")
    assert world.announced == []
    world.later(SECOND)
    world.run("sweep")
    assert len(world.announced) == 1


def test_after_five_attempts_the_sixth_that_dies_fails_the_install(world: World) -> None:
    install_id, _ = verifying(world, attempts=5)
    world.run("sweep")
    assert len(world.announced) == 1
    with world.database.session_getter() as session:
        row = session.scalars(select(PluginInstall)).one()
        row.attempts, row.lease_until = 6, world.now - SECOND
        row.errors = [{"pointer": "", "rule": "storage.away", "message": "away"}]
    world.run("sweep")
    assert len(world.announced) == 1
    task = world.install(install_id)
    assert (task.state, task.error_code, task.lease_until) == (FAILED, "install.gave_up", None)
    assert [error["rule"] for error in task.errors] == ["storage.away", "install.gave_up"]
    # The package stays, so that the publisher can try again.
    assert world.keys("incoming/") == ["incoming/tasks/one.zip"]


def test_a_publishers_retry_gets_its_attempt_however_many_there_were(world: World) -> None:
    install_id, _ = verifying(
        world, attempts=9, step="queued", lease_until=None, updated_at=world.now - 2 * MINUTE
    )
    world.run("sweep")
    assert (len(world.announced), world.install(install_id).state) == (1, VERIFYING)


def test_an_install_whose_package_is_gone_has_failed(world: World) -> None:
    install_id, version = verifying(world)
    world.storage.delete("incoming/tasks/one.zip", version)
    world.run("sweep")
    task = world.install(install_id)
    assert (task.state, task.error_code, world.announced) == (FAILED, "install.upload_vanished", [])
    assert task.errors[0]["message"]


def test_an_install_that_was_taken_up_between_plan_and_action_is_left_alone(world: World) -> None:
    install_id, _ = verifying(world)

    def take_up(_operation: str, step: str) -> None:
        if step == "note_announcement":
            with world.database.session_getter() as session:
                row = session.scalars(select(PluginInstall)).one()
                row.lease_owner, row.lease_until = "alive", world.now + MINUTE

    before = steps.observe(take_up)
    world.run("sweep")
    steps.observe(before)
    assert world.announced == []
    assert world.install(install_id).lease_owner == "alive"


def test_an_install_that_ended_between_plan_and_action_stays_as_it_ended(world: World) -> None:
    install_id, _ = verifying(world, attempts=6)

    def finish(_operation: str, step: str) -> None:
        if step == "fail_install":
            with world.database.session_getter() as session:
                session.scalars(select(PluginInstall)).one().state = TASK_REGISTERED

    before = steps.observe(finish)
    world.run("sweep")
    steps.observe(before)
    assert world.install(install_id).state == TASK_REGISTERED


def test_an_unreachable_queue_is_a_failed_action_and_tried_again(world: World) -> None:
    install_id, _ = verifying(world)

    def away(key: str, version_id: str) -> None:
        raise Unavailable("The install queue cannot be reached.", code="queue.away")

    world.context = Context(world.database, world.storage, away, 10 * MINUTE, now=lambda: world.now)
    assert world.run("sweep")["failures"] == [
        {"action": "announce_install", "target": install_id, "code": "queue.away"}
    ]
    assert world.install(install_id).state == VERIFYING


# -- sweep: removals ---------------------------------------------------------------------------------------


def uninstalled(world: World) -> str:
    plugin_id = "plugin_gone_aaaaaa"
    world.version(plugin_id, "1.0.0")
    world.version(plugin_id, "2.0.0", wasm="a" * 64)
    # A leftover of an attempt, and what a plain delete leaves.
    world.storage.put(f"plugins/{plugin_id}/1.0.0/{plugin_id}_1.0.0.zip", b"again")
    world.storage.put_delete_marker(f"plugins/{plugin_id}/3.0.0/x.zip")
    world.add(
        PluginConfig(plugin_id=plugin_id, app_id=APP, name="c", config_items={}, scope="app"),
        PluginRemoval(plugin_id=plugin_id, app_id=APP),
        PluginHistory(plugin_id=plugin_id, app_id=APP, action="uninstall", version="2.0.0", outcome="done"),
    )
    return plugin_id


def other_plugin(world: World) -> None:
    world.version("plugin_gone_bbbbbb", "1.0.0", wasm="a" * 64)
    world.plugin("plugin_gone_bbbbbb", "1.0.0")


def test_an_uninstalled_plugin_leaves_nothing_but_its_history(world: World) -> None:
    other_plugin(world)
    kept = world.keys()
    plugin_id = uninstalled(world)
    assert world.preview("sweep") == [("remove_plugin", plugin_id)]
    assert world.run("sweep")["done"] == 1
    assert world.keys() == kept
    assert [row.plugin_id for row in world.rows(PluginVersion)] == ["plugin_gone_bbbbbb"]
    assert (world.rows(PluginConfig), world.rows(PluginRemoval)) == ([], [])
    assert len(world.rows(PluginHistory)) == 1


def test_the_rows_of_an_uninstalled_plugin_drop_its_own_cache_key_alone(world: World) -> None:
    plugin_id = uninstalled(world)
    before = {row.version for row in world.rows(CacheChange)}
    world.run("sweep")
    touched = {row.item_key for row in world.rows(CacheChange) if row.version not in before}
    assert touched == {plugin_id}


REMOVAL_STEPS = ["delete_package", "delete_compiled", "delete_versions", "delete_configs", "forget_removal"]


@pytest.mark.parametrize("fatal", REMOVAL_STEPS)
def test_a_removal_that_is_killed_anywhere_is_finished_by_the_next_sweep(world: World, fatal: str) -> None:
    other_plugin(world)
    kept = world.keys()
    uninstalled(world)
    with killed_at(fatal):
        world.run("sweep")
    assert len(world.rows(PluginRemoval)) == 1
    world.later(MINUTE)
    assert world.run("sweep")["failed"] == 0
    assert world.keys() == kept
    assert [row.plugin_id for row in world.rows(PluginVersion)] == ["plugin_gone_bbbbbb"]
    assert (world.rows(PluginConfig), world.rows(PluginRemoval)) == ([], [])


class Killed(BaseException):
    """What ends a process."""


class killed_at:
    def __init__(self, fatal: str) -> None:
        self._fatal = fatal

    def __enter__(self) -> None:
        def die(_operation: str, name: str) -> None:
            if name == self._fatal:
                raise Killed

        self._before = steps.observe(die)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> bool:
        steps.observe(self._before)
        assert kind is Killed
        return True


# -- sweep: orphans ----------------------------------------------------------------------------------------


def test_objects_that_no_row_names_go_once_they_are_old(world: World) -> None:
    named = world.version("plugin_kept_aaaaaa", "1.0.0", wasm="b" * 64)
    kept = world.keys()
    again = world.storage.put(named.s3_path, b"another version under a registered key")
    world.storage.put("plugins/plugin_never_aaaaaa/1.0.0/x.zip", b"x")
    world.storage.put(f"compiled/{'b' * 64}/engine.cwasm", b"native again")
    world.storage.put("compiled/no", b"odd key")
    world.storage.put("plugins/", b"odd key")
    world.later(10 * MINUTE - SECOND)
    assert world.run("sweep")["planned"] == 0
    world.later(2 * SECOND)
    assert ("delete_orphan", f"{named.s3_path}@{again}") in world.preview("sweep")
    assert world.run("sweep")["done"] == 5
    assert world.keys() == kept
    assert world.storage.head(named.s3_path, named.s3_version) is not None


def test_an_object_that_a_row_names_by_now_is_not_deleted(world: World) -> None:
    key = "plugins/plugin_late_aaaaaa/1.0.0/plugin_late_aaaaaa_1.0.0.zip"
    version = world.storage.put(key, b"x")
    world.later(11 * MINUTE)
    job = next(job for job in plugin_jobs(world.context) if job.name == "sweep")
    plan = job.plan({})
    world.add(
        PluginVersion(
            plugin_id="plugin_late_aaaaaa",
            version="1.0.0",
            checksum="0" * 64,
            size=1,
            s3_path=key,
            s3_version=version,
            manifest={},
            runtime="none",
        )
    )
    for action in plan.actions:
        action.work()
    assert len(plan.actions) == 1
    assert world.keys() == [key]


def test_a_listing_is_gone_through_window_by_window(world: World) -> None:
    for number in range(5):
        world.storage.put(f"plugins/plugin_p{number}_aaaaaa/1.0.0/x.zip", b"x")
    seen, after = [], None
    for _ in range(3):
        piece = objects.window(world.storage, "plugins/", after, 2)
        seen.append([version.key.split("/")[1] for version in piece.versions])
        after = piece.cursor
    assert seen == [
        ["plugin_p0_aaaaaa", "plugin_p1_aaaaaa"],
        ["plugin_p2_aaaaaa", "plugin_p3_aaaaaa"],
        ["plugin_p4_aaaaaa"],
    ]
    assert after is None


def test_a_window_ends_inside_a_key_with_very_many_versions(world: World) -> None:
    for _ in range(20):
        world.storage.put("plugins/a/x", b"x")
    world.storage.put("plugins/b/x", b"x")
    piece = objects.window(world.storage, "plugins/", None, 2)
    assert (len(piece.versions), piece.cursor) == (8, "plugins/a/x")


def test_the_sweep_goes_on_where_it_stopped_and_begins_again_at_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chalicelib.plugins.maintenance import catalog

    monkeypatch.setattr(catalog, "SWEPT", 2)
    for number in range(5):
        world.storage.put(f"plugins/plugin_p{number}_aaaaaa/1.0.0/x.zip", b"x")
    world.later(11 * MINUTE)
    reports = [world.run("sweep") for _ in range(4)]
    assert [report["done"] for report in reports] == [2, 2, 1, 0]
    assert [report["more"] for report in reports] == [True, True, False, False]
    world.storage.put("plugins/plugin_p0_aaaaaa/1.0.0/x.zip", b"x")
    world.later(11 * MINUTE)
    assert world.run("sweep", times=1)["done"] == 1


def test_the_daily_job_goes_through_everything_at_once(world: World) -> None:
    for number in range(600):
        world.storage.put(f"plugins/plugin_p{number:03}_aaaaaa/1.0.0/x.zip", b"x")
    kept = world.version("plugin_kept_aaaaaa", "1.0.0")
    world.later(11 * MINUTE)
    assert world.run("tombstoned_objects")["done"] == 600
    assert world.keys() == [kept.s3_path]


# -- lost events -------------------------------------------------------------------------------------------


def test_an_upload_whose_event_never_came_is_announced(world: World) -> None:
    world.task("incoming/tasks/one.zip")
    world.storage.put("incoming/tasks/one.zip", b"first")
    newest = world.storage.put("incoming/tasks/one.zip", b"second")
    world.task("incoming/tasks/two.zip")
    world.run("lost_events")
    assert world.announced == []
    world.later(5 * MINUTE + SECOND)
    world.run("lost_events")
    assert world.announced == [("incoming/tasks/one.zip", newest)]


def test_a_drop_without_an_install_is_announced_for_an_enabled_app(world: World) -> None:
    dropped = world.storage.put("incoming/drop/owner/x.zip", b"x")
    for key in ("drop/off/x.zip", "drop/nobody/x.zip", "tasks/unknown.zip", "elsewhere.zip", "drop/"):
        world.storage.put(f"incoming/{key}", b"x")
    world.storage.put(f"incoming/drop/owner/{'x' * 500}.zip", b"x")
    withdrawn = "incoming/drop/owner/withdrawn.zip"
    world.storage.put(withdrawn, b"x")
    world.storage.put_delete_marker(withdrawn)
    world.later(6 * MINUTE)
    world.run("lost_events")
    assert world.announced == [("incoming/drop/owner/x.zip", dropped)]


def test_each_version_of_a_drop_is_an_install_of_its_own(world: World) -> None:
    key = "incoming/drop/owner/x.zip"
    first, second = world.storage.put(key, b"1"), world.storage.put(key, b"2")
    world.task(key, state=TASK_REGISTERED, object_version=first)
    world.later(6 * MINUTE)
    world.run("lost_events")
    assert world.announced == [(key, second)]
    assert [version.version_id for version in world.storage.list_versions(key)] == [second]


@pytest.mark.parametrize("state", [TASK_REGISTERED, REJECTED, CANCELLED, EXPIRED])
def test_what_an_ended_install_left_is_deleted(world: World, state: str) -> None:
    key = "incoming/tasks/one.zip"
    version = world.storage.put(key, b"x")
    world.storage.put(key, b"uploaded again")
    world.task(key, state=state, object_version=version)
    world.later(6 * MINUTE)
    world.run("lost_events")
    assert (world.keys(), world.announced) == ([], [])


@pytest.mark.parametrize("state", [FAILED, VERIFYING])
def test_what_may_still_be_needed_is_kept(world: World, state: str) -> None:
    version = world.storage.put("incoming/tasks/one.zip", b"x")
    world.task("incoming/tasks/one.zip", state=state, object_version=version)
    world.later(6 * MINUTE)
    world.run("lost_events")
    assert (world.keys(), world.announced) == (["incoming/tasks/one.zip"], [])


# -- expired uploads ---------------------------------------------------------------------------------------


def test_an_install_whose_upload_never_came_expires(world: World) -> None:
    install_id = world.task("incoming/tasks/one.zip", upload_expires_at=world.now)
    world.later(5 * MINUTE)
    world.run("expired_uploads")
    assert world.install(install_id).state == AWAITING_UPLOAD
    world.later(SECOND)
    assert world.preview("expired_uploads") == [("expire_install", install_id)]
    world.run("expired_uploads")
    task = world.install(install_id)
    assert (task.state, task.error_code) == (EXPIRED, "install.upload_expired")


def test_an_upload_that_came_after_all_is_announced_instead(world: World) -> None:
    install_id = world.task("incoming/tasks/one.zip", upload_expires_at=world.now)
    version = world.storage.put("incoming/tasks/one.zip", b"x")
    world.later(6 * MINUTE)
    world.run("expired_uploads")
    assert world.announced == [("incoming/tasks/one.zip", version)]
    assert world.install(install_id).state == AWAITING_UPLOAD


def test_what_nobody_claimed_goes_after_seven_days(world: World) -> None:
    doomed = ["drop/off/x.zip", "drop/nobody/x.zip", "tasks/unknown.zip", "elsewhere.zip", "tasks/failed.zip"]
    for key in doomed:
        world.storage.put(f"incoming/{key}", b"x")
    world.task("incoming/tasks/failed.zip", state=FAILED)
    world.storage.put("incoming/drop/owner/withdrawn.zip", b"x")
    world.storage.put_delete_marker("incoming/drop/owner/withdrawn.zip")
    world.storage.put("incoming/drop/owner/waits.zip", b"x")
    world.storage.put("incoming/tasks/works.zip", b"x")
    world.task("incoming/tasks/works.zip", state=VERIFYING)
    world.later(7 * DAY - MINUTE)
    assert world.run("expired_uploads")["planned"] == 0
    world.later(2 * MINUTE)
    assert world.run("expired_uploads")["done"] == 7
    assert world.keys() == ["incoming/drop/owner/waits.zip", "incoming/tasks/works.zip"]


def test_a_marker_above_something_that_stays_stays(world: World) -> None:
    key = "incoming/tasks/works.zip"
    world.storage.put(key, b"x")
    world.storage.put_delete_marker(key)
    world.task(key, state=VERIFYING)
    world.later(8 * DAY)
    assert world.run("expired_uploads")["planned"] == 0


def test_a_retry_between_plan_and_action_keeps_its_package(world: World) -> None:
    version = world.storage.put("incoming/tasks/one.zip", b"x")
    world.task("incoming/tasks/one.zip", state=FAILED, object_version=version)
    world.later(8 * DAY)
    plan = arrivals.plan_expired_uploads(world.context, {})
    with world.database.session_getter() as session:
        session.scalars(select(PluginInstall)).one().state = VERIFYING
    for action in plan.actions:
        action.work()
    assert len(plan.actions) == 1
    assert world.keys() == ["incoming/tasks/one.zip"]


# -- retention ---------------------------------------------------------------------------------------------

PLUGIN = "plugin_long_aaaaaa"


def history(world: World, version: str, from_version: str | None) -> None:
    world.add(
        PluginHistory(
            plugin_id=PLUGIN,
            app_id=APP,
            action="update",
            version=version,
            from_version=from_version,
            outcome="done",
        )
    )


def numbers(world: World) -> list[str]:
    return [row.version for row in sorted(world.rows(PluginVersion), key=lambda row: row.id)]


def stored(world: World) -> list[str]:
    return [key.split("/")[2] for key in world.keys("plugins/")]


def grown(world: World, count: int, active: str) -> None:
    for number in range(1, count + 1):
        world.version(PLUGIN, f"{number}.0.0", wasm=f"{number:064x}" if number % 2 else None)
    world.plugin(PLUGIN, active)


def test_the_newest_ten_versions_are_kept_with_their_objects(world: World) -> None:
    grown(world, 13, "13.0.0")
    report = world.run("retain_versions")
    assert report["plan"] == [{"action": "retire_versions", "target": PLUGIN, "count": 3}]
    kept = [f"{number}.0.0" for number in range(4, 14)]
    assert numbers(world) == kept
    assert sorted(stored(world)) == sorted(kept)
    assert len(world.keys("compiled/")) == len([number for number in range(4, 14) if number % 2])
    assert world.run("retain_versions")["planned"] == 0


def test_the_active_version_and_the_one_before_it_are_never_deleted(world: World) -> None:
    grown(world, 14, "1.0.0")
    history(world, "1.0.0", None)
    history(world, "1.0.0", "3.0.0")
    world.run("retain_versions")
    assert numbers(world)[:3] == ["1.0.0", "3.0.0", "5.0.0"]
    assert len(numbers(world)) == 12


def test_ten_versions_are_not_too_many(world: World) -> None:
    grown(world, 10, "10.0.0")
    assert world.run("retain_versions")["planned"] == 0


def test_a_version_that_became_active_after_the_plan_is_kept(world: World) -> None:
    grown(world, 12, "12.0.0")
    plan = retention.plan_versions(world.context)
    with world.database.session_getter() as session:
        session.scalars(select(Plugin)).one().version = "1.0.0"
    for action in plan.actions:
        action.work()
    assert numbers(world)[0] == "1.0.0"
    assert len(numbers(world)) == 11


def test_retiring_a_version_is_seen_in_history_audit_cache_and_generation(world: World) -> None:
    grown(world, 11, "11.0.0")
    plugin = world.rows(Plugin)[0]
    before = {row.version for row in world.rows(CacheChange) if row.scope == "plugins"}
    world.run("retain_versions")
    assert [(row.action, row.version) for row in world.rows(PluginHistory)] == [("retire", "1.0.0")]
    [entry] = world.rows(AuditLog)
    assert (entry.action, entry.object_id, entry.app_id) == ("plugin.retire", PLUGIN, APP)
    after = world.rows(Plugin)[0]
    # What an update or a rollback has planned on a deleted row must be planned again.
    assert after.generation == plugin.generation + 1
    assert after.update_time == plugin.update_time
    changes = [row for row in world.rows(CacheChange) if row.scope == "plugins" and row.version not in before]
    assert [change.item_key for change in changes] == [PLUGIN]
    assert {row.scope: row.version for row in world.rows(CacheVersion)}["plugins"] == changes[0].version


def test_many_versions_go_in_several_units(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "VERSIONS_A_UNIT", 2)
    grown(world, 15, "15.0.0")
    assert world.run("retain_versions")["done"] == 1
    assert len(numbers(world)) == len(stored(world)) == 10


def test_a_plugin_that_is_being_uninstalled_is_left_to_the_sweep(world: World) -> None:
    for number in range(12):
        world.version(PLUGIN, f"{number}.0.0")
    world.add(PluginRemoval(plugin_id=PLUGIN, app_id=APP))
    assert world.run("retain_versions")["planned"] == 0


def test_objects_of_a_killed_retention_are_orphans_for_the_sweep(world: World) -> None:
    grown(world, 12, "12.0.0")
    with killed_at("delete_objects"):
        world.run("retain_versions")
    assert (len(numbers(world)), len(stored(world))) == (10, 12)
    world.later(11 * MINUTE)
    world.run("sweep")
    assert sorted(stored(world)) == sorted(numbers(world))
    assert len(world.keys("compiled/")) == 5


def execution(at: datetime) -> PluginExecution:
    return PluginExecution(
        plugin_id=PLUGIN, app_id=APP, version="1", action="a", outcome="done", duration_us=1, started_at=at
    )


def metric(minute: int, bucket: int, at: datetime) -> PluginMetric:
    return PluginMetric(plugin_id=PLUGIN, app_id=APP, version="1", minute=minute, bucket=bucket, last_at=at)


def test_executions_and_metrics_go_after_thirty_days(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "METRICS_A_UNIT", 2)
    cutoff = world.now - 30 * DAY
    minute = int(cutoff.timestamp()) // 60
    world.add(execution(cutoff - SECOND), execution(cutoff + SECOND))
    world.add(*(metric(minute - back, bucket, cutoff) for back in (0, 1, 2, 3) for bucket in range(3)))
    report = world.run("retain_executions")
    assert [(action["target"], action["count"]) for action in report["plan"]] == [
        ("t_plugin_execution", 1),
        ("t_plugin_metric", 9),
    ]
    assert [row.started_at for row in world.rows(PluginExecution)] == [cutoff + SECOND]
    assert {row.minute for row in world.rows(PluginMetric)} == {minute}
    assert world.run("retain_executions")["planned"] == 0


# -- all jobs ----------------------------------------------------------------------------------------------


def test_a_preview_changes_nothing(world: World) -> None:
    grown(world, 12, "12.0.0")
    uninstalled(world)
    verifying(world)
    world.task("incoming/tasks/two.zip", upload_expires_at=world.now - DAY)
    world.storage.put("incoming/drop/nobody/x.zip", b"x")
    world.add(execution(world.now - 31 * DAY))
    world.later(8 * DAY)

    def everything() -> dict[str, Any]:
        tables = (Plugin, PluginVersion, PluginInstall, PluginRemoval, PluginExecution, PluginConfig)
        found: dict[str, Any] = {table.__tablename__: len(world.rows(table)) for table in tables}
        return found | {"objects": world.keys(), "states": [task.state for task in world.rows(PluginInstall)]}

    before = everything()
    planned = {job.name: world.preview(job.name) for job in plugin_jobs(world.context)}
    # What a plugin that is being removed left beside its rows is an orphan, too.
    assert {name for name, actions in planned.items() if actions} == {
        "measure",
        "sweep",
        "expired_uploads",
        "retain_versions",
        "retain_executions",
        "tombstoned_objects",
    }
    assert (everything(), world.announced) == (before, [])


def test_nothing_but_a_declared_step_comes_before_a_side_effect(world: World) -> None:
    """Every deletion in the bucket follows a step: a crash test can stop before each of them."""
    grown(world, 12, "12.0.0")
    uninstalled(world)
    world.storage.put("incoming/drop/nobody/x.zip", b"x")
    world.storage.put("plugins/plugin_never_aaaaaa/1.0.0/x.zip", b"x")
    world.later(8 * DAY)
    reached: list[str] = []
    before = steps.observe(lambda operation, name: reached.append(f"{operation}.{name}"))
    deleted: list[str] = []
    delete: Callable[[str, str], None] = world.storage.delete

    def watched(key: str, version_id: str) -> None:
        assert ".delete_" in reached[-1]
        reached.append("deleted")
        deleted.append(key)
        delete(key, version_id)

    world.storage.delete = watched  # type: ignore[method-assign]
    for name in ("sweep", "retain_versions", "expired_uploads"):
        world.run(name)
    steps.observe(before)
    # The removal's five, three orphans (two of them already gone with the removal), three retired, one unclaimed.
    assert len(deleted) == 5 + 3 + 3 + 1
    assert {step for step in reached if step.startswith("sweep.")} == {
        f"sweep.{name}" for name in [*REMOVAL_STEPS, "delete_orphan"]
    }


def test_the_bound_of_stuck_installs_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from chalicelib.plugins.maintenance import catalog

    monkeypatch.setattr(stuck, "BATCH", 2)
    monkeypatch.setattr(catalog, "BATCH", 2)
    for number in range(3):
        key = f"incoming/tasks/{number}.zip"
        version = world.storage.put(key, b"x")
        world.task(key, state=VERIFYING, object_version=version, lease_until=world.now - SECOND)
    report = world.run("sweep")
    assert (report["planned"], report["more"]) == (2, True)
    assert world.run("sweep")["planned"] == 1
    assert len(world.announced) == 3


# -- gauges ------------------------------------------------------------------------------------------------


def test_the_gauges_count_plugins_by_status_and_stored_bytes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    grown(world, 3, "3.0.0")
    with world.database.reads() as session:
        stored = sum(row.size for row in session.scalars(select(PluginVersion)))
        by_status = [row.is_enabled for row in session.scalars(select(Plugin))]
    assert world.run("measure")["failures"] == []
    telemetry.flush()
    line = next(
        found
        for text in capsys.readouterr().out.splitlines()
        if text.startswith("{") and "plugins.total" in (found := json.loads(text))
    )
    assert line["plugins.total"] == [len(by_status)]
    assert line["plugins.enabled"] == [by_status.count(1)]
    assert line["storage.bytes"] == [stored]
