"""Two at once: every lock of the plugins, each contender with an engine of its own, on SQLite and on a real server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Conflict, HotplugError, Invalid
from chalicelib.core.hotcache import HotCache
from chalicelib.core.instances import Heartbeat
from chalicelib.plugins import catalog, execution, installs, lifecycle
from chalicelib.plugins.configs import store
from chalicelib.plugins.decision import Act
from chalicelib.plugins.install_models import (
    CANCELLED,
    TASK_REGISTERED,
    VERIFYING,
    PluginDependency,
    PluginGraph,
    PluginInstall,
)
from chalicelib.plugins.models import DISABLED, ENABLED, Plugin, PluginVersion
from chalicelib.plugins.registration import Registered
from chalicelib.plugins.services import Services
from tests.fakes.functions import MemoryFunctions
from tests.fakes.storage import MemoryStorage
from tests.http import settings
from tests.plugin_rows import CHECKSUM, answer, caller, put_plugin, services, warm_cache

ROUNDS = 12


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


def at_once(database: DatabaseService, *works: Callable[[DatabaseService], Any]) -> list[Any]:
    """Run each work in a thread with an engine of its own; return what each returned or the refusal it raised."""
    barrier = threading.Barrier(len(works))
    outcomes: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[DatabaseService], Any]) -> None:
        own = DatabaseService(database.database_url)
        try:
            with own.reads() as session:
                session.get(PluginGraph, 1)
            barrier.wait(30)
            outcomes[number] = work(own)
        except Exception as error:
            outcomes[number] = error
        finally:
            own.close()

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    crashed = [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, HotplugError)]
    if crashed:
        raise ExceptionGroup("contenders crashed", crashed)
    return outcomes


# -- one state of a plugin -------------------------------------------------------------------------------------------


class Interrupted(HotCache):
    """A hot cache in whose process something happens elsewhere right after the plugin was read."""

    between: Callable[[], None] = staticmethod(lambda: None)

    def load(self, name: Hashable, read: Any) -> Any:
        value = super().load(name, read)
        if isinstance(name, tuple) and name[0] == "plugin":
            between, self.between = self.between, lambda: None
            between()
        return value


def activate(session: Unit, plugin_id: str, version: str) -> None:
    """Make a version the active one, as an update would."""
    plugin = session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one()
    manifest = {**plugin.manifest, "version": version}
    plugin.version, plugin.manifest = version, manifest
    plugin.generation += 1
    session.add(
        PluginVersion(
            plugin_id=plugin_id, version=version, checksum=CHECKSUM, size=10, s3_path="p", s3_version="v",
            manifest=manifest, runtime="python",
        )
    )  # fmt: skip


def add_config(database: DatabaseService, plugin_id: str, values: dict[str, Any]) -> None:
    cache = warm_cache(database)
    draft = store.draft_new(
        database, cache, caller(), catalog.find(cache, caller(), plugin_id), scope="app", subject=None, name="main",
        values=values, is_default=True,
    )  # fmt: skip
    database.run(lambda session: store.create(session, caller(), draft))


@pytest.mark.parametrize("gone", [False, True], ids=["updated", "uninstalled"])
def test_an_execution_takes_version_and_config_from_one_state(database: DatabaseService, gone: bool) -> None:
    """A config that was made for the new version must not reach the old one."""
    plugin_id = put_plugin(database, defaultConfig={"for": "1.0.0"})
    cache = Interrupted(DatabaseService(database.database_url))
    cache.refresh()
    functions = MemoryFunctions(runtime=lambda event: answer())
    made = Services(database, MemoryStorage(), functions, cache)

    def meanwhile() -> None:
        database.run(lambda session: activate(session, plugin_id, "2.0.0"))
        add_config(database, plugin_id, {"for": "2.0.0"})
        if gone:
            database.run(
                lambda session: lifecycle.uninstall(session, caller(), plugin_id, None, cascade=False)
            )

    cache.between = meanwhile
    if gone:
        with pytest.raises(HotplugError) as raised:
            execution.execute(made, Heartbeat(database), caller(), plugin_id, params={})
        assert raised.value.code == "plugin.not_found"
        assert functions.invocations == []
        return
    execution.execute(made, Heartbeat(database), caller(), plugin_id, params={})

    [call] = functions.invocations
    assert (call.payload["plugin"]["version"], call.payload["config"]) == ("2.0.0", {"for": "2.0.0"})


# -- the graph's lock ------------------------------------------------------------------------------------------------


def pair(database: DatabaseService, number: int, *, dependent: int, needed: int) -> tuple[str, str]:
    """Put a plugin that needs another; return their ids."""
    one, other = f"dependent{number}", f"needed{number}"
    other_id = put_plugin(database, other, is_enabled=needed)
    one_id = put_plugin(database, one, is_enabled=dependent, dependencies=[f"{other}@^1.0.0"])
    database.run(
        lambda session: session.add(
            PluginDependency(plugin_id=one_id, name=other, range="^1.0.0", optional=0)
        )
    )
    return one_id, other_id


def enabling(plugin_id: str) -> Callable[[DatabaseService], Any]:
    return lambda own: lifecycle.enable(services(own), caller(), plugin_id, None, own.run)


def disabling(plugin_id: str) -> Callable[[DatabaseService], Any]:
    return lambda own: own.run(
        lambda session: lifecycle.disable(session, caller(), plugin_id, None, cascade=False)
    )


def uninstalling(plugin_id: str) -> Callable[[DatabaseService], Any]:
    return lambda own: own.run(
        lambda session: lifecycle.uninstall(session, caller(), plugin_id, None, cascade=False)
    )


@pytest.mark.parametrize("taking_away", [disabling, uninstalling])
def test_what_is_being_enabled_keeps_what_it_needs(
    database: DatabaseService, taking_away: Callable[[str], Callable[[DatabaseService], Any]]
) -> None:
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        dependent, needed = pair(database, number, dependent=DISABLED, needed=ENABLED)
        works = [enabling(dependent), taking_away(needed)]
        enabled, taken = (
            at_once(database, *works) if number % 2 else reversed(at_once(database, *works[::-1]))
        )
        states = statuses(database)
        assert states[dependent] != ENABLED or states.get(needed) == ENABLED
        won = [not isinstance(one, HotplugError) for one in (enabled, taken)]
        assert won.count(True) == 1, (enabled, taken)
        loser = enabled if isinstance(enabled, HotplugError) else taken
        assert loser.code in ("plugin.dependencies", "plugin.has_dependents")
        seen[loser.code] += 1


def statuses(database: DatabaseService) -> dict[str, int]:
    with database.reads() as session:
        return {row.plugin_id: row.is_enabled for row in session.scalars(select(Plugin))}


def test_the_graphs_lock_holds_whoever_comes_second_until_the_first_has_committed(
    database: DatabaseService,
) -> None:
    """Without luck: the one that disables waits inside its unit until the other has asked for the lock."""
    dependent, needed = pair(database, 0, dependent=DISABLED, needed=ENABLED)
    inside, outcome = threading.Event(), []
    own = DatabaseService(database.database_url)

    def enable() -> None:
        inside.wait(20)
        try:
            enabling(dependent)(own)
            outcome.append("enabled")
        except Invalid as error:
            outcome.append(error.code)

    thread = threading.Thread(target=enable)
    thread.start()
    with database.session_getter() as session:
        lifecycle.disable(session, caller(), needed, None, cascade=False)
        inside.set()
        thread.join(0.5)
        assert outcome == []
    thread.join(20)
    own.close()
    assert outcome == ["plugin.dependencies"]


def test_of_changes_to_one_plugin_none_is_lost(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    writers, writes = 4, 10

    def grants(number: int) -> Callable[[DatabaseService], Any]:
        def work(own: DatabaseService) -> None:
            for count in range(writes):
                hosts = [f"h{number}-{count}.example.com"]
                own.run(
                    lambda session, hosts=hosts: lifecycle.grant(session, caller(), plugin_id, None, hosts)
                )

        return work

    assert at_once(database, *(grants(number) for number in range(writers))) == [None] * writers
    with database.reads() as session:
        plugin = session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one()
    assert plugin.generation == 1 + writers * writes


# -- install tasks ---------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def put_task(database: DatabaseService, who: Caller | None = None) -> PluginInstall:
    task = installs.new_task(
        who or caller(), filename="x.zip", size=10, sha256=None, target=None, allow_downgrade=False
    )
    key, install_id = task.object_key, task.install_id
    database.run(lambda session: session.add(task))
    with database.reads() as session:
        found = session.scalars(select(PluginInstall).where(PluginInstall.install_id == install_id)).one()
    assert found.object_key == key
    return found


def claiming(key: str, now: datetime) -> Callable[[DatabaseService], Any]:
    return lambda own: own.run(lambda session: installs.claim(session, key, "v1", now)[1])


def test_one_function_at_a_time_claims_an_install(database: DatabaseService) -> None:
    for _ in range(ROUNDS):
        task = put_task(database)
        for now, attempt in ((NOW, 1), (NOW + timedelta(seconds=installs.LEASE_S + 1), 2)):
            outcomes = at_once(database, *[claiming(task.object_key, now)] * 4)
            refused = [one for one in outcomes if isinstance(one, installs.LeaseHeld)]
            owners = [one for one in outcomes if isinstance(one, str)]
            assert (len(owners), len(refused)) == (1, 3), outcomes
            row = read_task(database, task.install_id)
            assert (row.lease_owner, row.attempts, row.state) == (owners[0], attempt, VERIFYING)


def read_task(database: DatabaseService, install_id: str) -> PluginInstall:
    with database.reads() as session:
        return session.scalars(select(PluginInstall).where(PluginInstall.install_id == install_id)).one()


def test_an_install_is_cancelled_or_registered_and_both_are_told(database: DatabaseService) -> None:
    outcome = Registered("plugin_x_aaaaaa", "1.0.0", Act.CREATE, {})
    for _ in range(ROUNDS):
        task = put_task(database)
        owner = claiming(task.object_key, datetime.now(UTC))(database)

        def finish(own: DatabaseService, task: PluginInstall = task, owner: str = owner) -> str:
            own.run(lambda session: installs.finish(session, task.install_id, owner, outcome, {}))
            return "finished"

        def cancel(own: DatabaseService, task: PluginInstall = task) -> str:
            own.run(lambda session: installs.cancel(session, caller(), task.install_id))
            return "cancelled"

        finished, cancelled = at_once(database, finish, cancel)
        state = read_task(database, task.install_id).state
        if state == TASK_REGISTERED:
            assert (finished, type(cancelled)) == ("finished", Conflict)
        else:
            assert (state, cancelled, type(finished)) == (CANCELLED, "cancelled", installs.Settled)


def test_a_function_whose_lease_passed_on_cannot_end_the_install(database: DatabaseService) -> None:
    task = put_task(database)
    slow = claiming(task.object_key, NOW)(database)
    later = NOW + timedelta(seconds=installs.LEASE_S + 1)
    quick = claiming(task.object_key, later)(database)
    outcome = Registered("plugin_x_aaaaaa", "1.0.0", Act.CREATE, {})

    def finishing(owner: str) -> Callable[[DatabaseService], Any]:
        return lambda own: own.run(
            lambda session: installs.finish(session, task.install_id, owner, outcome, {})
        )

    late, good = at_once(database, finishing(slow), finishing(quick))
    assert isinstance(late, (installs.LeaseHeld, installs.Settled)) and good is None
    assert read_task(database, task.install_id).state == TASK_REGISTERED
