from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import process, storage
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound, TooLarge
from chalicelib.core.functions import away, timed_out
from chalicelib.core.instances import Heartbeat, Instance
from chalicelib.plugins import execution, execution_log, metrics
from chalicelib.plugins import services as plugin_services
from chalicelib.plugins.models import BROKEN, DISABLED
from chalicelib.plugins.run_models import PluginExecution, PluginMetric
from tests.http import Deployment, deployed, settings
from tests.plugin_rows import OTHER, OWNER, answer, caller, failure, put_plugin, services

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ACTIONS = {
    "send": {"description": "Sends.", "paramsSchema": INTEGER},
    "check": {"returnsSchema": {"type": "object", "required": ["healthy"]}},
}


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


def run(made: Any, plugin_id: str, **options: Any) -> execution_log.Execution:
    who = options.pop("who", caller())
    params = options.pop("params", {})
    return execution.execute(made, Heartbeat(made.database), who, plugin_id, params=params, **options)


def rows(database: DatabaseService, model: Any) -> list[Any]:
    with database.reads() as session:
        return list(session.scalars(select(model)))


def test_a_run_hands_everything_to_the_runtime_and_returns_its_result(database: DatabaseService) -> None:
    plugin_id = put_plugin(
        database, actions=ACTIONS, resources={"timeoutMs": 700}, defaultConfig={"url": "x"}
    )
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
        "action": "send", "idempotencyKey": None,
    }  # fmt: skip
    assert done.as_dict() == {
        "executionId": done.execution_id, "result": {"sent": True}, "durationMs": 12.5, "logs": "said hello\n",
        "version": "1.0.0", "coldLoad": False,
    }  # fmt: skip


def test_a_good_run_is_stored_by_its_caller_and_counted(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    done = run(services(database, lambda event: answer(coldLoad=True, loadMs=80.0)), plugin_id)
    assert rows(database, PluginExecution) == []

    database.run(lambda session: execution_log.store(session, done))

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
        run(
            services(database, lambda event: failure("plugin", "E42", "no such channel", {"channel": "x"})),
            plugin_id,
        )
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


# -- counting ------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


def count(database: DatabaseService, plugin_id: str, **changes: Any) -> None:
    one = {
        "plugin_id": plugin_id, "app_id": OWNER, "version": "1.0.0", "at": NOON, "duration_ms": 3.0,
        "error_code": None, "cold_load": False, "load_us": 0, "memory_bytes": 10, **changes,
    }  # fmt: skip
    database.run(lambda session: metrics.count(session, **one))


def summary(database: DatabaseService, minutes: int = 60, app_id: int = OWNER) -> dict[str, dict[str, Any]]:
    with database.reads() as session:
        lines = metrics.summary(session, caller(app_id), minutes, now=NOON)
    return {line["name"]: line for line in lines}


def test_a_window_sums_versions_and_minutes(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, "counted")
    for at, duration in (
        (NOON, 3.0),
        (NOON - timedelta(minutes=59), 700.0),
        (NOON - timedelta(minutes=60), 9000.0),
    ):
        count(database, plugin_id, at=at, duration_ms=duration)
    count(database, plugin_id, version="0.9.0", cold_load=True, load_us=40_000, memory_bytes=99)
    count(database, plugin_id, cold_load=True, load_us=20_000, error_code="late", at=NOON)
    count(database, plugin_id, error_code="early", at=NOON - timedelta(minutes=5), duration_ms=700.0)

    line = summary(database)["counted"]
    assert (line["executions"], line["errors"], line["errorRate"]) == (5, 2, 0.4)
    assert (line["coldLoads"], line["loadMs"], line["memoryBytes"]) == (2, 30.0, 99)
    assert (line["lastError"], line["lastExecutedAt"]) == ("late", "2026-03-01T12:00:30.000000Z")
    assert 2 < line["p50Ms"] <= 5
    assert 500 < line["p95Ms"] <= 1000
    assert summary(database, minutes=61)["counted"]["executions"] == 6


def test_who_sees_which_plugins_and_whose_runs(database: DatabaseService) -> None:
    put_plugin(database, "idle")
    shared = put_plugin(database, "shared", visibility="shared")
    put_plugin(database, "unused", app_id=OTHER, visibility="shared")
    count(database, shared, app_id=OTHER)
    count(database, "plugin_uninstalled_abc123")

    mine, theirs = summary(database), summary(database, app_id=OTHER)
    assert {name: line["executions"] for name, line in mine.items()} == {"idle": 0, "shared": 0}
    assert {name: line["executions"] for name, line in theirs.items()} == {"shared": 1, "unused": 0}
    idle = mine["idle"]
    assert (idle["p50Ms"], idle["loadMs"], idle["lastError"], idle["errorRate"]) == (None, None, None, 0.0)


def test_a_plugin_that_is_no_longer_shared_is_not_shown_to_those_who_ran_it(
    database: DatabaseService,
) -> None:
    plugin_id = put_plugin(database, "private")
    count(database, plugin_id, app_id=OTHER)
    assert summary(database, app_id=OTHER) == {}


def test_concurrent_runs_lose_no_count(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, "busy")
    writers, each = 4, 15
    start = threading.Barrier(writers)

    def write() -> None:
        own = DatabaseService(database.database_url)
        start.wait(10)
        for _ in range(each):
            count(own, plugin_id, error_code="x", load_us=2, cold_load=True)
        own.close()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    [row] = rows(database, PluginMetric)
    assert (row.executions, row.errors, row.cold_loads, row.load_us) == (60, 60, 60, 120)


# -- over HTTP -----------------------------------------------------------------------------------------------------


@pytest.fixture
def deployment(database_url: str, with_schema: None) -> Iterator[Deployment]:
    with deployed(database_url) as made:
        yield made


@pytest.fixture
def replies(deployment: Deployment) -> Iterator[list[dict[str, Any]]]:
    """What the runtime answers, one after the other, and then always with a result."""
    waiting: list[dict[str, Any]] = []
    made = services(process.database(), lambda event: waiting.pop(0) if waiting else answer())
    storage.use(made.storage)
    plugin_services.use(made.functions)
    yield waiting
    storage.use(None)
    plugin_services.use(None)


@pytest.fixture
def path(deployment: Deployment, replies: list[dict[str, Any]]) -> str:
    app_id = int(deployment.client.get("/api/v1/me").json["appId"])
    return f"/api/v1/plugins/{put_plugin(process.database(), app_id=app_id)}"


def test_execute_answers_and_is_listed(
    deployment: Deployment, path: str, replies: list[dict[str, Any]]
) -> None:
    client = deployment.client
    good = client.post(f"{path}/execute", {"action": "send", "params": [1], "options": {"subject": "u1"}})
    assert (good.status, good.json["result"]) == (200, {"sent": True})
    replies.append(failure("plugin", "E42"))
    bad = client.post(f"{path}/execute")
    assert (bad.status, bad.json["code"], bad.json["error"]["code"]) == (502, "plugin.failed", "E42")

    listed = client.get(f"{path}/executions").json["items"]
    assert [(item["executionId"], item["outcome"]) for item in listed] == [
        (bad.json["executionId"], "failed"),
        (good.json["executionId"], "success"),
    ]
    assert [(item["action"], item["subject"]) for item in listed] == [("default", None), ("send", "u1")]
    assert client.get(f"{path}/executions/{good.json['executionId']}").json == listed[1]
    assert client.get(f"{path}/executions?outcome=failed").json["items"] == listed[:1]
    assert client.get(f"{path}/executions?since={listed[0]['startedAt']}").json["items"] == listed[:1]
    [line] = client.get("/api/v1/plugins/metrics?window=15m").json
    assert (line["executions"], line["errors"], line["lastError"]) == (2, 1, "E42")


def test_runs_of_another_app_are_not_shown(deployment: Deployment, replies: list[dict[str, Any]]) -> None:
    app_id = int(deployment.client.get("/api/v1/me").json["appId"])
    path = f"/api/v1/plugins/{put_plugin(process.database(), app_id=app_id, visibility='shared')}"
    made = deployment.client.post(f"{path}/execute").json
    other = deployment.credential("stranger", "caller")
    assert deployment.client.get(f"{path}/executions", credential=other).json["items"] == []
    foreign = deployment.client.get(f"{path}/executions/{made['executionId']}", credential=other)
    assert (foreign.status, foreign.json["code"]) == (404, "execution.not_found")
    assert deployment.client.get("/api/v1/plugins/metrics", credential=other).json == []


def test_one_idempotency_key_is_one_run(
    deployment: Deployment, path: str, replies: list[dict[str, Any]]
) -> None:
    replies += [failure("plugin", "E42"), answer(result=1), answer(result=2)]
    key = {"Idempotency-Key": "k1"}
    statuses = [deployment.client.post(f"{path}/execute", {}, headers=key).status for _ in range(3)]
    # A failure is not an answer to keep: the client may try again, until it has one.
    assert statuses == [502, 200, 200]
    assert deployment.client.post(f"{path}/execute", {}, headers=key).json["result"] == 1
    assert len(replies) == 1
    assert len(rows(process.database(), PluginExecution)) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "Bad Action"}, 422),
        ({"options": {"timeoutMs": 0}}, 422),
        ({"options": {"timeoutMs": 25_001}}, 422),
        ({"options": {"configId": "x"}}, 422),
        ({"options": {"subject": ""}}, 422),
        ({"surplus": 1}, 422),
        ({"options": {"configId": "0" * 26}}, 404),
    ],
)
def test_a_bad_call_runs_nothing(
    deployment: Deployment, path: str, body: dict[str, Any], status: int
) -> None:
    assert deployment.client.post(f"{path}/execute", body).status == status
    assert rows(process.database(), PluginExecution) == []


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01", "0001-01-01T00:00:00%2B23:59"])
def test_since_is_a_time_with_its_offset(deployment: Deployment, path: str, since: str) -> None:
    refused = deployment.client.get(f"{path}/executions?since={since}")
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (400, "/query/since")


@pytest.mark.parametrize("window", ["", "0m", "31d", "1w", "60", "99999m"])
def test_a_window_is_one_that_is_kept(deployment: Deployment, window: str) -> None:
    assert deployment.client.get(f"/api/v1/plugins/metrics?window={window}").status == 400
