"""Sixteen threads in each of the nodes that call, over the services of one process, as an express run has them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from chalicelib.core import process
from chalicelib.core.instances import Instance
from chalicelib.core.storage import use as use_storage
from chalicelib.flows.engine.call import Execute, Result
from chalicelib.flows.nodes.calling import call_services, calling_nodes
from chalicelib.plugins import services as plugin_services
from chalicelib.plugins.run_models import PluginExecution
from chalicelib.plugins.runtime.service import Runtime
from chalicelib.tools.models import ToolExecution
from tests.deployed_agents import AGENTS, Talks, talking
from tests.fakes.functions import MemoryFunctions
from tests.fakes.storage import MemoryStorage
from tests.flow_builders import end, flow, literal, node, output, ref, start
from tests.flow_calls import call, caller_of, outputs
from tests.flow_runs import express
from tests.plugin_rows import put_plugin
from tests.threads import THREADS, at_once
from tests.unit.plugins.runtime.support import Bench, ObjectServer

PLUGIN = "class Plugin:\n    def execute(self, action, params, context): return {'n': params['n']}"
CODE = "def main(n):\n    return {'n': n}"


@pytest.fixture
def talks(database_url: str, tmp_path: Path) -> Iterator[Talks]:
    """A deployment whose runtime function is a real runtime, in which every plugin is PLUGIN."""
    before = dict(os.environ)
    with talking(database_url, tmp_path) as running:
        server, runtime = ObjectServer(), Runtime(tmp_path / "cache")
        stored = Bench(runtime, server, tmp_path / "cache").python_event(PLUGIN)
        artifact = {name: stored[name] for name in ("plugin", "artifact")}

        one_at_a_time = threading.Lock()  # as an environment of the function is invoked

        def invoked(event: dict[str, Any]) -> dict[str, Any]:
            with one_at_a_time:
                return runtime.handle(event if event["operation"] == "code" else {**event, **artifact})

        plugin_services.use(MemoryFunctions(runtime=invoked))
        use_storage(MemoryStorage())
        try:
            yield running
        finally:
            plugin_services.use(None)
            use_storage(None)
            runtime.close()
            server.close()
    os.environ.clear()  # a python child takes credentials and settings out of this process
    os.environ.update(before)


@pytest.fixture
def kinds(talks: Talks) -> dict[str, Execute]:
    talks.client("acme", "caller")
    process.cache().refresh()  # as every request begins
    return calling_nodes(call_services())


def count(model: Any) -> int:
    with process.database().reads() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_sixteen_calls_of_a_tool(talks: Talks, kinds: dict[str, Execute]) -> None:
    tool, acme = talks.register_cmdb(), caller_of("acme")
    params = {"pluginId": tool, "operationId": "getHost"}

    def work(number: int) -> Result:
        name = ("db-7", "web-1")[number % 2]
        one = call(
            "plugin", params, {"name": name}, outputs("name"), key=f"k{number}", author=acme, user=acme
        )
        return kinds["plugin"](one)

    found = [result.outputs["name"] for result in at_once(work)]

    assert found == ["db-7", "web-1"] * (THREADS // 2)
    assert count(ToolExecution) == THREADS


def test_sixteen_runs_of_a_plugin(talks: Talks, kinds: dict[str, Execute]) -> None:
    acme = caller_of("acme")
    plugin_id = put_plugin(process.database(), app_id=acme.app_id)

    def work(number: int) -> Result:
        params = {"pluginId": plugin_id, "action": "a"}
        return kinds["hotplug-plugin"](
            call("hotplug-plugin", params, {"n": number}, outputs(n="integer"), author=acme, user=acme)
        )

    assert [result.outputs["n"] for result in at_once(work)] == list(range(THREADS))
    assert count(PluginExecution) == THREADS
    assert count(Instance) == 1 + _instances_of_the_api()


def test_sixteen_runs_of_code(talks: Talks, kinds: dict[str, Execute]) -> None:
    acme = caller_of("acme")

    def work(number: int) -> Result:
        return kinds["code"](
            call("code", {"code": CODE}, {"n": number}, outputs(n="integer"), author=acme, user=acme)
        )

    assert [result.outputs["n"] for result in at_once(work)] == list(range(THREADS))


def test_sixteen_questions_to_an_agent(talks: Talks, kinds: dict[str, Execute]) -> None:
    acme = caller_of("acme")

    def work(number: int) -> Result:
        one = call(
            "agent",
            {"agentName": "common_qa"},
            {"message": "What is a plugin?"},
            outputs("message", "threadId"),
            run_id=f"run-{number}",
            author=acme,
            user=acme,
        )
        return kinds["agent"](one)

    found = [result.outputs for result in at_once(work)]

    assert len({one["message"] for one in found}) == 1
    threads = {one["threadId"] for one in found}
    assert len(threads) == THREADS
    listed = talks.client("acme").get(f"{AGENTS}/common_qa/threads?limit=100").json["items"]
    assert {one["threadId"] for one in listed} == threads
    assert all(len(talks.said(thread)) == 2 for thread in threads)


def test_all_of_them_side_by_side_in_one_run(talks: Talks, kinds: dict[str, Execute]) -> None:
    tool, acme = talks.register_cmdb(), caller_of("acme")
    plugin_id = put_plugin(process.database(), app_id=acme.app_id)
    process.cache().refresh()
    number = [literal("n", 3, "integer")]
    some = [
        node(
            f"plugin::{n}",
            {"pluginId": tool, "operationId": "getHost"},
            inputs=[literal("name", "db-7")],
            outputs=[output("owner")],
        )
        for n in range(4)
    ]
    some += [
        node(
            f"hotplug-plugin::{n}",
            {"pluginId": plugin_id, "action": "a"},
            inputs=number,
            outputs=[output("n", "integer")],
        )
        for n in range(4)
    ]
    some += [
        node(f"code::{n}", {"code": CODE}, inputs=number, outputs=[output("n", "integer")]) for n in range(4)
    ]
    some += [
        node(
            f"agent::{n}",
            {"agentName": "common_qa"},
            inputs=[ref("query", "node-start::1", "query")],
            outputs=[output("message")],
        )
        for n in range(4)
    ]
    edges = [
        {"sourceNodeId": source, "targetNodeId": target, "sourceHandle": ""}
        for one in some
        for source, target in (("node-start::1", one["id"]), (one["id"], "node-end::1"))
    ]

    def as_acme(kind: str) -> Execute:
        def work(one: Any) -> Result:
            scope = type(one.scope)(one.scope.run_id, acme, acme, 1)
            return kinds[kind](type(one)(scope, one.node, one.key, one.inputs, one.attempt, one.deadline))

        return work

    last = end(ref("owner", "plugin::3", "owner"), ref("n", "code::3", "n", "integer"))
    outcome, told = express(
        flow([start(), *some, last], edges),
        {"query": "What is a plugin?"},
        {kind: as_acme(kind) for kind in kinds},
    )

    assert outcome.state == "succeeded", (outcome, [one for one in told.records if one.error_code])
    assert outcome.outputs == {"owner": "data platform", "n": 3}
    assert {one.state for one in told.records} == {"succeeded"}


def _instances_of_the_api() -> int:
    """The rows that requests of this test have written."""
    with process.database().reads() as session:
        query = select(func.count()).select_from(Instance).where(Instance.function != "runtime")
        return session.scalar(query) or 0
