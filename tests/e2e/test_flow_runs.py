"""Durable runs on the local stack: what has ended is not done again, whatever is killed in between."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.local.stack import LocalStack
from tests.e2e.conftest import UNLIMITED
from tests.e2e.tenants import Api, Tenant, new_tenant
from tests.flow_builders import (
    START,
    case,
    chain,
    condition,
    edge,
    end,
    flow,
    if_else,
    node,
    output,
    ref,
    start,
)
from tests.internet import Server
from tests.least_privilege.watched import WatchedStack
from tests.tool_documents import document
from tests.tool_world import reply

pytestmark = pytest.mark.slow

FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"
STEPS = ("a", "b1", "b2", "c", "d")
"""The operations that the flow's nodes call, b1 and b2 side by side."""


class Upstream:
    """Counts the calls of each operation, with the keys that they carry; holds the first call of one of them until its
    caller is killed.

    Attributes
    ----------
    held
        Set once that call has arrived.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {}
        self.hold = ""
        self.held = threading.Event()
        self._lock = threading.Lock()
        self.server = Server(self._serve)

    def expect(self, hold: str) -> None:
        """Forget what was counted, and hold the next call of an operation."""
        self.calls, self.keys, self.hold = Counter(), {}, hold
        self.held.clear()

    def _serve(self, conn: socket.socket, asked: bytes) -> None:
        head = asked.decode("latin-1")
        operation = head.split(" ")[1].strip("/")
        key = next(
            (
                line.partition(": ")[2]
                for line in head.splitlines()
                if line.lower().startswith("idempotency-key")
            ),
            "",
        )
        with self._lock:
            self.calls[operation] += 1
            self.keys.setdefault(operation, set()).add(key)
            is_held = operation == self.hold and self.calls[operation] == 1
        if is_held:
            self.held.set()
            conn.settimeout(30)
            conn.recv(1)  # until its caller has gone
            return
        # The second of two that run side by side ends now before, now after the first.
        time.sleep(0.05 if (operation == "b1") == bool(self.calls[operation] % 2) else 0)
        conn.sendall(reply(f"{operation}!"))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.server.close()


def opened(folder: Path, upstream: Upstream) -> LocalStack:
    environment = {**UNLIMITED, "HOTPLUG_PRIVATE_ENDPOINTS": f"127.0.0.1:{upstream.server.port}"}
    return WatchedStack(folder, schedules=False, environment=environment)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LocalStack]:
    with opened(tmp_path_factory.mktemp("runs") / "local", upstream) as running:
        yield running


@pytest.fixture(scope="module")
def tenant(stack: LocalStack) -> Iterator[Tenant]:
    with closing(Api(stack.url, stack.admin_credential)) as root, closing(new_tenant(stack, root)) as made:
        yield made


def published(api: Api, data: Any) -> str:
    flow_id = str(api("POST", FLOWS, 201, json={"name": "Flow", "data": data}).json()["flowId"])
    api("POST", f"{FLOWS}/{flow_id}/publish", 200, json={"version": "v1"})
    return flow_id


def calling(tenant: Tenant, upstream: Upstream) -> str:
    """Publish a flow of five calls, two of them side by side, with a branch before the last."""
    operations = {name: {"at": ("get", f"/{name}")} for name in STEPS}
    tool = document(f"http://127.0.0.1:{upstream.server.port}", **operations)
    made = tenant.admin("POST", "/api/v1/tools", 201, json={"name": "Steps", "openapi": tool})
    tool_id = made.json()["toolId"]
    calls = {
        name: node(f"plugin::{name}", {"pluginId": tool_id, "operationId": name}, outputs=[output("said")])
        for name in STEPS
    }
    branch = if_else(
        case("yes", condition("i-c", "eq", "i-want")),
        case("no", level=999),
        inputs=[
            ref("c", "plugin::c", "said", input_id="i-c"),
            ref("want", "plugin::c", "said", input_id="i-want"),
        ],
    )
    branch["data"]["nodeParam"]["cases"][0]["conditions"][0]["compareOperator"] = "is"
    last = end(
        *(ref(name, f"plugin::{name}", "said") for name in STEPS), template="{{a}}{{b1}}{{b2}}{{c}}{{d}}"
    )
    nodes = [start(), *calls.values(), branch, last]
    edges = [
        edge(START, "plugin::a"),
        edge("plugin::a", "plugin::b1"),
        edge("plugin::a", "plugin::b2"),
        edge("plugin::b1", "plugin::c"),
        edge("plugin::b2", "plugin::c"),
        edge("plugin::c", branch["id"]),
        edge(branch["id"], "plugin::d", "branch_one_of::yes"),
        edge(branch["id"], last["id"], "branch_one_of::no"),
        edge("plugin::d", last["id"]),
    ]
    return published(tenant.admin, flow(nodes, edges))


def ended(api: Api, run_id: str, seconds: float = 60) -> dict[str, Any]:
    limit = time.monotonic() + seconds
    while True:
        run: dict[str, Any] = api("GET", f"{RUNS}/{run_id}", 200).json()
        if run["finishedAt"] or time.monotonic() > limit:
            return run
        time.sleep(0.1)


def runner_pid(stack: LocalStack) -> int:
    """The process of the function `run`, of which there is one that works."""
    (busy,) = [one for one in stack.environments("run") if one.state == "busy"]
    return busy.pid


def trace(api: Api, run_id: str) -> list[tuple[Any, ...]]:
    rows = api("GET", f"{RUNS}/{run_id}/nodes", 200).json()["items"]
    return [(row["nodeId"], row["state"], row["outputs"], row["error"]) for row in rows]


def test_a_run_that_is_killed_at_each_node_goes_on_there(
    stack: LocalStack, tenant: Tenant, upstream: Upstream
) -> None:
    flow_id = calling(tenant, upstream)
    api = tenant.apis["caller"]
    body = {"mode": "durable", "waitSeconds": 25}

    # GIVEN a run that nothing disturbs
    upstream.expect("")
    quiet = api("POST", f"{FLOWS}/{flow_id}/runs", 200, json=body).json()
    assert (quiet["state"], quiet["content"]) == ("succeeded", "a!b1!b2!c!d!"), quiet
    assert upstream.calls == dict.fromkeys(STEPS, 1)

    for held in STEPS:
        # WHEN the process of a run is killed while it is at one of its nodes
        upstream.expect(held)
        run_id = api("POST", f"{FLOWS}/{flow_id}/runs", 202, json={**body, "waitSeconds": 0}).json()["runId"]
        assert upstream.held.wait(30)
        # … and what runs beside it has ended
        limit = time.monotonic() + 10
        while held in ("b1", "b2") and upstream.calls["b1"] + upstream.calls["b2"] < 2:
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.5)
        stack.kill_environment(runner_pid(stack))
        run = ended(api, run_id)
        # THEN it goes on at that node, which alone is called again, under the same key
        assert (run["state"], run["content"]) == ("succeeded", quiet["content"]), (held, run)
        assert upstream.calls == {**dict.fromkeys(STEPS, 1), held: 2}
        assert all(len(keys) == 1 and keys != {""} for keys in upstream.keys.values())
        # AND what it tells is what the undisturbed one told
        assert trace(api, run_id) == trace(api, quiet["runId"])
        events = api("GET", f"{RUNS}/{run_id}/events", 200).json()["items"]
        assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
        expected = api("GET", f"{RUNS}/{quiet['runId']}/events", 200).json()["items"]
        assert [(one["type"], one.get("nodeId")) for one in events] == [
            (one["type"], one.get("nodeId")) for one in expected
        ]


def test_a_question_survives_a_restart_of_everything(tmp_path: Path, upstream: Upstream) -> None:
    asking = node(
        "question-answer::1",
        {"question": "Your name?", "answerType": "direct"},
    )
    data = flow(
        *_chained(
            start(), asking, end(ref("name", "question-answer::1", "content"), template="Hello {{name}}")
        )
    )
    # GIVEN a run that waits for an answer
    with opened(tmp_path / "local", upstream) as running:
        credential = running.admin_credential
        with closing(Api(running.url, credential)) as api:
            flow_id = published(api, data)
            run = api("POST", f"{FLOWS}/{flow_id}/runs", 202, json={}).json()
            assert run["state"] == "waiting"
        # WHEN the stack's own durable service is killed, and then everything ends and begins again
        os.kill(running.durable_pid, signal.SIGKILL)
    with opened(tmp_path / "local", upstream) as again, closing(Api(again.url, credential)) as api:
        waiting = api("GET", f"{RUNS}/{run['runId']}", 200).json()
        assert (waiting["state"], waiting["event"]) == ("waiting", run["event"])
        body = {"eventId": run["event"]["eventId"], "action": "resume", "content": "Ada", "waitSeconds": 25}
        done = api("POST", f"{RUNS}/{run['runId']}/resume", 200, json=body).json()
        # THEN it is answered as if nothing had been
        assert (done["state"], done["content"]) == ("succeeded", "Hello Ada")


def _chained(*nodes: Any) -> tuple[list[Any], list[Any]]:
    return list(nodes), chain(*nodes)
