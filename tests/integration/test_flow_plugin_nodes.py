"""The nodes `hotplug-plugin` and `code`, in a real runtime with real child processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core.database import DatabaseService
from chalicelib.core.functions import away
from chalicelib.core.functions import timed_out as function_timed_out
from chalicelib.core.instances import Heartbeat, Instance
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import (
    CODE_FAILED,
    CODE_RESULT,
    CODE_TIME_LIMIT,
    OUTPUT_MISFIT,
    TOOL_FAILED,
    NodeError,
    NodeTimeout,
)
from chalicelib.flows.nodes import code, plugins
from chalicelib.plugins import code_runs
from chalicelib.plugins.models import DISABLED
from chalicelib.plugins.run_models import PluginExecution
from chalicelib.plugins.runtime.service import Runtime
from chalicelib.plugins.services import Services
from tests.fakes.functions import Handler
from tests.flow_builders import end, flow, literal, node, output, ref, start
from tests.flow_calls import AUTHOR, call, failing, outputs
from tests.flow_runs import express
from tests.http import settings
from tests.plugin_rows import answer, failure, put_plugin, services
from tests.unit.plugins.runtime.support import MIB, Bench, ObjectServer

ECHO = """
class Plugin:
    def init(self, config):
        self.config = config
    def execute(self, action, params, context):
        if action == "fail":
            error = ValueError("no such pet")
            error.code = "not_found"
            raise error
        if action == "sleep":
            import time
            time.sleep(30)
        return {"action": action, "params": params, "config": self.config, "context": dict(context)}
"""
PARAMS = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
ACTIONS: dict[str, Any] = {"echo": {"paramsSchema": PARAMS}, "fail": {}, "sleep": {}}


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    before = dict(os.environ)
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield
    os.environ.clear()  # a python child takes credentials and settings out of this process
    os.environ.update(before)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def echoing(runtime: Runtime, tmp_path: Path) -> Iterator[Handler]:
    """A runtime function in which every plugin is ECHO."""
    server = ObjectServer()
    stored = Bench(runtime, server, tmp_path / "cache").python_event(ECHO)
    artifact = {name: stored[name] for name in ("plugin", "artifact")}
    yield lambda event: runtime.handle({**event, **artifact})
    server.close()


def plugin_node(made: Services) -> Callable[[Call], Result]:
    return lambda one: plugins.execute(made, Heartbeat(made.database), one)


def code_node(made: Services) -> Callable[[Call], Result]:
    return lambda one: code.execute(made, Heartbeat(made.database), one)


def rows(database: DatabaseService, model: Any) -> list[Any]:
    with database.reads() as session:
        return list(session.scalars(select(model)))


# -- hotplug-plugin --------------------------------------------------------------------------------------------------


def test_an_action_runs_as_the_author_and_is_told_its_key(
    database: DatabaseService, echoing: Handler
) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS, defaultConfig={"url": "x"})
    made: Any = services(database, echoing)
    declared = outputs("action", params="object", config="object", context="object")
    one = call(
        "hotplug-plugin", {"pluginId": plugin_id, "action": "echo"}, {"n": 1}, declared, uid="ada", attempt=2
    )

    result = plugin_node(made)(one)

    assert result.outputs["params"] == {"n": 1}
    assert result.outputs["config"] == {"url": "x"}
    context = result.outputs["context"]
    assert (context["idempotencyKey"], context["subject"], context["appId"]) == (
        one.idempotency_key,
        "ada",
        "owner",
    )
    [row] = rows(database, PluginExecution)
    assert (row.app_id, row.action, row.subject, row.outcome) == (AUTHOR.app_id, "echo", "ada", "success")
    assert made.functions.invocations[0].tenant == "owner"


def test_a_plugins_own_error_is_told_and_kept(database: DatabaseService, echoing: Handler) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    error = failing(
        plugin_node(services(database, echoing)),
        call("hotplug-plugin", {"pluginId": plugin_id, "action": "fail"}),
    )
    assert (error.code, error.is_transient) == (TOOL_FAILED, True)
    assert error.message == ("The plugin answered with an error. (plugin.failed): ValueError: no such pet")
    [row] = rows(database, PluginExecution)
    assert (row.outcome, row.error_code) == ("failed", "not_found")


def test_a_plugin_has_the_time_that_its_node_has(database: DatabaseService, echoing: Handler) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS, resources={"timeoutMs": 20_000})
    made: Any = services(database, echoing)
    began = time.monotonic()
    one = call("hotplug-plugin", {"pluginId": plugin_id, "action": "sleep"}, seconds=0.8)

    assert isinstance(failing(plugin_node(made), one), NodeTimeout)

    assert time.monotonic() - began < 3
    [invocation] = made.functions.invocations
    assert invocation.timeout_ms <= 800
    assert invocation.payload["timeoutMs"] <= 800 and invocation.payload["loadTimeoutMs"] <= 800


def test_its_own_shorter_time_is_its_failure(database: DatabaseService, echoing: Handler) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS, resources={"timeoutMs": 300})
    one = call("hotplug-plugin", {"pluginId": plugin_id, "action": "sleep"})
    error = failing(plugin_node(services(database, echoing)), one)
    assert error.code == TOOL_FAILED and "(plugin.timeout)" in error.message


@pytest.mark.parametrize(
    ("params", "inputs", "is_transient", "told"),
    [
        ({"action": "echo"}, {"n": "one"}, False, "/params/n is not of type"),
        ({"action": "dance"}, {}, False, "is none of echo, fail, sleep"),
        ({"action": "echo", "configId": "config_none"}, {"n": 1}, False, "(config.not_found)"),
        ({"action": "echo", "pluginId": "plugin_none_abc123"}, {"n": 1}, False, "(plugin.not_found)"),
    ],
)
def test_what_cannot_run_is_final(
    database: DatabaseService, params: Any, inputs: Any, is_transient: bool, told: str
) -> None:
    plugin_id = put_plugin(database, actions=ACTIONS)
    one = call("hotplug-plugin", {"pluginId": plugin_id, **params}, inputs)
    error = failing(plugin_node(services(database)), one)
    assert (error.code, error.is_transient) == (TOOL_FAILED, is_transient)
    assert told in error.message


def test_a_disabled_plugin(database: DatabaseService) -> None:
    plugin_id = put_plugin(database, is_enabled=DISABLED)
    error = failing(
        plugin_node(services(database)), call("hotplug-plugin", {"pluginId": plugin_id, "action": "echo"})
    )
    assert error.message == "The plugin is disabled. (plugin.disabled)"


def test_a_result_that_does_not_fit(database: DatabaseService) -> None:
    plugin_id = put_plugin(database)
    made = services(database, lambda event: answer(result={"sent": "yes"}))
    one = call("hotplug-plugin", {"pluginId": plugin_id, "action": "a"}, None, outputs(sent="boolean"))
    error = failing(plugin_node(made), one)
    assert (error.code, error.message) == (
        OUTPUT_MISFIT,
        "The result does not fit the node's outputs: /sent is not a boolean.",
    )


# -- code ------------------------------------------------------------------------------------------------------------


def coded(source: str, inputs: dict[str, Any] | None = None, declared: Any = (), **more: Any) -> Call:
    return call("code", {"codeLanguage": "python", "code": source}, inputs, declared, **more)


def test_code_runs_in_the_runtime_of_the_flows_author(database: DatabaseService, runtime: Runtime) -> None:
    made: Any = services(database, runtime.handle)
    source = "def main(a, b):\n    return {'sum': a + b, 'more': 1}"

    result = code_node(made)(coded(source, {"a": 1, "b": 2}, outputs(sum="integer")))

    assert result.outputs == {"sum": 3}
    [invocation] = made.functions.invocations
    assert (invocation.name, invocation.tenant) == ("runtime", "owner")
    assert invocation.payload["cache"]["version"] == made.cache.version("plugins")[0]
    [row] = rows(database, Instance)
    assert (row.instance_id, row.tenant, row.versions["plugins"]) == (
        runtime.instance_id,
        "owner",
        invocation.payload["cache"]["version"],
    )


FAILURES: dict[str, tuple[str, int, str]] = {
    "exception": (
        "def main():\n    raise ValueError('no')",
        CODE_FAILED,
        "ValueError: no (line 2)",
    ),
    "syntax": ("def main(:\n", CODE_FAILED, "SyntaxError: invalid syntax (line 1)"),
    "no main": ("x = 1", CODE_FAILED, "NameError: The code defines no function main."),
    "memory": (
        f"def main():\n    return {{'a': len(bytearray({400 * MIB}))}}",
        CODE_FAILED,
        "The code needs more than its 256 MiB of memory.",
    ),
    "crash": (
        "def main():\n    import os; os._exit(1)",
        CODE_FAILED,
        "The code's process ended: exit code 1.",
    ),
    "no dict": ("def main():\n    return 'a'", CODE_RESULT, "main returned str, no dict."),
    "no JSON": (
        "def main():\n    return {'a': {1}}",
        CODE_RESULT,
        "What main returned is no JSON: TypeError: Object of type set is not JSON serializable",
    ),
    "large": (
        f"def main():\n    return {{'a': 'x' * {2 * MIB}}}",
        CODE_RESULT,
        f"The result takes more than {MIB} bytes as JSON.",
    ),
    "lacks an output": (
        "def main():\n    return {'b': 1}",
        CODE_RESULT,
        "What main returned does not fit the node's outputs: /a is missing.",
    ),
    "another type": (
        "def main():\n    return {'a': 1}",
        CODE_RESULT,
        "What main returned does not fit the node's outputs: /a is not a string.",
    ),
    "null": (
        "def main():\n    return {'a': None}",
        CODE_RESULT,
        "What main returned does not fit the node's outputs: /a is not a string.",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_how_code_fails(database: DatabaseService, runtime: Runtime, name: str) -> None:
    source, code_number, message = FAILURES[name]
    error = failing(code_node(services(database, runtime.handle)), coded(source, {}, outputs("a")))
    assert (error.code, error.message) == (code_number, message)


LOOP = "def main():\n    while True: pass"
SLEEP = "def main():\n    import time; time.sleep(60)"


def test_the_nodes_time_and_the_runtimes(
    database: DatabaseService, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = code_node(services(database, runtime.handle))
    began = time.monotonic()

    assert isinstance(failing(execute, coded(SLEEP, seconds=0.6)), NodeTimeout)
    assert time.monotonic() - began < 2.5

    monkeypatch.setattr(code_runs, "MAX_TIMEOUT_MS", 500)
    own = failing(execute, coded(SLEEP))
    assert (own.code, own.message) == (CODE_TIME_LIMIT, "The code took longer than 0.5 s. (code.timeout)")


def test_the_processor_time_is_the_runtimes(database: DatabaseService, runtime: Runtime) -> None:
    def stingy(event: dict[str, Any]) -> dict[str, Any]:
        return runtime.handle({**event, "code": {**event["code"], "cpuMs": 300}})

    error = failing(code_node(services(database, stingy)), coded(LOOP, seconds=10))
    assert (error.code, error.message) == (CODE_TIME_LIMIT, "The code used up its 0.3 s of processor time.")


NOT_STARTED = "The code could not be started. (code.unavailable)"


def raising(error: Exception) -> Handler:
    def handler(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (lambda _: failure("refused", "plugin.sandbox_unavailable"), NOT_STARTED),
        (lambda _: failure("load", "plugin.load_timeout"), NOT_STARTED),
        (lambda _: failure("internal", "runtime.failed"), "The runtime failed. (runtime.failed)"),
        (raising(away()), "The function cannot be reached. (function.away)"),
        (raising(KeyError("x")), "The function failed. (function.failed)"),
        (raising(function_timed_out()), "The function did not answer in time. (function.timeout)"),
    ],
)  # fmt: skip
def test_a_runtime_that_fails_is_tried_again(database: DatabaseService, handler: Handler, told: str) -> None:
    error = failing(code_node(services(database, handler)), coded("def main(): return {}"))
    assert (error.code, error.is_transient, error.message) == (CODE_FAILED, True, told)


def test_inputs_that_are_too_large_are_final(database: DatabaseService) -> None:
    one = coded("def main(a): return {}", {"a": "x" * (7 * MIB)})
    error = failing(code_node(services(database)), one)
    assert (error.code, error.is_transient) == (CODE_FAILED, False)


def test_what_code_says_of_its_inputs_is_not_logged(
    database: DatabaseService, runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "def main(a):\n    print(a)\n    raise ValueError(a)"
    error = failing(code_node(services(database, runtime.handle)), coded(source, {"a": "s3cret"}))
    assert "s3cret" in error.message  # the author is to see it
    logged = capsys.readouterr().out
    assert "code.run" in logged
    assert "s3cret" not in logged


def test_in_a_flow(database: DatabaseService, runtime: Runtime) -> None:
    """Its failure is an errorCode that the flow tests, and many run at once."""
    made = services(database, runtime.handle)
    ask = node(
        "ifly-code::1",
        {"codeLanguage": "python", "code": "def main(n):\n    return {'n': 12 // n}"},
        inputs=[literal("n", 0, "integer")],
        outputs=[output("n", "integer")],
        retry={"shouldRetry": True, "maxRetries": 0, "errorStrategy": 1, "customOutput": {"n": 9}},
    )
    last = end(
        ref("n", "ifly-code::1", "n", "integer"),
        ref("code", "ifly-code::1", "errorCode", "integer"),
        ref("why", "ifly-code::1", "errorMessage"),
    )
    outcome, _ = express(flow([start(), ask, last]), {}, {"code": code_node(made)})

    assert outcome.state == "succeeded", outcome
    assert outcome.outputs == {
        "n": 9,
        "code": CODE_FAILED,
        "why": "ZeroDivisionError: integer division or modulo by zero (line 2)",
    }


def test_a_node_error_is_all_that_leaves(database: DatabaseService) -> None:
    for execute, one in (
        (plugin_node, call("hotplug-plugin", {"pluginId": "plugin_x_abc123", "action": "a"})),
        (code_node, coded("x")),
    ):
        with pytest.raises(NodeError):
            execute(services(database, raising(away())))(one)
