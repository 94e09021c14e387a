"""self.tools and self.plugins: whose tool a name means, what is kept of a call, and what an agent cannot reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, select

from chalicelib.agents.access import PluginAccess, ToolAccess
from chalicelib.core import guards
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound, UpstreamFailed, UpstreamTimeout
from chalicelib.core.instances import Heartbeat
from chalicelib.core.outbound.client import HttpOut
from chalicelib.plugins.models import DISABLED
from chalicelib.plugins.run_models import PluginExecution
from chalicelib.tools import drafts, registry
from chalicelib.tools.models import ToolExecution
from tests.http import settings
from tests.internet import Answer, Server
from tests.plugin_rows import OTHER, OWNER, answer, caller, failure, put_plugin, services
from tests.tool_documents import document
from tests.tool_rows import put_apps, put_tool, put_tools, tool_services
from tests.tool_world import reply

TOM = reply({"id": 7, "name": "Tom"})
PET = {"path": {"petId": 7}}


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


class Pets:
    """Two tenants and a server that their tools may lead to."""

    def __init__(self, database: DatabaseService, *answers: Answer) -> None:
        self.database = database
        self.server = Server(*answers)
        put_apps(database)

    def document(self, path: str = "") -> dict[str, Any]:
        return document(f"http://127.0.0.1:{self.server.port}{path}")

    def register(self, name: str = "Pets", path: str = "", **more: Any) -> str:
        return put_tool(self.database, name, openapi=self.document(path), **more)

    def access(self, *allowed: str, app_id: int = OWNER) -> ToolAccess:
        """The tools of an agent, as at the beginning of a request."""
        http = HttpOut(private_endpoints=[f"127.0.0.1:{self.server.port}"])
        return ToolAccess(tool_services(self.database, http), caller(app_id, "caller"), frozenset(allowed))

    def rows(self) -> list[ToolExecution]:
        with self.database.reads() as session:
            return list(session.scalars(select(ToolExecution).order_by(ToolExecution.id)))

    def asked(self) -> list[str]:
        """The paths that the server was asked for."""
        return [request.split(b" ")[1].decode() for request in self.server.requests]


@pytest.fixture
def pets(database: DatabaseService) -> Iterator[Pets]:
    world = Pets(database, TOM)
    yield world
    world.server.close()


def statements(database: DatabaseService, work: Callable[[], object]) -> list[str]:
    """Return what `work` sends to the database."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return sent


# -- tools -------------------------------------------------------------------------------------------------------------


def test_a_call_by_name_or_id_answers_with_the_body_and_keeps_its_row(pets: Pets) -> None:
    tool = pets.register()
    assert pets.access("Pets").call("Pets", "getPet", PET) == {"id": 7, "name": "Tom"}
    assert pets.access(tool).call(tool, "getPet", PET) == {"id": 7, "name": "Tom"}
    rows = [
        (row.tool_id, row.app_id, row.operation, row.outcome, row.status, row.request_id)
        for row in pets.rows()
    ]
    assert rows == [(tool, OWNER, "getPet", "success", 200, "request-1")] * 2


def test_a_strangers_private_tool_is_not_there(pets: Pets) -> None:
    tool = pets.register(app_id=OTHER)
    for wanted in ("Pets", tool):
        with pytest.raises(NotFound) as refused:
            pets.access(wanted).call(wanted, "getPet", PET)
        assert refused.value.code == "agent.tool_not_found"
    assert (pets.rows(), pets.asked()) == ([], [])


def test_an_apps_own_tool_comes_before_a_shared_one_and_the_newest_first(pets: Pets) -> None:
    pets.register(path="/shared-old", app_id=OTHER, shared=True)
    pets.register(path="/shared", app_id=OTHER, shared=True)
    pets.access("Pets").call("Pets", "getPet", PET)
    pets.register(path="/own-old")
    pets.register(path="/own")
    # GIVEN one that was shared after the own ones
    pets.register(path="/shared-late", app_id=OTHER, shared=True)
    pets.access("Pets").call("Pets", "getPet", PET)
    assert pets.asked() == ["/shared/pets/7", "/own/pets/7"]


def test_a_tool_that_is_named_like_an_id_is_not_what_the_id_means(pets: Pets) -> None:
    # An attack: agent.yaml names an id, and a stranger shares a tool of that name.
    private = pets.register(app_id=OWNER)
    pets.register(private, "/trap", app_id=OTHER, shared=True)
    pets.access(private).call(private, "getPet", PET)
    pets.register("tool@gone", "/trap", app_id=OTHER, shared=True)
    with pytest.raises(NotFound):
        pets.access("tool@gone").call("tool@gone", "getPet", PET)
    assert pets.asked() == ["/pets/7"]


def test_a_warm_function_follows_what_changes(pets: Pets) -> None:
    access = pets.access("Pets")
    with pytest.raises(NotFound):
        access.call("Pets", "getPet", PET)
    tool = pets.register()
    access.services.cache.refresh()
    assert access.call("Pets", "getPet", PET)["name"] == "Tom"
    pets.database.run(
        lambda session: registry.change(session, caller(), tool, "V1.0", "*", registry.Change(name="Cats"))
    )
    access.services.cache.refresh()
    with pytest.raises(NotFound):
        access.call("Pets", "getPet", PET)
    # a newer version is called at once
    draft = drafts.draft(pets.document("/v2"))
    pets.database.run(
        lambda session: registry.add_version(
            session, caller(), tool, "V2", name="Pets", description=None, document=draft
        )
    )
    access.services.cache.refresh()
    access.call("Pets", "getPet", PET)
    assert pets.asked()[-1] == "/v2/pets/7"


def test_a_name_costs_nothing_the_second_time(pets: Pets) -> None:
    put_tools(pets.database, [f"Tool {number}" for number in range(60)])
    pets.register()
    access = pets.access("Pets")
    access.call("Pets", "getPet", PET)
    sent = statements(pets.database, lambda: access.call("Pets", "getPet", PET))
    assert not [one for one in sent if "SELECT" in one.upper()], sent


def test_a_refused_answer_keeps_its_row_and_its_error(database: DatabaseService) -> None:
    pets = Pets(database, reply({"reason": "no such pet"}, 404))
    try:
        pets.register()
        with pytest.raises(UpstreamFailed) as failed:
            pets.access("Pets").call("Pets", "getPet", PET)
        [row] = pets.rows()
    finally:
        pets.server.close()
    assert (failed.value.code, failed.value.extensions["upstream"]["status"]) == ("tool.upstream_error", 404)
    assert failed.value.extensions["executionId"] == row.execution_id
    assert (row.outcome, row.error_code, row.status) == ("failed", "tool.upstream_error", 404)


class Timed:
    """An outbound client that notes how long it may take, and takes too long."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def request(self, method: str, url: str, *, timeout_s: float, **_: Any) -> Any:
        self.timeouts.append(timeout_s)
        raise UpstreamTimeout("too late")


@pytest.mark.parametrize(
    ("asked", "least_s", "most_s"),
    [({}, 15, 20), ({"timeout_ms": 150}, 0, 0.15), ({"timeout_ms": 60_000}, 20.1, 25)],
    ids=["by default", "as asked", "at most"],
)
def test_a_call_takes_as_long_as_the_agent_lets_it(
    pets: Pets, asked: dict[str, int], least_s: float, most_s: float
) -> None:
    pets.register()
    http = Timed()
    access = ToolAccess(tool_services(pets.database, http), caller(), frozenset({"Pets"}))  # type: ignore[arg-type]
    with pytest.raises(UpstreamTimeout):
        access.call("Pets", "getPet", PET, **asked)
    [timeout_s] = http.timeouts
    assert least_s < timeout_s <= most_s
    assert [row.outcome for row in pets.rows()] == ["timeout"]


@pytest.mark.parametrize(
    ("operation", "arguments", "code"),
    [
        ("getCat", PET, "tool.unknown_operation"),
        ("getPet", {}, "tool.invalid_arguments"),
        ("getPet", {"path": {"petId": "seven"}}, "tool.invalid_arguments"),
        ("getPet", {"path": {"petId": 7}, "query": {"fields": ("a", "b")}}, "tool.invalid_arguments"),
    ],
)
def test_what_does_not_hold_is_not_sent(pets: Pets, operation: str, arguments: Any, code: str) -> None:
    pets.register()
    with pytest.raises(Invalid) as refused:
        pets.access("Pets").call("Pets", operation, arguments)
    assert refused.value.code == code
    assert (pets.rows(), pets.asked()) == ([], [])


def test_no_tool_is_called_while_rows_are_locked(pets: Pets) -> None:
    pets.register()
    access = pets.access("Pets")
    with pets.database.session_getter(), pytest.raises(guards.NetworkInsideUnit):
        access.call("Pets", "getPet", PET)
    assert pets.asked() == []


# -- plugins -----------------------------------------------------------------------------------------------------------


def plugin_access(
    database: DatabaseService, *allowed: str, runtime: Any = lambda event: answer(), app_id: int = OWNER
) -> PluginAccess:
    made = services(database, runtime)
    return PluginAccess(made, Heartbeat(database), caller(app_id, "caller"), frozenset(allowed))


def plugin_rows(database: DatabaseService) -> list[tuple[str, int, str, str, str | None]]:
    with database.reads() as session:
        rows = session.scalars(select(PluginExecution).order_by(PluginExecution.id))
        return [(row.plugin_id, row.app_id, row.action, row.outcome, row.error_code) for row in rows]


def test_an_action_runs_by_name_or_id_and_keeps_its_row(database: DatabaseService) -> None:
    seen: list[Any] = []

    def runtime(asked: dict[str, Any]) -> dict[str, Any]:
        seen.append((asked["action"], asked["params"]))
        return answer(result=[1, 2])

    plugin = put_plugin(database, actions={"send": {}})
    assert plugin_access(database, "notifier", runtime=runtime).execute(
        "notifier", {"n": 1}, action="send"
    ) == [1, 2]
    assert plugin_access(database, plugin, runtime=runtime).execute(plugin, action="send") == [1, 2]
    assert seen == [("send", {"n": 1}), ("send", {})]
    assert plugin_rows(database) == [(plugin, OWNER, "send", "success", None)] * 2


def test_a_plugin_without_actions_has_its_default_one(database: DatabaseService) -> None:
    plugin = put_plugin(database)
    assert plugin_access(database, "notifier").execute("notifier") == {"sent": True}
    assert plugin_rows(database) == [(plugin, OWNER, "default", "success", None)]


def test_a_failing_plugin_keeps_its_row_and_its_error(database: DatabaseService) -> None:
    plugin = put_plugin(database)
    access = plugin_access(database, "notifier", runtime=lambda asked: failure("plugin", "E_QUOTA"))
    with pytest.raises(UpstreamFailed) as failed:
        access.execute("notifier")
    assert failed.value.code == "plugin.failed"
    assert failed.value.extensions["executionId"]
    assert plugin_rows(database) == [(plugin, OWNER, "default", "failed", "E_QUOTA")]


def test_a_strangers_private_plugin_is_not_there_and_a_shared_one_is(database: DatabaseService) -> None:
    private = put_plugin(database, "private", app_id=OTHER)
    for wanted in ("private", private):
        with pytest.raises(NotFound) as refused:
            plugin_access(database, wanted).execute(wanted)
        assert refused.value.code == "agent.plugin_not_found"
    assert plugin_rows(database) == []
    put_plugin(database, "open", app_id=OTHER, visibility="shared")
    assert plugin_access(database, "open").execute("open") == {"sent": True}


def test_a_disabled_plugin_says_so_by_its_id_and_is_not_found_by_its_name(database: DatabaseService) -> None:
    plugin = put_plugin(database, is_enabled=DISABLED)

    def refusal(wanted: str) -> HotplugError:
        with pytest.raises((NotFound, Conflict)) as refused:
            plugin_access(database, wanted).execute(wanted)
        return refused.value

    assert refusal("notifier").code == "agent.plugin_not_found"
    assert refusal(plugin).code == "plugin.disabled"


def test_no_plugin_runs_while_rows_are_locked(database: DatabaseService) -> None:
    put_plugin(database)
    access = plugin_access(database, "notifier")
    with database.session_getter(), pytest.raises(guards.NetworkInsideUnit):
        access.execute("notifier")
