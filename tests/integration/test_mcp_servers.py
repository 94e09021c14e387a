"""MCP servers over the API: registered, listed, called, changed and deleted, against servers of the official SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import process
from chalicelib.core.answers import MAX_ANSWER_BYTES
from chalicelib.core.paging import Page
from chalicelib.tools import server_calls
from chalicelib.tools.models import ToolExecution
from chalicelib.tools.servers import page_of_tools
from tests.http import Client, Deployment, deployed, settings
from tests.internet import Server
from tests.mcp_servers import KINDS, OTHER_TOOLS, RESULTS, Kind, Served, official, serving

SERVERS = "/api/v1/mcp/servers"


@pytest.fixture
def deployment(sqlite_url: str, tmp_path: Path) -> Iterator[Deployment]:
    key_file = tmp_path / "key"
    key_file.write_bytes(bytes(range(32)))
    with deployed(sqlite_url, HOTPLUG_KEY_FILE=str(key_file)) as found:
        yield found


@pytest.fixture
def client(deployment: Deployment) -> Client:
    return Client(deployment.client.app, deployment.credential("acme", "admin"))


@pytest.fixture
def reach() -> Iterator[Any]:
    """Return what starts a server that may be reached."""
    with ExitStack() as stack:
        endpoints: list[str] = []

        def start(kind: Kind = "stateless", **options: Any) -> Served:
            served = stack.enter_context(serving(official(**options), kind))
            endpoints.append(served.endpoint)
            stack.enter_context(settings(HOTPLUG_PRIVATE_ENDPOINTS=",".join(endpoints)))
            return served

        yield start


def register(client: Client, served: Served, **body: Any) -> Any:
    made = client.post(SERVERS, {"name": "Weather", "url": served.url, **body})
    assert made.status == 201, made.body
    return made.json


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_asked_registered_listed_and_called(client: Client, reach: Any, kind: Kind) -> None:
    served = reach(kind)
    server = register(client, served)
    assert server["serverInfo"] == {
        "name": "official",
        "version": "1.2.3",
        "instructions": "Ask for the weather.",
    }
    assert server["transport"] == ("sse" if kind == "sse" else "streamable_http")
    place = f"{SERVERS}/{server['serverId']}"
    assert client.get(place).json == server
    assert client.get(SERVERS).json["items"] == [server]
    first = client.get(f"{place}/tools?limit=10").json
    rest = client.get(f"{place}/tools?limit=10&cursor={first['nextCursor']}").json
    assert [one["name"] for one in first["items"] + rest["items"]] == sorted([*RESULTS, *OTHER_TOOLS])
    for name, result in RESULTS.items():
        called = client.post(f"{place}/tools/{name}/call", {"arguments": {}})
        assert called.status == 200, called.body
        got = called.json["result"]
        # A server of 2026-07-28 says in each answer's `_meta` who it is.
        got.get("_meta", {}).pop("io.modelcontextprotocol/serverInfo", None)
        assert {key: got.get(key) for key in result} == result, name
    echoed = client.post(f"{place}/tools/echo/call", {"arguments": {"city": "Köln", "n": [1, None]}}).json
    assert echoed["result"]["structuredContent"] == {"arguments": {"city": "Köln", "n": [1, None]}}
    with process.database().reads() as session:
        rows = session.scalars(select(ToolExecution).order_by(ToolExecution.id)).all()
    assert [(row.operation, row.outcome, row.error_code) for row in rows] == [
        *[
            (
                name,
                "failed" if name == "failing" else "success",
                "mcp.tool_error" if name == "failing" else None,
            )
            for name in RESULTS
        ],
        ("echo", "success", None),
    ]


def test_a_result_that_no_function_can_hand_on(
    client: Client, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may answer with 5 MB, which travel as twice as many."""
    monkeypatch.setattr(server_calls, "MAX_ANSWER_BYTES", 2_000)
    place = f"{SERVERS}/{register(client, reach())['serverId']}/tools/echo/call"
    assert client.post(place, {"arguments": {"a": "x"}}).status == 200
    refused = client.post(place, {"arguments": {"a": '"' * 500}})
    assert (refused.status, refused.json["code"]) == (502, "tool.answer_too_large")
    with process.database().reads() as session:
        row = session.scalars(select(ToolExecution).order_by(ToolExecution.id.desc())).first()
    assert row is not None
    assert (row.execution_id, row.error_code) == (refused.json["executionId"], "tool.answer_too_large")


def test_a_listing_of_large_tools_ends_its_pages_earlier() -> None:
    tools = [{"name": f"t{number}", "description": "x" * (MAX_ANSWER_BYTES // 3)} for number in range(5)]
    seen: list[list[str]] = []
    cursor = None
    while not seen or cursor:
        shown = page_of_tools(tools, Page(100, cursor, {"$app": 1}, b"key"))
        seen.append([tool["name"] for tool in shown["items"]])
        cursor = shown["nextCursor"]
    assert seen == [["t0", "t1"], ["t2", "t3"], ["t4"]]


def test_a_listing_of_many_pages_is_kept_whole(client: Client, reach: Any) -> None:
    server = register(client, reach(page_size=3))
    listed = client.get(f"{SERVERS}/{server['serverId']}/tools?limit=100").json
    assert len(listed["items"]) == len(RESULTS) + len(OTHER_TOOLS)
    assert listed["nextCursor"] is None


@pytest.mark.parametrize(
    ("tool", "status", "code"),
    [
        ("nope", 502, "mcp.rpc_error"),
        ("refusing", 502, "mcp.rpc_error"),
        ("asking", 502, "mcp.input_required"),
        ("slow", 504, "upstream.timeout"),
    ],
)
def test_a_call_that_fails_is_kept_with_its_reason(
    client: Client, reach: Any, tool: str, status: int, code: str
) -> None:
    server = register(client, reach())
    place = f"{SERVERS}/{server['serverId']}/tools/{tool}/call"
    failed = client.post(place, {"arguments": {}, "timeoutMs": 1500})
    assert (failed.status, failed.json["code"]) == (status, code), failed.body
    with process.database().reads() as session:
        [row] = session.scalars(select(ToolExecution)).all()
    assert (row.execution_id, row.error_code) == (failed.json["executionId"], code)
    assert row.outcome == ("timeout" if status == 504 else "failed")


def test_what_is_no_mcp_server_is_not_registered(client: Client) -> None:
    plain = Server(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
    try:
        with settings(HOTPLUG_PRIVATE_ENDPOINTS=f"127.0.0.1:{plain.port}"):
            refused = client.post(SERVERS, {"name": "x", "url": f"http://127.0.0.1:{plain.port}/mcp"})
            assert refused.status == 502, refused.body
            assert client.get(SERVERS).json["items"] == []
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://127.0.0.1:1/mcp", 403, "http.forbidden_address"),
        ("http://169.254.169.254/mcp", 403, "http.forbidden_address"),
        ("http://2130706433/", 422, "http.invalid_url"),
        ("ftp://a.example/", 422, "request.invalid"),
    ],
)
def test_where_a_server_must_not_be(client: Client, url: str, status: int, code: str) -> None:
    refused = client.post(SERVERS, {"name": "x", "url": url})
    assert (refused.status, refused.json["code"]) == (status, code), refused.body


# -- credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"bearer": {"token": "t.1"}}, "authorization", "Bearer t.1"),
        ({"basic": {"username": "ann", "password": "x"}}, "authorization", "Basic YW5uOng="),
        ({"apiKey": {"header": "X-Key", "value": "k 1"}}, "x-key", "k 1"),
    ],
)
def test_credentials_go_with_every_request(
    client: Client, reach: Any, given: dict[str, Any], name: str, value: str
) -> None:
    served = reach()
    server = register(client, served, credentials=given)
    client.post(f"{SERVERS}/{server['serverId']}/tools/text/call")
    assert served.requests
    assert {asked.headers.get(name) for asked in served.requests} == {value}
    listed = client.get(f"{SERVERS}/{server['serverId']}/credentials").json["items"]
    assert [one["scheme"] for one in listed] == list(given)
    assert client.delete(f"{SERVERS}/{server['serverId']}/credentials").status == 204
    served.requests.clear()
    client.post(f"{SERVERS}/{server['serverId']}/tools/text/call")
    assert {asked.headers.get(name) for asked in served.requests} == {None}


def test_a_token_is_asked_for_and_sent(client: Client, reach: Any) -> None:
    body = b'{"access_token": "t-9", "token_type": "bearer", "expires_in": 60}'
    tokens = Server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    try:
        served = reach()
        allowed = f"{served.endpoint},127.0.0.1:{tokens.port}"
        with settings(HOTPLUG_PRIVATE_ENDPOINTS=allowed):
            oauth = {"tokenUrl": f"http://127.0.0.1:{tokens.port}/t", "clientId": "i", "clientSecret": "s"}
            server = register(client, served, credentials={"oauth2": oauth})
            client.post(f"{SERVERS}/{server['serverId']}/tools/text/call")
        assert {asked.headers.get("authorization") for asked in served.requests} == {"Bearer t-9"}
        assert len(tokens.requests) == 1
    finally:
        tokens.close()


def test_a_shared_server_is_called_with_the_callers_credentials(
    deployment: Deployment, client: Client, reach: Any
) -> None:
    served = reach()
    server = register(client, served, shared=True, credentials={"bearer": {"token": "owner"}})
    other = Client(deployment.client.app, deployment.credential("other", "admin"))
    place = f"{SERVERS}/{server['serverId']}"
    served.requests.clear()
    assert other.post(f"{place}/tools/text/call").status == 200
    assert {asked.headers.get("authorization") for asked in served.requests} == {None}
    other.put(f"{place}/credentials", {"bearer": {"token": "other"}})
    served.requests.clear()
    assert other.post(f"{place}/tools/text/call").status == 200
    assert {asked.headers.get("authorization") for asked in served.requests} == {"Bearer other"}
    # WHEN its owner points it elsewhere THEN what others keep for the first place stays behind
    elsewhere = reach()
    moved = client.patch(place, {"url": elsewhere.url})
    assert moved.status == 200, moved.body
    assert other.post(f"{place}/tools/text/call").status == 200
    assert {asked.headers.get("authorization") for asked in elsewhere.requests} == {None}


# -- changing ------------------------------------------------------------------------------------------------------


def test_a_server_is_changed_and_asked_anew(client: Client, reach: Any) -> None:
    served = reach()
    server = register(client, served)
    place = f"{SERVERS}/{server['serverId']}"
    tag = client.get(place).headers["etag"]
    served.requests.clear()
    renamed = client.patch(place, {"name": "Sky", "description": "d"}, headers={"If-Match": tag})
    assert (renamed.status, renamed.json["name"], renamed.json["description"]) == (200, "Sky", "d")
    assert served.requests, "it was not asked"
    assert client.patch(place, {"name": "x"}, headers={"If-Match": tag}).status == 412
    refused = client.patch(place, {"url": "http://127.0.0.1:1/"})
    assert refused.status == 403
    assert client.get(place).json == renamed.json


def test_a_deleted_server_is_gone(deployment: Deployment, client: Client, reach: Any) -> None:
    server = register(client, reach(), credentials={"bearer": {"token": "x"}})
    place = f"{SERVERS}/{server['serverId']}"
    assert deployment.client.delete("/api/v1/apps/acme").json["owns"] == ["MCP servers"]
    assert client.delete(place).status == 204
    for answer in (
        client.get(place),
        client.patch(place, {}),
        client.delete(place),
        client.get(f"{place}/tools"),
        client.get(f"{place}/credentials"),
        client.post(f"{place}/tools/text/call"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "mcp.server_not_found")


def test_a_private_server_does_not_exist_for_others(
    deployment: Deployment, client: Client, reach: Any
) -> None:
    served = reach()
    server = register(client, served)
    place = f"{SERVERS}/{server['serverId']}"
    stranger = Client(deployment.client.app, deployment.credential("other", "admin"))
    served.requests.clear()
    for answer in (
        stranger.get(place),
        stranger.patch(place, {"name": "x"}),
        stranger.delete(place),
        stranger.get(f"{place}/tools"),
        stranger.put(f"{place}/credentials", {"bearer": {"token": "x"}}),
        stranger.post(f"{place}/tools/text/call"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "mcp.server_not_found")
    assert served.requests == []


def test_a_shared_server_is_changed_by_its_owner_alone(
    deployment: Deployment, client: Client, reach: Any
) -> None:
    served = reach()
    place = f"{SERVERS}/{register(client, served, shared=True)['serverId']}"
    stranger = Client(deployment.client.app, deployment.credential("other", "admin"))
    served.requests.clear()
    for answer in (stranger.patch(place, {"name": "x"}), stranger.delete(place)):
        assert (answer.status, answer.json["code"]) == (403, "tool.not_owner")
    assert served.requests == [], "nobody else makes Hotplug ask it"
    assert stranger.get(f"{place}/tools").status == 200


def test_one_idempotency_key_registers_once(client: Client, reach: Any) -> None:
    served = reach()
    body, key = {"name": "W", "url": served.url}, {"Idempotency-Key": "k"}
    first, second = (client.post(SERVERS, body, headers=key) for _ in range(2))
    assert (first.status, first.json) == (second.status, second.json)
    assert len(client.get(SERVERS).json["items"]) == 1
