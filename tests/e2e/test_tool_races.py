"""Many at once on tools, credentials and MCP servers, over HTTP, on four API processes: one winner, one effect."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import func, select

from chalicelib.core.database import DatabaseService
from chalicelib.tools.models import ToolCredential, ToolExecution, ToolMeta, ToolSchema
from infra.local.stack import LocalStack
from tests import databases
from tests.e2e.conftest import UNLIMITED
from tests.e2e.history.workload import Answer, Client
from tests.e2e.test_concurrency import at_once, outcomes
from tests.internet import Server, header_of
from tests.least_privilege.watched import WatchedStack
from tests.mcp_servers import Served, official, serving
from tests.tool_documents import document
from tests.tool_world import reply

pytestmark = pytest.mark.slow

AT_ONCE = 8
ROUNDS = 4
API_PROCESSES = 4
_numbers = count(1)


@dataclass
class Busy:
    """A stack with four API processes, a server that tools call, and an MCP server."""

    stack: LocalStack
    url: str
    server: Server
    mcp: Served
    arrived: list[bytes]

    def rows(self, model: Any, **values: str) -> int:
        """Return how many rows of a table have these values."""
        service = DatabaseService(self.url)
        try:
            with service.reads() as session:
                return session.scalar(select(func.count()).select_from(model).filter_by(**values)) or 0
        finally:
            service.close()


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    arrived: list[bytes] = []
    lock = threading.Lock()

    def answer(conn: socket.socket, asked: bytes) -> None:
        with lock:
            arrived.append(asked)
        # Long enough for the others to come meanwhile.
        threading.Event().wait(0.2)
        conn.sendall(reply("ok"))

    with ExitStack() as opened:
        folder = tmp_path_factory.mktemp("races") / "local"
        url = f"sqlite:///{folder.parent}/hotplug.db"
        if request.param == "mysql":
            url = opened.enter_context(databases.new_database())
        server = Server(answer)
        opened.callback(server.close)
        mcp = opened.enter_context(serving(official(), "stateless"))
        private = f"127.0.0.1:{server.port},{mcp.endpoint}"
        stack = opened.enter_context(
            WatchedStack(
                folder,
                database_url=url,
                api_processes=API_PROCESSES,
                schedules=False,
                environment={**UNLIMITED, "HOTPLUG_PRIVATE_ENDPOINTS": private},
            )
        )
        yield Busy(stack, url, server, mcp, arrived)


@pytest.fixture
def clients(busy: Busy) -> Iterator[list[Client]]:
    made = [Client(busy.stack.url, busy.stack.admin_credential or "") for _ in range(AT_ONCE)]
    busy.arrived.clear()
    yield made
    for client in made:
        client.close()


def secured(busy: Busy) -> dict[str, Any]:
    found = document(
        f"http://127.0.0.1:{busy.server.port}",
        op={"at": ("post", "/op")},
        secret={"at": ("post", "/secret"), "security": [{"bearer": []}]},
    )
    found["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return found


def register(client: Client, busy: Busy, **options: Any) -> Answer:
    return client.send("POST", "/tools", json={"name": "Raced", "openapi": secured(busy)}, **options)


def registered(client: Client, busy: Busy) -> str:
    answer = register(client, busy)
    assert answer.status == 201, answer.response.text
    return str(answer.body["toolId"])


def once(answers: list[Answer], later: Answer, success: int) -> None:
    """One request did it; all others were told its answer, or to wait."""
    kinds = outcomes(answers)
    assert set(kinds) <= {(success, ""), (409, "idempotency.in_progress")} and kinds[success, ""] >= 1, kinds
    told = [answer for answer in [*answers, later] if answer.status == success]
    assert all(answer.body == later.body for answer in told)
    assert later.response.headers["idempotency-replayed"] == "true"
    assert len([one for one in told if "idempotency-replayed" not in one.response.headers]) == 1


# -- one key -------------------------------------------------------------------------------------------------------


def test_one_key_registers_one_tool(busy: Busy, clients: list[Client]) -> None:
    for _ in range(ROUNDS):
        before = busy.rows(ToolMeta)
        key = {"Idempotency-Key": f"tool-{next(_numbers)}"}
        answers = at_once(*[partial(register, client, busy, headers=key) for client in clients])
        once(answers, register(clients[0], busy, headers=key), 201)
        assert busy.rows(ToolMeta) == before + 1


def test_one_key_calls_the_server_once(busy: Busy, clients: list[Client]) -> None:
    tool = registered(clients[0], busy)
    for number in range(ROUNDS):
        busy.arrived.clear()
        key = {"Idempotency-Key": f"run-{tool}-{next(_numbers)}"}
        run = [
            partial(client.send, "POST", f"/tools/{tool}/run", json={"operationId": "op"}, headers=key)
            for client in clients
        ]
        answers = at_once(*run)
        once(answers, run[0](), 200)
        assert len(busy.arrived) == 1
        assert busy.rows(ToolExecution, tool_id=tool) == number + 1


def test_one_key_registers_one_mcp_server(busy: Busy, clients: list[Client]) -> None:
    before = busy.rows(ToolMeta)
    key = {"Idempotency-Key": f"mcp-{next(_numbers)}"}
    body = {"name": "Raced", "url": busy.mcp.url}
    send = [partial(client.send, "POST", "/mcp/servers", json=body, headers=key) for client in clients]
    once(at_once(*send), send[0](), 201)
    assert busy.rows(ToolMeta) == before + 1


# -- one version ---------------------------------------------------------------------------------------------------


def test_of_eight_writers_of_one_version_one_wins(busy: Busy, clients: list[Client]) -> None:
    tool = registered(clients[0], busy)
    path = f"/tools/{tool}/versions/V1.0"
    for number in range(ROUNDS):
        tag = clients[0].send("GET", f"/tools/{tool}").response.headers["etag"]
        answers = at_once(
            *[
                partial(c.send, "PATCH", path, json={"name": f"n{number}-{n}"}, headers={"If-Match": tag})
                for n, c in enumerate(clients)
            ]
        )
        assert outcomes(answers) == {(200, ""): 1, (412, "precondition.failed"): AT_ONCE - 1}
        [winner] = [answer.body for answer in answers if answer.status == 200]
        assert clients[0].send("GET", f"/tools/{tool}").body == winner


def test_a_version_that_is_added_deleted_and_restored_at_once_is_one(
    busy: Busy, clients: list[Client]
) -> None:
    tool = registered(clients[0], busy)
    body = {"version": "V2", "openapi": secured(busy)}
    for _ in range(ROUNDS):
        works = [
            partial(clients[0].send, "POST", f"/tools/{tool}/versions", json=body),
            partial(clients[1].send, "POST", f"/tools/{tool}/versions", json=body),
            partial(clients[2].send, "DELETE", f"/tools/{tool}/versions/V2"),
            partial(clients[3].send, "DELETE", f"/tools/{tool}/versions/V2"),
            partial(clients[4].send, "POST", f"/tools/{tool}/versions/V2/restore"),
            partial(clients[5].send, "POST", f"/tools/{tool}/versions/V2/restore"),
        ]
        answers = at_once(*works)
        assert {answer.status for answer in answers} <= {200, 201, 204, 404, 409}, outcomes(answers)
        live = [one["version"] for one in clients[0].send("GET", f"/tools/{tool}/versions").body["items"]]
        assert Counter(live) in (Counter(["V1.0"]), Counter(["V2", "V1.0"]))
        assert busy.rows(ToolSchema, tool_id=tool, is_deleted=0) == len(live)
        assert clients[0].send("GET", f"/tools/{tool}").body["version"] == live[0]


# -- credentials ---------------------------------------------------------------------------------------------------


def bearer(busy: Busy) -> list[str | None]:
    return [header_of(asked, "Authorization") for asked in busy.arrived]


def test_of_eight_who_store_a_credential_the_last_one_stands(busy: Busy, clients: list[Client]) -> None:
    tool = registered(clients[0], busy)
    for number in range(ROUNDS):
        busy.arrived.clear()
        put = [
            partial(c.send, "PUT", f"/tools/{tool}/credentials", json={"bearer": {"token": f"t{number}-{n}"}})
            for n, c in enumerate(clients)
        ]
        assert outcomes(at_once(*put)) == {(200, ""): AT_ONCE}
        assert busy.rows(ToolCredential, tool_id=tool) == 1
        # Every process sends the same one.
        runs = [c.send("POST", f"/tools/{tool}/run", json={"operationId": "secret"}) for c in clients]
        assert outcomes(runs) == {(200, ""): AT_ONCE}
        assert len(set(bearer(busy))) == 1
        assert str(bearer(busy)[0]).startswith(f"Bearer t{number}-")


@pytest.mark.parametrize("what", ["scheme", "tool"])
def test_a_credential_is_there_or_it_is_not(busy: Busy, clients: list[Client], what: str) -> None:
    """PUT against DELETE of the credential, and of the tool: nothing is left that nobody can see."""
    for _ in range(ROUNDS):
        tool = registered(clients[0], busy)
        path = f"/tools/{tool}/credentials"
        gone = f"{path}/bearer" if what == "scheme" else f"/tools/{tool}"
        put = {"bearer": {"token": "t"}}
        # One is there before: whoever is deleted first has something to leave behind.
        assert clients[0].send("PUT", path, json=put).status == 200
        works = [partial(c.send, "PUT", path, json=put) for c in clients[:4]]
        works += [partial(c.send, "DELETE", gone) for c in clients[4:]]
        answers = at_once(*works)
        assert {answer.status for answer in answers[:4]} <= {200, 404}, outcomes(answers)
        assert {answer.status for answer in answers[4:]} <= {204, 404}, outcomes(answers)
        if what == "tool":
            assert [answer.status for answer in answers[4:]].count(204) == 1
            assert busy.rows(ToolCredential, tool_id=tool) == 0
            assert clients[0].send("POST", f"/tools/{tool}/versions/V1.0/restore").status == 200
        stored = clients[0].send("GET", path).body["items"]
        assert busy.rows(ToolCredential, tool_id=tool) == len(stored)
        run = [c.send("POST", f"/tools/{tool}/run", json={"operationId": "secret"}) for c in clients[:4]]
        assert outcomes(run) == {((200, "") if stored else (409, "tool.credentials_missing")): 4}


# -- MCP servers ---------------------------------------------------------------------------------------------------


def mcp_server(client: Client, busy: Busy) -> str:
    answer = client.send("POST", "/mcp/servers", json={"name": "Raced", "url": busy.mcp.url})
    assert answer.status == 201, answer.response.text
    return f"/mcp/servers/{answer.body['serverId']}"


def test_of_eight_who_change_an_mcp_server_one_wins(busy: Busy, clients: list[Client]) -> None:
    path = mcp_server(clients[0], busy)
    for number in range(2):
        tag = clients[0].send("GET", path).response.headers["etag"]
        answers = at_once(
            *[
                partial(c.send, "PATCH", path, json={"name": f"n{number}-{n}"}, headers={"If-Match": tag})
                for n, c in enumerate(clients)
            ]
        )
        kinds = outcomes(answers)
        assert kinds.pop((200, "")) == 1
        assert set(kinds) <= {(412, "precondition.failed"), (409, "mcp.server_changed")}, kinds
        [winner] = [answer.body for answer in answers if answer.status == 200]
        assert clients[0].send("GET", path).body == winner


def test_an_mcp_server_that_is_changed_and_deleted_at_once_is_gone(busy: Busy, clients: list[Client]) -> None:
    for _ in range(2):
        path = mcp_server(clients[0], busy)
        change = {"name": "changed", "credentials": {"bearer": {"token": "t"}}}
        works = [partial(c.send, "PATCH", path, json=change) for c in clients[:4]]
        works += [partial(c.send, "DELETE", path) for c in clients[4:6]]
        works += [
            partial(c.send, "PUT", f"{path}/credentials", json=change["credentials"]) for c in clients[6:]
        ]
        answers = at_once(*works)
        assert [answer.status for answer in answers[4:6]] in ([204, 404], [404, 204]), outcomes(answers)
        assert {answer.code for answer in answers[:4]} <= {"", "mcp.server_not_found", "mcp.server_changed"}
        assert all(client.send("GET", path).status == 404 for client in clients)
        assert busy.rows(ToolCredential, tool_id=path.rpartition("/")[2]) == 0
