"""The circuit breaker and retries of tool calls, over the real front: several API processes, an upstream that fails."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from infra.local.stack import LocalStack
from tests.e2e.conftest import UNLIMITED
from tests.e2e.tenants import Api, Tenant, new_tenant
from tests.internet import Server
from tests.least_privilege.watched import WatchedStack
from tests.tool_documents import document
from tests.tool_world import raw_reply, reply

pytestmark = pytest.mark.slow

API_PROCESSES = 2
FAILURES = 3
# Long enough for what must happen while it lasts, on a machine that is busy.
COOL_DOWN_S = 8.0
RETRIES = 2
GOOD, BUSY = reply("ok"), raw_reply(b"", 503)


class Upstream:
    """A server whose answers are changed while it runs; `arrived` counts requests by their method and path."""

    def __init__(self) -> None:
        self.answer: bytes | Callable[[socket.socket], None] = GOOD
        self.arrived: Counter[str] = Counter()
        self.server = Server(self._serve)

    def _serve(self, conn: socket.socket, asked: bytes) -> None:
        self.arrived[" ".join(asked.decode("latin-1").split(" ")[:2])] += 1
        if callable(self.answer):
            self.answer(conn)
        else:
            conn.sendall(self.answer)

    def take(self) -> Counter[str]:
        """Return what arrived since the last call."""
        taken, self.arrived = self.arrived, Counter()
        return taken


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[LocalStack]:
    environment = {
        **UNLIMITED,
        "HOTPLUG_PRIVATE_ENDPOINTS": f"127.0.0.1:{upstream.server.port}",
        "HOTPLUG_BREAKER_FAILURES": str(FAILURES),
        "HOTPLUG_BREAKER_COOL_DOWN": str(COOL_DOWN_S),
    }
    folder = tmp_path_factory.mktemp("breaker") / "local"
    with WatchedStack(
        folder, api_processes=API_PROCESSES, schedules=False, environment=environment
    ) as running:
        yield running


@pytest.fixture
def tenants(stack: LocalStack, upstream: Upstream) -> Iterator[list[Tenant]]:
    root = Api(stack.url, stack.admin_credential)
    made = [new_tenant(stack, root) for _ in range(2)]
    upstream.answer = GOOD
    upstream.take()
    yield made
    for one in (*made, root):
        one.close()


@pytest.fixture
def acme(tenants: list[Tenant], upstream: Upstream) -> Caller:
    return Caller(tenants[0], upstream)


class Caller:
    """An app with a tool at the upstream: an operation for each method."""

    METHODS = ("get", "head", "options", "put", "delete", "post", "patch")

    def __init__(self, tenant: Tenant, upstream: Upstream) -> None:
        self.api = tenant.apis["caller"]
        operations = {method: {"at": (method, "/op")} for method in self.METHODS}
        tool = document(f"http://127.0.0.1:{upstream.server.port}", **operations)
        made = tenant.admin("POST", "/api/v1/tools", 201, json={"name": "Flaky", "openapi": tool})
        self.path = f"/api/v1/tools/{made.json()['toolId']}"

    def run(self, operation: str = "post") -> httpx.Response:
        return self.api("POST", f"{self.path}/run", json={"operationId": operation})

    def outcomes(self) -> Counter[tuple[str, str | None]]:
        rows = self.api("GET", f"{self.path}/executions?limit=100", 200).json()["items"]
        return Counter((row["outcome"], row["errorCode"]) for row in rows)


def served(stack: LocalStack) -> dict[int, int]:
    return {one.pid: one.served for one in stack.environments("api")}


def code(answer: httpx.Response) -> str:
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


def opened(acme: Caller, upstream: Upstream) -> float:
    """Let the upstream fail until the circuit opens; return when that was found out."""
    upstream.answer = BUSY
    sent = 0
    while code(answer := acme.run()) != "http.circuit_open":
        assert code(answer) == "tool.upstream_error"
        sent += 1
        # Each process counts for itself: the first that has seen enough opens for all.
        assert sent <= API_PROCESSES * (FAILURES - 1) + 1
    assert sent >= FAILURES
    assert upstream.take() == {"POST /op": sent}, "every call arrived but the one that was refused"
    return time.monotonic()


def refused_in_every_process(stack: LocalStack, acme: Caller, upstream: Upstream) -> None:
    before = served(stack)
    for _ in range(2 * API_PROCESSES):
        answer = acme.run()
        assert (answer.status_code, code(answer)) == (503, "http.circuit_open")
        assert 1 <= int(answer.headers["retry-after"]) <= COOL_DOWN_S
    after = served(stack)
    assert len(after) >= API_PROCESSES
    assert all(after[pid] > before[pid] for pid in before), "every process was asked"
    assert not upstream.take(), "and nothing arrived"


def lines(stack: LocalStack, name: str) -> list[dict[str, Any]]:
    """Return the JSON lines of the API's log that name an event or a metric."""
    text = (stack.logs_folder / "api.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{") and f'"{name}"' in line]


def test_what_one_process_finds_broken_every_process_leaves_alone(
    stack: LocalStack, tenants: list[Tenant], acme: Caller, upstream: Upstream
) -> None:
    other = Caller(tenants[1], upstream)
    since = opened(acme, upstream)
    refused_in_every_process(stack, acme, upstream)

    # Another app has a circuit of its own: its calls arrive, and succeed once the server does.
    assert code(other.run()) == "tool.upstream_error"
    upstream.answer = GOOD
    assert [code(other.run()) for _ in range(API_PROCESSES)] == ["ok"] * API_PROCESSES
    assert upstream.take() == {"POST /op": 1 + API_PROCESSES}
    assert code(acme.run()) == "http.circuit_open", "still: nobody has looked"

    # WHEN the time is over THEN one call is let through; while it is under way all others are refused
    release, answers = threading.Event(), list[httpx.Response]()
    upstream.answer = lambda conn: (release.wait(15), conn.sendall(GOOD))[1]
    time.sleep(max(0.0, since + COOL_DOWN_S - time.monotonic()) + 0.1)
    probe = threading.Thread(target=lambda: answers.append(acme.run()))
    probe.start()
    try:
        wait_until(lambda: upstream.arrived["POST /op"] == 1)
        assert [code(acme.run()) for _ in range(4)] == ["http.circuit_open"] * 4
        assert upstream.take() == {"POST /op": 1}
    finally:
        release.set()
        probe.join(20)
    assert [code(answer) for answer in answers] == ["ok"]

    # THEN the circuit is closed in every process
    upstream.answer = GOOD
    before = served(stack)
    assert [code(acme.run()) for _ in range(2 * API_PROCESSES)] == ["ok"] * 2 * API_PROCESSES
    assert all(count > before[pid] for pid, count in served(stack).items() if pid in before)
    assert upstream.take() == {"POST /op": 2 * API_PROCESSES}

    # AND it can be seen: rows of the calls, log lines with the place, metrics
    host = f"127.0.0.1:{upstream.server.port}"
    assert acme.outcomes()["refused", "http.circuit_open"] >= 2 * API_PROCESSES + 6
    for name in ("breaker.opened", "breaker.half_open", "breaker.closed"):
        found = lines(stack, name)
        assert [one for one in found if one.get("message") == name and one["host"] == host], name
        assert [one for one in found if "_aws" in one and one[name]], name
    assert (
        sum(sum(one["breaker.refused"]) for one in lines(stack, "breaker.refused")) >= 2 * API_PROCESSES + 6
    )


def test_a_probe_that_fails_opens_it_again(stack: LocalStack, acme: Caller, upstream: Upstream) -> None:
    since = opened(acme, upstream)
    time.sleep(max(0.0, since + COOL_DOWN_S - time.monotonic()) + 0.1)
    assert code(acme.run()) == "tool.upstream_error"
    assert upstream.take() == {"POST /op": 1}
    refused_in_every_process(stack, acme, upstream)


@pytest.mark.parametrize("operation", Caller.METHODS)
def test_only_idempotent_methods_are_sent_again(acme: Caller, upstream: Upstream, operation: str) -> None:
    """RFC 9110, 9.2.2; counted where the calls arrive."""
    upstream.answer = BUSY
    again = 0 if operation in ("post", "patch") else RETRIES
    assert code(acme.run(operation)) == "tool.upstream_error"
    assert upstream.take() == {f"{operation.upper()} /op": 1 + again}
    # A server that asks for time is not asked at once.
    upstream.answer = raw_reply(b"", 503, {"Retry-After": "1"})
    assert code(acme.run(operation)) == "tool.upstream_error"
    assert upstream.take() == {f"{operation.upper()} /op": 1}


def test_what_recovers_meanwhile_is_a_success(acme: Caller, upstream: Upstream) -> None:
    answers = [BUSY, b"", GOOD]  # the second hangs up
    upstream.answer = lambda conn: conn.sendall(answers.pop(0))
    assert code(acme.run("get")) == "ok"
    assert upstream.take() == {"GET /op": 3}
    upstream.answer = lambda conn: conn.close()
    assert code(acme.run("post")) == "http.protocol_error"
    assert upstream.take() == {"POST /op": 1}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
