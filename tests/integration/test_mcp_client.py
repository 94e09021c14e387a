"""The MCP client against servers of the official SDK: each transport, each version, each kind of content."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core.errors import Forbidden, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.client import HttpOut
from chalicelib.tools.mcp_client import client
from chalicelib.tools.mcp_client.dialect import Dialect, ServerInfo
from tests.internet import Server
from tests.mcp_by_hand import INITIALIZED, by_hand, event, events, http, rpc_result
from tests.mcp_servers import KINDS, OTHER_TOOLS, RESULTS, Kind, Served, official, serving

MODERN = Dialect("streamable_http", "2026-07-28")
HANDSHAKE = Dialect("streamable_http", "2025-11-25")
SSE = Dialect("sse", "2025-11-25")
TIMEOUT_S = 20.0


def out(served: Served) -> HttpOut:
    return HttpOut(private_endpoints=[served.endpoint])


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(official(page_size=5), request.param) as served:
        yield served


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    ends = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < ends:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()


def without_additions(result: dict[str, Any]) -> dict[str, Any]:
    """The result less what the SDK's server adds to each: defaults, and its name since 2026-07-28."""
    meta = {name: value for name, value in result.get("_meta", {}).items() if "serverInfo" not in name}
    rest = {name: value for name, value in result.items() if name not in ("_meta", "resultType", "isError")}
    return rest | ({"_meta": meta} if meta else {}) | ({"isError": True} if result["isError"] else {})


def test_a_probe_tells_who_and_how(server: Served) -> None:
    found = client.probe(out(server), server.url, {}, timeout_s=TIMEOUT_S)
    dialect = SSE if server.url.endswith("/sse") else MODERN
    assert found == ServerInfo(dialect, "official", "1.2.3", "Ask for the weather.")


def test_all_pages_are_listed(server: Served) -> None:
    listing = client.list_tools(out(server), server.url, {}, timeout_s=TIMEOUT_S)
    assert [tool["name"] for tool in listing.tools] == [*RESULTS, *OTHER_TOOLS]
    assert listing.tools[0] == {
        "name": "text",
        "description": "Answers with text.",
        "inputSchema": {"type": "object"},
    }


@pytest.mark.parametrize("tool", RESULTS)
def test_each_kind_of_content_passes_unchanged(server: Served, tool: str) -> None:
    dialect = SSE if server.url.endswith("/sse") else MODERN
    result = client.call_tool(out(server), server.url, {}, tool, {}, timeout_s=TIMEOUT_S, dialect=dialect)
    assert without_additions(result) == RESULTS[tool]


@pytest.mark.parametrize("kind", ["stateful", "stateful_json", "stateless", "stateless_json"])
def test_a_server_of_the_handshake_is_spoken_to_as_well(kind: Kind) -> None:
    with serving(official(), kind, only_handshake=True) as served:
        listing = client.list_tools(out(served), served.url, {}, timeout_s=TIMEOUT_S)
        result = client.call_tool(out(served), served.url, {}, "structured", {}, timeout_s=TIMEOUT_S)
    assert listing.server.dialect == HANDSHAKE
    assert [tool["name"] for tool in listing.tools] == [*RESULTS, *OTHER_TOOLS]
    assert result == {**RESULTS["structured"], "isError": False}
    sessions = [asked for asked in served.requests if asked.method == "DELETE"]
    assert len(sessions) == (2 if kind.startswith("stateful") else 0), "a session is ended"


@pytest.mark.parametrize(
    ("dialect", "kind", "methods"),
    [
        (MODERN, "stateless", ["POST"]),
        (HANDSHAKE, "stateless", ["POST", "POST", "POST"]),
        (HANDSHAKE, "stateful", ["POST", "POST", "POST", "DELETE"]),
        (SSE, "sse", ["GET", "POST", "POST", "POST"]),
    ],
)
def test_a_known_dialect_saves_the_negotiation(dialect: Dialect, kind: Kind, methods: list[str]) -> None:
    arguments = {"city": "Köln", "nothing": None, "deep": [{"no": None}], "big": 2**64 - 1, "part": 1.0}
    with serving(official(), kind) as served:
        result = client.call_tool(
            out(served), served.url, {}, "echo", arguments, timeout_s=TIMEOUT_S, dialect=dialect
        )
    assert result["structuredContent"] == {"arguments": arguments}
    assert [asked.method for asked in served.requests] == methods


@pytest.mark.parametrize(
    ("dialect", "kind", "only_handshake"),
    [
        (MODERN, "stateless", True),
        (MODERN, "sse", False),
        (HANDSHAKE, "sse", False),
        (SSE, "stateless", False),
    ],
)
def test_an_outdated_dialect_is_found_out_again(dialect: Dialect, kind: Kind, only_handshake: bool) -> None:
    with serving(official(), kind, only_handshake) as served:
        # Half of it is spent where an event stream of the older transport is waited for.
        result = client.call_tool(out(served), served.url, {}, "text", {}, timeout_s=6, dialect=dialect)
    assert without_additions(result) == RESULTS["text"]


def test_arguments_that_belong_into_headers_are_sent_there() -> None:
    with serving(official(page_size=5, header_tool=True)) as served:
        result = client.call_tool(
            out(served), served.url, {}, "echo", {"city": "Köln"}, timeout_s=TIMEOUT_S, dialect=MODERN
        )
    assert result["structuredContent"] == {"arguments": {"city": "Köln"}}
    assert served.requests[-1].headers["mcp-param-city"] == "=?base64?S8O2bG4=?="


@pytest.mark.parametrize("kind", ["stateful", "sse"])
def test_credentials_are_sent_with_each_request(kind: Kind) -> None:
    credentials = {"Authorization": "Bearer t0ken", "X-Api-Key": "k"}
    with serving(official(), kind, only_handshake=True) as served:
        client.call_tool(out(served), served.url, credentials, "text", {}, timeout_s=TIMEOUT_S)
    assert len(served.requests) > 3
    for asked in served.requests:
        assert asked.headers["authorization"] == "Bearer t0ken"
        assert asked.headers["x-api-key"] == "k"
        assert asked.headers["user-agent"].startswith("hotplug/")


@pytest.mark.parametrize(
    ("tool", "dialect", "code", "extensions"),
    [
        (
            "refusing",
            MODERN,
            "mcp.rpc_error",
            {"upstreamStatus": 400, "rpcCode": -32602, "rpcMessage": "no such argument: town"},
        ),
        (
            "refusing",
            HANDSHAKE,
            "mcp.rpc_error",
            {"rpcCode": -32602, "rpcMessage": "no such argument: town"},
        ),
        ("nowhere", HANDSHAKE, "mcp.rpc_error", {"rpcCode": -32602, "rpcMessage": "Unknown tool: nowhere"}),
        ("asking", MODERN, "mcp.input_required", {}),
        ("sampling", HANDSHAKE, "mcp.rpc_error", {"rpcCode": -32600, "rpcMessage": "Sampling not supported"}),
    ],
)
def test_a_tool_that_gives_no_result(
    tool: str, dialect: Dialect, code: str, extensions: dict[str, Any]
) -> None:
    with serving(official(), "stateful") as served, pytest.raises(UpstreamFailed) as caught:
        client.call_tool(out(served), served.url, {}, tool, {}, timeout_s=TIMEOUT_S, dialect=dialect)
    assert (caught.value.code, caught.value.extensions) == (code, extensions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tool_that_takes_too_long_ends_in_time(kind: Kind) -> None:
    dialect = SSE if kind == "sse" else HANDSHAKE
    with serving(official(), kind) as served:
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            client.call_tool(out(served), served.url, {}, "slow", {}, timeout_s=1, dialect=dialect)
        assert time.monotonic() - started < 6


def test_a_server_that_is_not_allowed_is_not_reached() -> None:
    with serving(official()) as served:
        with pytest.raises(Forbidden) as caught:
            client.probe(HttpOut(), served.url, {}, timeout_s=TIMEOUT_S)
        with pytest.raises(Forbidden) as not_granted:
            client.probe(
                out(served), served.url, {}, timeout_s=TIMEOUT_S, allowed_hosts=["other.example.org"]
            )
    assert caught.value.code == "http.forbidden_address"
    assert not_granted.value.code == "http.host_not_granted"
    assert served.requests == []


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_each_version_of_the_handshake_is_accepted(version: str) -> None:
    server = Server(by_hand({"initialize": rpc_result({**INITIALIZED, "protocolVersion": version})}))
    try:
        found = client.probe(
            HttpOut([f"127.0.0.1:{server.port}"]), f"http://127.0.0.1:{server.port}/", {}, timeout_s=TIMEOUT_S
        )
    finally:
        server.close()
    assert found.dialect == Dialect("streamable_http", version)


def test_what_the_models_do_not_know_passes_too() -> None:
    result = {
        "content": [{"type": "text", "text": "x", "colour": "red"}],
        "structuredContent": {"n": 12345678901234567890123, "f": 1.0, "none": None},
        "cost": {"cents": 3},
    }
    tool = {"name": "t", "inputSchema": {"type": "object", "x-order": [1, 2]}, "badge": None}
    server = Server(
        by_hand({"tools/call": rpc_result(result), "tools/list": rpc_result({"tools": [tool], "extra": 1})})
    )
    url, reachable = f"http://127.0.0.1:{server.port}/", HttpOut([f"127.0.0.1:{server.port}"])
    try:
        assert client.call_tool(reachable, url, {}, "t", {}, timeout_s=TIMEOUT_S) == result
        assert client.list_tools(reachable, url, {}, timeout_s=TIMEOUT_S).tools == (tool,)
    finally:
        server.close()


def test_what_a_server_says_in_between_is_passed_over() -> None:
    progress = {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    log = {"method": "notifications/message", "params": {"level": "info", "data": "x"}}
    said = [{"jsonrpc": "2.0", **one} for one in (progress, log, {"method": "notifications/unknown"})]
    done = {"jsonrpc": "2.0", "id": 2, "result": {"content": []}}
    server = Server(by_hand({"tools/call": events(*map(event, [*said, done]))}))
    try:
        result = client.call_tool(
            HttpOut([f"127.0.0.1:{server.port}"]),
            f"http://127.0.0.1:{server.port}/",
            {},
            "t",
            {},
            timeout_s=TIMEOUT_S,
            dialect=HANDSHAKE,
        )
    finally:
        server.close()
    assert result == {"content": []}


def test_a_stream_that_ended_is_resumed() -> None:
    done = {"jsonrpc": "2.0", "id": 2, "result": {"content": []}}
    server = Server(
        by_hand(
            {
                "tools/call": events(b"id: 7\nretry: 1\ndata:\n\n"),
                "GET": http(200, event(done), "text/event-stream"),
            }
        )
    )
    try:
        result = client.call_tool(
            HttpOut([f"127.0.0.1:{server.port}"]),
            f"http://127.0.0.1:{server.port}/",
            {},
            "t",
            {},
            timeout_s=TIMEOUT_S,
            dialect=HANDSHAKE,
        )
    finally:
        server.close()
    assert result == {"content": []}
    assert any(b"last-event-id: 7" in request.lower() for request in server.requests)
