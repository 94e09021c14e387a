"""The scheduled jobs as they are deployed: over the API, from the schedules, several at once, after a kill."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from chalicelib.core import process, steps, storage
from chalicelib.core.audit import AuditLog
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.hotcache import HotCache
from chalicelib.core.jobs import Action, Job, JobRun, Plan, Runner
from chalicelib.events import schedules
from chalicelib.maintenance import service
from chalicelib.plugins import graph, incoming
from chalicelib.plugins.install_models import TASK_REGISTERED, PluginInstall, PluginRemoval
from chalicelib.plugins.maintenance import retention
from chalicelib.plugins.maintenance.catalog import plugin_jobs
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.services import plugin_services
from tests.corpus.cases import manifest, with_manifest
from tests.fakes.storage import MemoryStorage
from tests.http import Client, Deployment, deployed

JOBS = "/api/v1/maintenance"
NAMES = {
    "sweep",
    "lost_events",
    "expired_uploads",
    "prune_log",
    "prune_instances",
    "prune_idempotency",
    "prune_leases",
    "prune_breakers",
    "retain_versions",
    "retain_executions",
    "retain_tool_executions",
    "purge_tools",
    "sweep_runs",
    "send_run_callbacks",
    "retain_runs",
    "retain_flow_history",
    "purge_flow_history",
    "move_agents",
    "purge_moved",
    "retain_agents",
    "tombstoned_objects",
    "measure",
    "renew_epoch",
    "rewrap_data_keys",
}


@pytest.fixture
def bucket() -> Iterator[MemoryStorage]:
    memory = MemoryStorage()
    storage.use(memory)
    yield memory
    storage.use(None)


@pytest.fixture
def deployment(database_url: str, bucket: MemoryStorage, with_schema: None) -> Iterator[Deployment]:
    with deployed(database_url, HOTPLUG_INSTALL_QUEUE_URL="", HOTPLUG_ORPHAN_AGE="0") as made:
        yield made


@pytest.fixture
def client(deployment: Deployment) -> Client:
    return deployment.client


def rows(model: Any) -> list[Any]:
    with process.database().reads() as session:
        return list(session.scalars(select(model)))


def package(folder: Path, **members: Any) -> bytes:
    path = folder / "package.zip"
    with_manifest(manifest(**members))(path)
    return path.read_bytes()


def drop(bucket: MemoryStorage, folder: Path, **members: Any) -> tuple[str, str]:
    """Drop a package whose event never comes."""
    key = "incoming/drop/admin/package.zip"
    version = bucket.put(key, package(folder, **members))
    bucket.age(key, version, timedelta(hours=1))
    return key, version


# -- the API -----------------------------------------------------------------------------------------------


def test_every_job_is_listed_with_its_schedule_and_its_latest_run(client: Client) -> None:
    listed = client.get(JOBS)
    assert listed.status == 200
    assert {item["job"] for item in listed.json["items"]} == NAMES
    assert all(item["lastRun"] is None and item["running"] is False for item in listed.json["items"])
    assert client.post(f"{JOBS}/prune_log").status == 200
    last = {item["job"]: item["lastRun"] for item in client.get(JOBS).json["items"]}
    assert last["sweep"] is None
    assert (last["prune_log"]["planned"], last["prune_log"]["failed"]) == (0, 0)
    assert last["prune_log"]["startedAt"] <= last["prune_log"]["finishedAt"]


def test_a_new_epoch_makes_warm_functions_drop_all(client: Client) -> None:
    cache = HotCache(process.database())
    cache.refresh()
    cache.put("kept", "old", [("apps", "1")], cache.stamp())
    before = cache.version("apps")
    assert client.post(f"{JOBS}/renew_epoch").json["done"] == 1
    cache.refresh()
    assert cache.get("kept") is None
    assert cache.version("apps")[1] != before[1]
    listed = {item["job"]: item["everySeconds"] for item in client.get(JOBS).json["items"]}
    assert listed["renew_epoch"] is None


def test_a_dry_run_shows_the_plan_and_a_run_carries_it_out(client: Client, bucket: MemoryStorage) -> None:
    version = bucket.put("plugins/plugin_never_aaaaaa/1.0.0/x.zip", b"x")
    action = {
        "action": "delete_orphan",
        "target": f"plugins/plugin_never_aaaaaa/1.0.0/x.zip@{version}",
        "count": 1,
    }
    planned = client.post(f"{JOBS}/sweep", {"dryRun": True})
    assert planned.status == 200
    assert (planned.json["dryRun"], planned.json["plan"], planned.json["done"]) == (True, [action], 0)
    assert len(list(bucket.list_versions(""))) == 1
    assert rows(JobRun) == []

    done = client.post(f"{JOBS}/sweep", {"dryRun": False})
    assert (done.status, done.json["plan"], done.json["done"]) == (200, [action], 1)
    assert list(bucket.list_versions("")) == []
    assert client.post(f"{JOBS}/sweep").json["planned"] == 0
    actions = sorted(row.action for row in rows(AuditLog) if row.object_type == "job")
    assert actions == ["maintenance.preview", "maintenance.run", "maintenance.run"]


def test_an_idempotency_key_runs_a_job_once(client: Client, bucket: MemoryStorage) -> None:
    bucket.put("plugins/plugin_never_aaaaaa/1.0.0/x.zip", b"x")
    first = client.post(f"{JOBS}/sweep", {}, headers={"idempotency-key": "k1"})
    bucket.put("plugins/plugin_never_aaaaaa/1.0.0/x.zip", b"x")
    again = client.post(f"{JOBS}/sweep", {}, headers={"idempotency-key": "k1"})
    assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(list(bucket.list_versions(""))) == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("no_such_job", {}, 404),
        ("..", {}, 404),
        ("sweep", {"dryRun": "yes"}, 422),
        ("sweep", {"dryrun": True}, 422),
        ("sweep", [], 422),
    ],
)
def test_what_does_not_hold_is_refused(client: Client, path: str, body: Any, status: int) -> None:
    assert client.post(f"{JOBS}/{path}", body).status == status


@pytest.mark.parametrize("role", ["viewer", "caller", "publisher"])
def test_only_admins_see_and_run_jobs(deployment: Deployment, role: str) -> None:
    credential = deployment.credential("acme", role)
    assert deployment.client.get(JOBS, credential=credential).status == 403
    assert deployment.client.post(f"{JOBS}/sweep", credential=credential).status == 403


# -- the schedules -----------------------------------------------------------------------------------------


def test_the_schedules_of_the_application_name_jobs_that_exist(deployment: Deployment) -> None:
    source = (Path(__file__).parents[2] / "app.py").read_text()
    called = re.findall(r"schedules\.run\(([^)]*)\)", source)
    named = {name for call in called for name in re.findall(r'"(\w+)"', call)}
    assert len(called) == 5
    assert named <= set(service.jobs())
    assert set(schedules.run(*sorted(named))) == named
    assert {row.job for row in rows(JobRun)} == named


def test_a_job_that_fails_lets_the_others_run_and_fails_the_firing(
    deployment: Deployment, bucket: MemoryStorage
) -> None:
    bucket.is_away = True
    with pytest.raises(Unavailable):
        schedules.run("sweep", "prune_log")
    assert [row.job for row in rows(JobRun)] == ["prune_log"]
    bucket.is_away = False
    assert schedules.run("sweep")["sweep"]["skipped"] is None


# -- installs ----------------------------------------------------------------------------------------------


def test_a_drop_whose_event_never_came_is_installed(
    deployment: Deployment, bucket: MemoryStorage, tmp_path: Path
) -> None:
    drop(bucket, tmp_path)
    assert schedules.run("lost_events")["lost_events"]["done"] == 1
    assert [task.state for task in rows(PluginInstall)] == [TASK_REGISTERED]
    [plugin] = rows(Plugin)
    assert [version.key for version in bucket.list_versions("")] == [plugin.s3_path]
    # Neither finds anything left to do.
    for job in ("lost_events", "sweep", "expired_uploads", "tombstoned_objects"):
        assert schedules.run(job)[job]["planned"] == 0


class Killed(BaseException):
    """What ends a process."""


def kill_at(operation: str, name: str) -> Any:
    def die(reached: str, step: str) -> None:
        if (reached, step) == (operation, name):
            raise Killed

    return steps.observe(die)


def end_leases() -> None:
    with process.database().session_getter() as session:
        for task in session.scalars(select(PluginInstall)):
            if task.lease_until is not None:
                task.lease_until = datetime.now(UTC) - timedelta(seconds=1)


@pytest.mark.parametrize(
    "killed",
    [
        ("incoming", "download"),
        ("register", "place"),
        ("register", "commit"),
        ("incoming", "delete_incoming"),
    ],
)
def test_a_killed_install_is_complete_after_the_jobs_ran(
    deployment: Deployment, bucket: MemoryStorage, tmp_path: Path, killed: tuple[str, str]
) -> None:
    key, version = drop(bucket, tmp_path)
    before = kill_at(*killed)
    with pytest.raises(Killed):
        incoming.register_artifact(plugin_services(), key, version)
    steps.observe(before)
    end_leases()
    for job in ("sweep", "lost_events", "sweep"):
        assert schedules.run(job)[job]["failed"] == 0
    assert [task.state for task in rows(PluginInstall)] == [TASK_REGISTERED]
    [plugin], [row] = rows(Plugin), rows(PluginVersion)
    assert [(one.key, one.version_id) for one in bucket.list_versions("")] == [(row.s3_path, row.s3_version)]
    assert plugin.s3_version == row.s3_version


def test_an_uninstalled_plugin_is_gone_with_all_it_had(
    deployment: Deployment, bucket: MemoryStorage, tmp_path: Path
) -> None:
    drop(bucket, tmp_path)
    schedules.run("lost_events")
    [plugin] = rows(Plugin)
    assert deployment.client.delete(f"/api/v1/plugins/{plugin.plugin_id}").status == 204
    assert len(rows(PluginRemoval)) == 1
    schedules.run("sweep")
    assert (rows(PluginRemoval), rows(PluginVersion), list(bucket.list_versions(""))) == ([], [], [])


# -- several at once ---------------------------------------------------------------------------------------


def test_of_two_runners_at_once_one_works_and_the_other_skips(database: DatabaseService) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    done: list[str] = []
    working, seen = threading.Event(), threading.Event()

    def work() -> bool:
        working.set()
        assert seen.wait(20)
        done.append("work")
        return False

    job = Job("sample", "A sample", 60, lambda _: Plan((Action("do", "it", work),)))
    reports: list[dict[str, Any]] = []

    def first() -> None:
        service = DatabaseService(url)
        reports.append(Runner(service, deadline_s=30).run(job))
        service.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert working.wait(20)
    other = Runner(database, deadline_s=30).run(job)
    seen.set()
    thread.join(30)
    assert (other["skipped"], other["done"]) == ("running", 0)
    assert [(report["skipped"], report["done"]) for report in reports] == [(None, 1)]
    assert done == ["work"]
    assert Runner(database, deadline_s=30).run(job)["done"] == 1


def test_runners_that_race_for_a_job_that_never_ran_do_its_work_once_at_a_time(
    database: DatabaseService,
) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    barrier, inside, failures = threading.Barrier(4), threading.Lock(), []
    reports: list[dict[str, Any]] = []

    def work() -> bool:
        if not inside.acquire(blocking=False):
            failures.append("two at once")
            return False
        threading.Event().wait(0.05)
        inside.release()
        return False

    job = Job("sample", "A sample", 60, lambda _: Plan((Action("do", "it", work),)))

    def run() -> None:
        service = DatabaseService(url)
        barrier.wait(20)
        reports.append(Runner(service, deadline_s=30).run(job))
        service.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (failures, len(reports)) == ([], 4)
    assert sum(report["done"] for report in reports) >= 1


def long_plugin(database: DatabaseService, bucket: MemoryStorage, count: int) -> str:
    plugin_id = "plugin_long_aaaaaa"
    with database.session_getter() as session:
        for number in range(1, count + 1):
            path = f"plugins/{plugin_id}/{number}.0.0/{plugin_id}_{number}.0.0.zip"
            common = {
                "checksum": "0" * 64,
                "s3_path": path,
                "s3_version": bucket.put(path, b"x"),
                "manifest": {},
            }
            row = PluginVersion(
                plugin_id=plugin_id, version=f"{number}.0.0", size=1, runtime="none", **common
            )
            session.add(row)
        session.add(
            Plugin(
                plugin_id=plugin_id,
                app_id=1,
                name="long",
                version=f"{count}.0.0",
                plugin_type="test",
                entry_point="x.so",
                default_config={},
                **common,
            )
        )
    return plugin_id


def test_a_version_that_is_being_rolled_back_to_is_not_deleted(database: DatabaseService) -> None:
    """Retention waits for the graph's lock and then looks again at what is active."""
    bucket = MemoryStorage()
    plugin_id = long_plugin(database, bucket, 12)
    url = database.engine.url.render_as_string(hide_password=False)
    other = DatabaseService(url)
    context = Context(other, bucket, lambda key, version: None, timedelta(minutes=10))
    # Planned while 12.0.0 was active: 1.0.0 and 2.0.0 may go.
    plan = retention.plan_versions(context)
    assert [action.count for action in plan.actions] == [2]
    began = threading.Event()

    def retain() -> None:
        began.set()
        for action in plan.actions:
            action.work()

    thread = threading.Thread(target=retain)
    with database.session_getter() as session:
        graph.lock(session)
        thread.start()
        began.wait(10)
        thread.join(0.3)
        assert thread.is_alive()
        session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one().version = "1.0.0"
    thread.join(30)
    other.close()
    with database.reads() as session:
        kept = set(session.scalars(select(PluginVersion.version)))
    assert kept == {"1.0.0", *(f"{number}.0.0" for number in range(3, 13))}
    stored = {version.key.split("/")[2] for version in bucket.list_versions("plugins/")}
    assert stored == kept


def test_no_plan_reads_a_growing_table_as_a_whole(mysql_url: str, bucket: MemoryStorage) -> None:
    """EXPLAIN, on the real server, of what each plan asks: every look-up has an index to use."""
    from tests.conftest import create_schema

    service = create_schema(mysql_url)
    long_plugin(service, bucket, 12)
    context = Context(service, bucket, lambda key, version: None, timedelta(0))
    asked: list[tuple[str, Any]] = []

    @event.listens_for(service.engine, "before_cursor_execute")
    def _seen(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    for job in plugin_jobs(context):
        job.plan({})
    event.remove(service.engine, "before_cursor_execute", _seen)
    growing = (
        "t_plugin_version",
        "t_plugin_install",
        "t_plugin_execution",
        "t_plugin_metric",
        "t_plugin_history",
    )
    looked = [one for one in asked if any(f"FROM {table} " in one[0] + " " for table in growing)]
    assert len(looked) >= 6
    with service.connection() as connection:
        for statement, parameters in looked:
            plan = (
                connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {statement}", parameters)
                .mappings()
                .all()
            )
            for row in plan:
                if row["table"] in growing:
                    assert row["possible_keys"] or row["key"], (statement, dict(row))
    service.close()
