"""Plugin actions as tools: what is listed, what a call does, and that nothing is asked once per plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, select, update

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError
from chalicelib.core.instances import Heartbeat
from chalicelib.mcp.offers import Offer
from chalicelib.mcp.plugin_actions import PluginActions
from chalicelib.plugins.models import BROKEN, DISABLED, ENABLED, Plugin, PluginVersion
from chalicelib.plugins.run_models import PluginExecution
from chalicelib.plugins.services import Services
from tests.http import settings
from tests.plugin_rows import CHECKSUM, OTHER, OWNER, answer, caller, failure, put_plugin, services

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ACTIONS = {
    "send": {"description": "Sends.", "paramsSchema": INTEGER},
    "check": {"returnsSchema": {"type": "object", "required": ["healthy"]}},
}


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


def provider(made: Services) -> PluginActions:
    return PluginActions(made, Heartbeat(made.database))


def offers(made: Services, app_id: int = OWNER) -> list[Offer]:
    """Return all that an app is offered at the beginning of a request."""
    made.cache.refresh()
    who, found = caller(app_id), provider(made)
    index = found.index(who)
    return found.describe(who, [(name, index.keys[name]) for name in index.names])


def names(made: Services, app_id: int = OWNER) -> list[str]:
    return [offer.name for offer in offers(made, app_id)]


def change(database: DatabaseService, plugin_id: str, **values: Any) -> None:
    def work(session: Any) -> None:
        plugin = session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one()
        for name, value in values.items():
            setattr(plugin, name, value)

    database.run(work)


def statements(database: DatabaseService, work: Any) -> list[str]:
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


def test_each_declared_action_is_offered(database: DatabaseService) -> None:
    put_plugin(database, actions=ACTIONS, description="Notifies.", permissions={"network": ["a.example"]})
    check, send = offers(services(database))
    assert send == Offer(
        "plugin_notifier_send", "notifier: send", "Sends.", INTEGER, None,
        {"title": "notifier: send", "openWorldHint": True},
    )  # fmt: skip
    assert (check.input_schema, check.output_schema) == (
        {"type": "object"},
        ACTIONS["check"]["returnsSchema"],
    )


def test_a_plugin_that_declares_no_action_offers_its_default_one(database: DatabaseService) -> None:
    put_plugin(database, paramsSchema=INTEGER)
    [offer] = offers(services(database))
    assert (offer.name, offer.input_schema) == ("plugin_notifier_default", INTEGER)
    assert offer.description == "Runs default of the plugin notifier."
    assert offer.annotations["openWorldHint"] is False


def test_only_what_the_caller_could_run_is_offered(database: DatabaseService) -> None:
    put_plugin(database, "own")
    put_plugin(database, "off", is_enabled=DISABLED)
    put_plugin(database, "broken", is_enabled=BROKEN)
    put_plugin(database, "library", runtime="none")
    put_plugin(database, "private", app_id=OTHER)
    put_plugin(database, "shared", app_id=OTHER, visibility="shared")
    put_plugin(database, "shared-off", app_id=OTHER, visibility="shared", is_enabled=DISABLED)
    made = services(database)
    assert names(made) == ["plugin_own_default", "plugin_shared_default"]
    assert names(made, OTHER) == ["plugin_private_default", "plugin_shared_default"]


def test_the_list_follows_every_change_at_once(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    made = services(database)
    assert names(made) == ["plugin_notifier_check", "plugin_notifier_send"]
    change(database, plugin_id, is_enabled=DISABLED)
    assert names(made) == []
    change(database, plugin_id, is_enabled=ENABLED, manifest={"actions": {"other": {}}})
    assert names(made) == ["plugin_notifier_other"]
    put_plugin(database, "second")
    assert names(made) == ["plugin_notifier_other", "plugin_second_default"]
    change(database, plugin_id, app_id=OTHER)
    assert names(made) == ["plugin_second_default"]
    assert names(made, OTHER) == ["plugin_notifier_other"]


def test_two_plugins_of_one_name_keep_apart(database: DatabaseService) -> None:
    own = put_plugin(database, "notifier")

    def foreign(session: Any) -> None:
        stored = {
            "version": "1.0.0", "checksum": CHECKSUM, "s3_path": "p", "s3_version": "v", "runtime": "python",
            "manifest": {"name": "notifier", "entryPoint": "main.py"},
        }  # fmt: skip
        session.add(
            Plugin(
                plugin_id="plugin_notifier_zzz999", app_id=OTHER, visibility="shared", name="notifier",
                plugin_type="notify", entry_point="main.py", is_enabled=ENABLED, default_config={}, **stored,
            )
        )  # fmt: skip
        session.add(PluginVersion(plugin_id="plugin_notifier_zzz999", size=1, **stored))

    database.run(foreign)
    made = services(database)
    index = provider(made).index(caller())
    assert sorted(index.keys.values()) == sorted([(own, "default"), ("plugin_notifier_zzz999", "default")])
    assert all(name.startswith("plugin_notifier_default_") for name in index.names)
    assert provider(made).index(caller(OTHER)).names == ("plugin_notifier_default",)


def test_a_thousand_plugins_cost_a_few_statements_and_one_change_fewer(database: DatabaseService) -> None:
    def many(session: Any) -> None:
        for number in range(1000):
            session.add(
                Plugin(
                    plugin_id=f"plugin_p{number}_abc123", app_id=OWNER, name=f"p{number}", version="1.0.0",
                    plugin_type="notify", entry_point="main.py", is_enabled=ENABLED, default_config={},
                    checksum=CHECKSUM, runtime="python", manifest={"actions": {"a": {}, "b": {}}},
                )
            )  # fmt: skip

    database.run(many)
    made = services(database)
    who, found = caller(), provider(made)
    first = statements(database, lambda: found.index(who))
    assert len(found.index(who).names) == 2000
    assert len(first) == 2 + 10
    assert statements(database, lambda: found.index(who)) == []

    change(database, "plugin_p7_abc123", is_enabled=DISABLED)
    change(database, "plugin_p8_abc123", manifest={"actions": {"c": {}}})
    made.cache.refresh()
    again = statements(database, lambda: found.index(who))
    assert len(again) == 2 + 1
    assert len(found.index(who).names) == 1997


def test_a_page_is_described_by_one_statement_and_then_by_none(database: DatabaseService) -> None:
    for number in range(5):
        put_plugin(database, f"p{number}", actions=ACTIONS)
    made = services(database)
    who, found = caller(), provider(made)
    index = found.index(who)
    named = [(name, index.keys[name]) for name in index.names]
    assert len(statements(database, lambda: found.describe(who, named))) == 1
    assert statements(database, lambda: found.describe(who, named)) == []


def test_what_was_uninstalled_after_the_index_was_read_is_left_out(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database)
    who, found = caller(), provider(made)
    index = found.index(who)
    database.run(lambda session: session.execute(update(Plugin).values(plugin_id="plugin_gone_abc123")))
    assert found.describe(who, [(name, index.keys[name]) for name in index.names]) == []
    with pytest.raises(HotplugError) as refused:
        found.call(who, (plugin_id, "default"), {}, {})
    assert refused.value.code == "plugin.not_found"


# -- calling ---------------------------------------------------------------------------------------------------------


def executions(database: DatabaseService) -> list[PluginExecution]:
    with database.reads() as session:
        return list(session.scalars(select(PluginExecution)))


def test_a_call_runs_the_action_and_keeps_its_row(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    made = services(database)
    result = provider(made).call(caller(), (plugin_id, "send"), {"n": 1}, {})
    [call] = made.functions.invocations  # type: ignore[attr-defined]
    assert (call.payload["action"], call.payload["params"]) == ("send", {"n": 1})
    [row] = executions(database)
    assert (row.action, row.outcome, row.app_id) == ("send", "success", OWNER)
    assert result.content == [{"type": "text", "text": '{"sent": true}'}]
    assert (result.structured, result.is_error) == ({"sent": True}, False)
    assert result.meta == {"hotplug/executionId": row.execution_id, "hotplug/version": "1.0.0"}


def test_text_is_given_as_text(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database, lambda event: answer(result="héllo\n"))
    result = provider(made).call(caller(), (plugin_id, "default"), {}, {})
    assert (result.content, result.structured) == ([{"type": "text", "text": "héllo\n"}], "héllo\n")


def test_params_that_are_no_object_are_taken_out_of_their_argument(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, paramsSchema={"type": "array", "items": {"type": "integer"}})
    made = services(database)
    found = provider(made)
    found.call(caller(), (plugin_id, "default"), {"params": [1, 2]}, {})
    assert made.functions.invocations[0].payload["params"] == [1, 2]  # type: ignore[attr-defined]
    with pytest.raises(HotplugError) as refused:
        found.call(caller(), (plugin_id, "default"), {"params": [1, "x"]}, {})
    assert [one.pointer for one in refused.value.errors] == ["/arguments/params/1"]


def test_violations_point_into_the_arguments(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    with pytest.raises(HotplugError) as refused:
        provider(services(database)).call(caller(), (plugin_id, "send"), {"n": "x"}, {})
    assert refused.value.code == "plugin.params_invalid"
    assert [one.pointer for one in refused.value.errors] == ["/arguments/n"]
    with pytest.raises(HotplugError) as refused:
        provider(services(database)).call(caller(), (plugin_id, "send"), {}, {})
    assert [one.pointer for one in refused.value.errors] == ["/arguments"]


def test_a_failed_run_keeps_its_row_and_its_reason(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database, lambda event: failure("plugin", "quota", "no more"))
    with pytest.raises(HotplugError) as refused:
        provider(made).call(caller(), (plugin_id, "default"), {}, {})
    assert refused.value.extensions["error"] == {"code": "quota", "message": "no more", "data": None}
    [row] = executions(database)
    assert (row.outcome, row.error_code) == ("failed", "quota")


def test_another_tenants_plugin_cannot_be_called(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, app_id=OTHER)
    made = services(database)
    with pytest.raises(HotplugError) as refused:
        provider(made).call(caller(), (plugin_id, "default"), {}, {})
    assert refused.value.code == "plugin.not_found"
    assert made.functions.invocations == []  # type: ignore[attr-defined]
