"""Killed anywhere: at every step boundary, and inside the commit, the sweep finds complete or absent.

A worker process runs the operation against a real database and a real S3 and is ended by SIGKILL. The steps that it
stops at are compared with the side effects that go over the wires, so that none can be forgotten.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import storage as storage_module
from chalicelib.core.hotcache import HotCache
from chalicelib.core.storage import S3Storage
from chalicelib.plugins import catalog
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import TERMINAL, PluginInstall, PluginRemoval, PluginTombstone
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.services import Services
from tests import databases
from tests.conftest import create_schema
from tests.crash import worker
from tests.crash.scenarios import CALLER, SCENARIOS, Scenario, seed_app, services, sweep
from tests.ministack import Ministack, running_ministack
from tests.processes import Child
from tests.wire import WireProxy

WORKER_S = 90
# Later than every lease, grace and expiry.
MUCH_LATER = timedelta(days=1)


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with running_ministack() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        patch.setenv("HOTPLUG_DATABASE_URL", "sqlite:////nowhere")
        yield running
        storage_module.use(None)


class World:
    """A prepared state, the process that works on it, and what is found afterwards."""

    def __init__(self, scenario: str, database_url: str, ministack: Ministack, folder: Path) -> None:
        self.name = scenario
        self.scenario: Scenario = SCENARIOS[scenario]
        self.database_url = database_url
        self.bucket = ministack.versioned_bucket(f"crash-{uuid.uuid4().hex[:12]}")
        self.record = folder / "record"
        self.record.touch()
        create_schema(database_url).close()
        self.services: Services = services(database_url, self.bucket)
        seed_app(self.services)
        self.state: dict[str, Any] = self.scenario.prepare(self.services)
        # A warm function that knows the state before; after the crash it must not answer from memory.
        self.warm = HotCache(self.services.database)
        self.seen_before = self._seen(self.warm)

    def run(self, kill_at: int = -1, database_url: str | None = None) -> Child:
        url = database_url or self.database_url
        arguments = (self.name, url, self.bucket, json.dumps(self.state), str(self.record), kill_at)
        return Child(worker.main, arguments, self.record.with_name("errors"))

    def lines(self) -> list[str]:
        return self.record.read_text().splitlines()

    def _seen(self, cache: HotCache) -> str | None:
        plugin_id = self.state.get("plugin_id")
        cache.refresh()
        if plugin_id is None:
            return None
        try:
            return catalog.find(cache, CALLER, plugin_id).version
        except catalog.NotFound:
            return None

    def check(self) -> None:
        """Sweep, then compare rows, objects, tasks and memory with each other."""
        sweep(self.services, later=MUCH_LATER)
        sweep(self.services, later=MUCH_LATER)
        with self.services.database.reads() as session:
            plugins = session.scalars(select(Plugin)).all()
            versions = session.scalars(select(PluginVersion)).all()
            tasks = session.scalars(select(PluginInstall)).all()
            tombstones = {
                (row.name, row.version): row.checksum for row in session.scalars(select(PluginTombstone))
            }
            assert session.scalars(select(PluginRemoval)).all() == []
            assert plugins or session.scalars(select(PluginConfig)).all() == []
        assert len(plugins) <= 1
        active = plugins[0].version if plugins else None
        assert active in self.scenario.outcomes
        self._check_versions(plugins, versions, tombstones)
        self._check_objects(versions)
        for task in tasks:
            assert task.state in TERMINAL, f"the task stands at {task.state} {task.step}"
            if task.state == "registered" and active is not None:
                assert task.result_version in {row.version for row in versions}
            if task.state in ("rejected", "failed"):
                assert task.errors, "the publisher is not told why"
        assert self._seen(self.warm) == (active if "plugin_id" in self.state else None)

    def _check_versions(self, plugins: Any, versions: Any, tombstones: dict[tuple[str, str], str]) -> None:
        if not plugins:
            assert versions == []
            return
        plugin = plugins[0]
        active = [row for row in versions if row.version == plugin.version]
        assert len(active) == 1
        assert (plugin.checksum, plugin.s3_version) == (active[0].checksum, active[0].s3_version)
        for row in versions:
            assert row.plugin_id == plugin.plugin_id
            assert tombstones[(plugin.name, row.version)] == row.checksum

    def _check_objects(self, versions: Any) -> None:
        """Every named object is there with its bytes, and nothing else is."""
        named = {(row.s3_path, row.s3_version): row.checksum for row in versions}
        named |= {
            (row.compiled_path, row.compiled_version): row.compiled_sha256
            for row in versions
            if row.compiled_path is not None
        }
        found = {(one.key, one.version_id) for one in self.services.storage.list_versions("")}
        assert found == set(named)
        client = S3Storage(self.bucket).client
        for (key, version_id), checksum in named.items():
            body = client.get_object(Bucket=self.bucket, Key=key, VersionId=version_id)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == checksum

    def close(self) -> None:
        self.services.database.close()


def undisturbed(scenario: str, database_url: str, ministack: Ministack, folder: Path) -> list[str]:
    world = World(scenario, database_url, ministack, folder)
    try:
        assert world.run().wait(WORKER_S) == 0
        world.check()
        return world.lines()
    finally:
        world.close()


# The number of steps of each scenario, written by hand: a step that is added must be looked at.
STEPS = {
    "install_python": 7,
    "install_wasm": 10,
    "install_dropped": 8,
    "install_rejected": 6,
    "install_inline": 2,
    "install_handed_over": 3,
    "update_wasm": 12,
    "update_inline": 3,
    "enable": 2,
    "rollback": 3,
    "uninstall": 7,
}

# Every point on SQLite. On the real server, where a point takes twice as long, those whose units hold its row locks
# longest, and every point where a server was named to be tested (`make test-mysql`).
ON_BOTH = STEPS if databases.URL_VARIABLE in os.environ else ("update_wasm", "rollback", "uninstall")
POINTS = [
    pytest.param(server, scenario, point, id=f"{server}-{scenario}-{point}")
    for scenario, count in STEPS.items()
    for point in range(count)
    for server in (("sqlite", "mysql") if scenario in ON_BOTH else ("sqlite",))
]


@pytest.mark.usefixtures("with_schema")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_side_effect_is_a_step(
    scenario: str, database_url: str, ministack: Ministack, tmp_path: Path
) -> None:
    lines = undisturbed(scenario, database_url, ministack, tmp_path)
    assert sum(line.startswith("step ") for line in lines) == STEPS[scenario], "\n".join(lines)
    for before, line in zip(["", *lines], lines, strict=False):
        if not line.startswith("step "):
            assert before.startswith("step "), f"{line} has no step of its own:\n" + "\n".join(lines)


@pytest.mark.usefixtures("with_schema")
@pytest.mark.slow
@pytest.mark.parametrize(("server", "scenario", "point"), POINTS)
def test_a_kill_at_any_step_leaves_complete_or_absent(
    server: str,
    scenario: str,
    point: int,
    request: pytest.FixtureRequest,
    ministack: Ministack,
    tmp_path: Path,
) -> None:
    world = World(scenario, request.getfixturevalue(f"{server}_url"), ministack, tmp_path)
    try:
        assert world.run(point).wait(WORKER_S) == -signal.SIGKILL
        world.check()
    finally:
        world.close()


@pytest.mark.usefixtures("with_schema")
@pytest.mark.slow
@pytest.mark.parametrize("arrives", [True, False], ids=["commit-arrives", "commit-lost"])
@pytest.mark.parametrize(
    "scenario",
    ["install_python", "install_inline", "update_wasm", "update_inline", "enable", "rollback", "uninstall"],
)
def test_a_kill_inside_the_commit_leaves_complete_or_absent(
    scenario: str, arrives: bool, mysql_url: str, ministack: Ministack, tmp_path: Path
) -> None:
    """The process dies after it sent its COMMIT and before it reads the answer; the COMMIT arrives, or is lost."""
    world = World(scenario, mysql_url, ministack, tmp_path)
    try:
        with WireProxy(world.database_url) as wire:
            began = threading.Event()
            written = killed = False

            def cut(command: str) -> bool:
                nonlocal written, killed
                began.wait(WORKER_S)
                # Every change of a plugin writes its history in the unit that changes it.
                written = written or "INSERT INTO t_plugin_history" in command
                if not written or killed or "COMMIT" not in command:
                    return False
                killed = True
                process.kill()
                return not arrives

            wire.cut = cut
            process = world.run(database_url=wire.url)
            began.set()
            assert process.wait(WORKER_S) == -signal.SIGKILL
        world.check()
    finally:
        world.close()


def test_the_check_sees_what_is_between(sqlite_url: str, ministack: Ministack, tmp_path: Path) -> None:
    """The check itself can fail: an object without a row, and a row whose object is gone."""
    world = World("enable", sqlite_url, ministack, tmp_path)
    try:
        world.check()
        client = S3Storage(world.bucket).client
        for stored in list(world.services.storage.list_versions("plugins/")):
            client.delete_object(Bucket=world.bucket, Key=stored.key, VersionId=stored.version_id)
        with pytest.raises(AssertionError):
            world.check()
    finally:
        world.close()
