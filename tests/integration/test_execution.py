from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound, TooLarge
from chalicelib.core.functions import away, timed_out
from chalicelib.core.instances import Heartbeat, Instance
from chalicelib.plugins import execution
from chalicelib.plugins.models import BROKEN, DISABLED, PluginExecution, PluginMetric
from tests.http import settings
from tests.plugin_rows import OTHER, answer, caller, failure, put_plugin, services

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ACTIONS = {
    "send": {"description": "Sends.", "paramsSchema": INTEGER},
    "check": {"returnsSchema": {"type": "object", "required": ["healthy"]}},
}


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


def run(made: Any, plugin_id: str, **options: Any) -> execution.Execution:
    who = options.pop("who", caller())
    params = options.pop("params", {})
    return execution.execute(made, Heartbeat(made.database), who, plugin_id, params=params, **options)


def rows(database: DatabaseService, model: Any) -> list[Any]:
    with database.reads() as session:
        return list(session.scalars(select(model)))


def test_a_run_hands_everything_to_the_runtime_and_returns_its_result(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS, resources={"timeoutMs": 700}, defaultConfig={"url": "x"})
    made = services(database)

    done = run(made, plugin_id, action="send", params={"n": 1}, subject="u1")

    [call] = made.functions.invocations
    assert (call.name, call.tenant, call.payload["operation"]) == ("runtime", "owner", "execute")
    assert call.payload["action"] == "send"
    assert call.payload["params"] == {"n": 1}
    assert call.payload["config"] == {"url": "x"}
    assert call.payload["timeoutMs"] == 700
    assert call.payload["cache"]["version"] == made.cache.version("plugins")[0]
    assert call.payload["context"] == {
        "requestId": "request-1", "appId": "owner", "subject": "u1", "pluginId": plugin_id, "version": "1.0.0",
        "action": "send",
    }  # fmt: skip
    assert done.as_dict() == {
        "executionId": done.execution_id, "result": {"sent": True}, "durationMs": 12.5, "logs": "said hello\n",
        "version": "1.0.0", "coldLoad": False,
    }  # fmt: skip


def test_a_good_run_is_stored_by_its_caller_and_counted(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    done = run(services(database, lambda event: answer(coldLoad=True, loadMs=80.0)), plugin_id)
    assert rows(database, PluginExecution) == []

    database.run(lambda session: execution.store(session, done))

    [row] = rows(database, PluginExecution)
    assert (row.execution_id, row.outcome, row.error_code) == (done.execution_id, "success", None)
    assert (row.duration_us, row.cold_load, row.load_us, row.request_id) == (12500, 1, 80000, "request-1")
    [metric] = rows(database, PluginMetric)
    assert (metric.executions, metric.errors, metric.cold_loads, metric.load_us) == (1, 0, 1, 80000)


@pytest.mark.parametrize(
    ("reply", "status", "code", "outcome", "kept"),
    [
        (failure("plugin", "slack_down"), 502, "plugin.failed", "failed", "slack_down"),
        (failure("timeout", "plugin.timeout"), 504, "plugin.timeout", "timeout", "plugin.timeout"),
        (failure("timeout", "plugin.cpu_exhausted"), 504, "plugin.cpu_exhausted", "timeout", "plugin.cpu_exhausted"),
        (failure("memory", "plugin.out_of_memory"), 502, "plugin.out_of_memory", "limit", "plugin.out_of_memory"),
        (
            failure("output", "plugin.result_too_large"), 502, "plugin.result_too_large", "limit",
            "plugin.result_too_large",
        ),
        (failure("load", "plugin.init_failed"), 503, "plugin.load_failed", "load_failed", "plugin.init_failed"),
        (failure("refused", "plugin.sandbox"), 503, "plugin.load_failed", "load_failed", "plugin.sandbox"),
        (failure("internal", "runtime.failed"), 502, "runtime.failed", "internal", "runtime.failed"),
    ],
)  # fmt: skip
def test_a_bad_end_is_stored_and_told(
    database: DatabaseService, reply: dict[str, Any], status: int, code: str, outcome: str, kept: str
) -> None:
    plugin_id = put_plugin(database)
    with pytest.raises(HotplugError) as raised:
        run(services(database, lambda event: reply), plugin_id)
    assert (raised.value.status, raised.value.code) == (status, code)
    [row] = rows(database, PluginExecution)
    assert (row.outcome, row.error_code) == (outcome, kept)
    told = raised.value.extensions
    assert (told["executionId"], told["version"], told["logs"]) == (row.execution_id, "1.0.0", "said hello\n")
    [metric] = rows(database, PluginMetric)
    assert (metric.executions, metric.errors, metric.last_error) == (1, 1, kept)


def test_the_plugins_own_error_reaches_the_caller(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    with pytest.raises(HotplugError) as raised:
        run(services(database, lambda event: failure("plugin", "E42", "no such channel", {"channel": "x"})), plugin_id)
    own = {"code": "E42", "message": "no such channel", "data": {"channel": "x"}}
    assert raised.value.extensions["error"] == own


@pytest.mark.parametrize(
    ("error", "status", "code", "outcome"),
    [(timed_out(), 504, "plugin.timeout", "timeout"), (away(), 503, "function.away", "internal")],
)
def test_a_runtime_that_does_not_answer_is_a_run_too(
    database: DatabaseService, error: HotplugError, status: int, code: str, outcome: str
) -> None:
    plugin_id = put_plugin(database)

    def runtime(event: dict[str, Any]) -> dict[str, Any]:
        raise error

    with pytest.raises(HotplugError) as raised:
        run(services(database, runtime), plugin_id)
    assert (raised.value.status, raised.value.code) == (status, code)
    [row] = rows(database, PluginExecution)
    assert (row.outcome, row.error_code) == (outcome, code)


@pytest.mark.parametrize(
    ("registered", "code"),
    [
        ({"is_enabled": DISABLED}, "plugin.disabled"),
        ({"is_enabled": BROKEN}, "plugin.broken"),
        ({"runtime": "none"}, "plugin.not_executable"),
    ],
)
def test_what_cannot_run_is_409(database: DatabaseService, registered: dict[str, Any], code: str) -> None:
    made = services(database)
    plugin_id = put_plugin(database, **registered)
    with pytest.raises(Conflict) as raised:
        run(made, plugin_id)
    assert raised.value.code == code
    assert made.functions.invocations == []
    assert rows(database, PluginExecution) == []


def test_a_strangers_plugin_is_not_found_unless_it_is_shared(database: DatabaseService) -> None:
    private = put_plugin(database, "mine")
    shared = put_plugin(database, "ours", visibility="shared")
    made = services(database)
    with pytest.raises(NotFound):
        run(made, private, who=caller(OTHER))
    run(made, shared, who=caller(OTHER))
    assert made.functions.invocations[0].tenant == "other"


def test_an_unknown_action_lists_the_known_ones(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    with pytest.raises(Invalid) as raised:
        run(services(database), plugin_id, action="destroy")
    assert raised.value.code == "plugin.unknown_action"
    assert raised.value.extensions == {"actions": ["check", "send"]}


def test_a_manifest_without_actions_leaves_their_names_to_the_plugin(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, paramsSchema=INTEGER)
    made = services(database)
    run(made, plugin_id, action="anything", params={"n": 1})
    assert made.functions.invocations[0].payload["action"] == "anything"
    with pytest.raises(Invalid):
        run(made, plugin_id, action="anything", params={})


def test_params_are_refused_with_every_violation(database: DatabaseService) -> None:
    schema = {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
    made = services(database)
    plugin_id = put_plugin(database, actions={"send": {"paramsSchema": schema}})
    with pytest.raises(Invalid) as raised:
        run(made, plugin_id, action="send", params={"a": "x", "b": 1})
    assert raised.value.code == "plugin.params_invalid"
    assert {problem.pointer for problem in raised.value.errors} == {"/params/a", "/params/b"}
    assert made.functions.invocations == []


def test_a_result_that_breaks_the_plugins_promise_is_its_failure(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    with pytest.raises(HotplugError) as raised:
        run(services(database), plugin_id, action="check")
    assert (raised.value.status, raised.value.code) == (502, "plugin.result_invalid")
    assert [problem.pointer for problem in raised.value.errors] == ["/result"]
    [row] = rows(database, PluginExecution)
    assert (row.outcome, row.error_code) == ("failed", "plugin.result_invalid")


def test_params_that_fit_no_invocation_are_refused_as_too_large(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    with pytest.raises(TooLarge):
        run(services(database), plugin_id, params={"blob": "x" * 7_000_000})


def test_the_runtimes_environment_gets_its_instance_row(database: DatabaseService) -> None:
    loaded = [{"pluginId": "p", "version": "1.0.0", "checksum": "c"}]
    plugin_id = put_plugin(database)
    run(services(database, lambda event: answer(loaded=loaded, scopeVersion=9, memoryBytes=77)), plugin_id)
    [row] = rows(database, Instance)
    assert (row.instance_id, row.function, row.tenant) == ("a" * 32, "runtime", "owner")
    assert (row.versions, row.loaded, row.memory_bytes, row.load_error) == ({"plugins": 9}, loaded, 77, None)


def test_a_failed_load_is_on_the_instance_row_and_bumps_nothing(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database, lambda event: failure("load", "plugin.init_failed", "no module x"))
    before = made.cache.version("plugins")
    with pytest.raises(HotplugError):
        run(made, plugin_id)
    [row] = rows(database, Instance)
    assert row.load_error == f"{plugin_id} 1.0.0: no module x"
    made.cache.refresh()
    assert made.cache.version("plugins") == before


def test_the_invocation_waits_for_a_load_but_not_beyond_the_gateway(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database)
    run(made, plugin_id, timeout_ms=1)
    run(made, plugin_id, timeout_ms=25_000)
    assert [call.timeout_ms for call in made.functions.invocations] == [20_001, 25_000]
    assert [call.payload["timeoutMs"] for call in made.functions.invocations] == [1, 25_000]
