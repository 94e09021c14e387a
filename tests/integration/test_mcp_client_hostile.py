"""The MCP client against servers that mean harm or are broken: each ends with a clean error, in time, and
leaves no thread and no socket behind."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from chalicelib.core.errors import Forbidden, HotplugError, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.client import HttpOut
from chalicelib.tools.mcp_client import client
from chalicelib.tools.mcp_client.dialect import Dialect
from tests.internet import Answer, Server
from tests.mcp_by_hand import (
    INITIALIZED,
    after,
    by_hand,
    event,
    events,
    hang,
    http,
    rpc_error,
    rpc_result,
)

HANDSHAKE = Dialect("streamable_http", "2025-11-25")
MODERN = Dialect("streamable_http", "2026-07-28")
SSE = Dialect("sse", "2025-11-25")
TIMEOUT_S = 2.0
GRACE_S = 5.0

TIMEOUT = (UpstreamTimeout, "upstream.timeout")
NOT_MCP = (UpstreamFailed, "mcp.protocol_error")
NOT_HTTP = (UpstreamFailed, "http.protocol_error")
TOO_LARGE = (UpstreamFailed, "http.response_too_large")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
PING = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 900}}
DONE = {"jsonrpc": "2.0", "id": 2, "result": {"content": []}}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before, open_before = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    yield
    ends = time.monotonic() + GRACE_S
    while time.monotonic() < ends and (
        set(threading.enumerate()) - before or len(os.listdir("/proc/self/fd")) > open_before
    ):
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    assert len(os.listdir("/proc/self/fd")) <= open_before


@pytest.fixture
def serve() -> Iterator[Callable[[Mapping[str, Answer]], Server]]:
    running: list[Server] = []

    def start(answers: Mapping[str, Answer]) -> Server:
        running.append(Server(by_hand(answers)))
        return running[-1]

    yield start
    for server in running:
        server.close()


Serve = Callable[[Mapping[str, Answer]], Server]


def call(server: Server, dialect: Dialect | None = HANDSHAKE, timeout_s: float = TIMEOUT_S) -> Any:
    reachable = HttpOut([f"127.0.0.1:{server.port}"])
    url = f"http://127.0.0.1:{server.port}/mcp"
    return client.call_tool(
        reachable, url, {"Authorization": "Bearer t0ken"}, "t", {}, timeout_s=timeout_s, dialect=dialect
    )


def in_pieces(size: int, start: bytes, piece: bytes, end: bytes = b"") -> Answer:
    """An answer of `size` bytes, or as many as the client takes."""

    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(start)
        for _ in range(size // len(piece)):
            conn.sendall(piece)
        conn.sendall(end)

    return answer


HOSTILE: dict[str, tuple[dict[str, Answer], tuple[type[HotplugError], str]]] = {
    "says nothing at all": ({"initialize": hang}, TIMEOUT),
    "says nothing to the call": ({"tools/call": hang}, TIMEOUT),
    "says nothing to the notification": ({"notifications/initialized": hang}, TIMEOUT),
    "sends half of its headers": ({"tools/call": after(JSON)}, TIMEOUT),
    "sends headers and no body": ({"tools/call": after(JSON + b"Content-Length: 9\r\n\r\n")}, TIMEOUT),
    "sends an event stream without events": ({"tools/call": after(STREAM)}, TIMEOUT),
    "dribbles comments for ever": (
        {"tools/call": events(b": still here\n\n", pause_s=0.02, for_ever=True)},
        TIMEOUT,
    ),
    "dribbles one event for ever": (
        {"tools/call": events(b"data: a\n", pause_s=0.02, for_ever=True)},
        TIMEOUT,
    ),
    "answers another request": (
        {"tools/call": http(200, json.dumps({**DONE, "id": 77}).encode())},
        TIMEOUT,
    ),
    "pings for ever": ({"tools/call": events(event(PING), pause_s=0.1, for_ever=True)}, TIMEOUT),
    "has its stream resumed for ever": (
        {
            "tools/call": events(b"id: 1\nretry: 0\ndata:\n\n"),
            "GET": http(200, b"id: 1\nretry: 0\ndata:\n\n", "text/event-stream"),
        },
        NOT_MCP,
    ),
    "wants to be resumed in a billion years": (
        {"tools/call": events(b"id: 1\nretry: " + b"9" * 4000 + b"\ndata:\n\n")},
        NOT_MCP,
    ),
    "sends less than it says": ({"tools/call": JSON + b"Content-Length: 500\r\n\r\n{}"}, NOT_HTTP),
    "sends more than it says": (
        {"tools/call": JSON + b"Content-Length: 9\r\n\r\n" + json.dumps(DONE).encode()},
        NOT_MCP,
    ),
    "closes in the middle of an event": (
        {"tools/call": CHUNKED + b'10\r\ndata: {"jsonrpc"\r\n'},
        NOT_HTTP,
    ),
    "ends its stream without an answer": (
        {"tools/call": events(event(NOTE))},
        (UpstreamFailed, "mcp.connection_closed"),
    ),
    "closes without a word": ({"tools/call": b""}, NOT_HTTP),
    "sends 100 MB of JSON": ({"tools/call": in_pieces(100 << 20, JSON + b"\r\n", b"[" * 65536)}, TOO_LARGE),
    "sends an event of 100 MB": (
        {"tools/call": in_pieces(100 << 20, STREAM + b"data: ", b"x" * 65536)},
        TOO_LARGE,
    ),
    "refuses in 100 MB": (
        {"tools/call": in_pieces(100 << 20, b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536)},
        TOO_LARGE,
    ),
    "sends no JSON": ({"tools/call": http(200, b"<html>")}, NOT_MCP),
    "sends an event that is no JSON": ({"tools/call": events(event("{"))}, NOT_MCP),
    "sends JSON that is no JSON-RPC": ({"tools/call": http(200, b'{"ok":true}')}, NOT_MCP),
    "nests without end": ({"tools/call": http(200, b'{"a":' * 9000 + b"1" + b"}" * 9000)}, NOT_MCP),
    "counts to infinity": ({"tools/call": rpc_result({"content": [], "x": float("inf")})}, NOT_MCP),
    "gives a result of another kind": ({"tools/call": rpc_result({"content": "text"})}, NOT_MCP),
    "sends a page": ({"tools/call": http(200, b"<html>", "text/html")}, (UpstreamFailed, "mcp.rpc_error")),
    "only takes note": ({"tools/call": http(202)}, (UpstreamFailed, "mcp.rpc_error")),
    "answers with an error": ({"tools/call": rpc_error(-32000, "no")}, (UpstreamFailed, "mcp.rpc_error")),
    "refuses with an error": (
        {"tools/call": rpc_error(-32602, "no", 400)},
        (UpstreamFailed, "mcp.rpc_error"),
    ),
    "wants credentials": ({"initialize": http(401)}, (UpstreamFailed, "mcp.unauthorized")),
    "wants others for the call": ({"tools/call": http(401)}, (UpstreamFailed, "mcp.unauthorized")),
    "forbids": ({"initialize": http(403)}, (UpstreamFailed, "mcp.forbidden")),
    "knows no such path": ({"initialize": http(404)}, (UpstreamFailed, "mcp.http_error")),
    "knows no such method": ({"initialize": http(405)}, (UpstreamFailed, "mcp.http_error")),
    "breaks": ({"tools/call": http(500, b"{}")}, (UpstreamFailed, "mcp.http_error")),
    "is overrun": ({"tools/call": http(429)}, (UpstreamFailed, "mcp.http_error")),
    "forgets the session": (
        {"initialize": rpc_result(INITIALIZED, Mcp_Session_Id="s"), "tools/call": http(404)},
        (UpstreamFailed, "mcp.http_error"),
    ),
    "speaks another version": (
        {"initialize": rpc_result({**INITIALIZED, "protocolVersion": "1999-12-31"})},
        NOT_MCP,
    ),
    "redirects to the metadata": (
        {"tools/call": http(307, Location="http://169.254.169.254/latest")},
        (UpstreamFailed, "http.redirect_refused"),
    ),
    "redirects in a circle": (
        {"tools/call": http(307, Location="/mcp")},
        (UpstreamFailed, "http.redirect_refused"),
    ),
    "turns the call into a GET": (
        {"tools/call": http(302, Location="/mcp")},
        (UpstreamFailed, "http.redirect_refused"),
    ),
    "redirects to nonsense": (
        {"tools/call": http(307, Location="http://[")},
        (UpstreamFailed, "http.redirect_refused"),
    ),
}


@pytest.mark.parametrize("answers, expected", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_server_ends_with_a_clean_error_in_time(
    serve: Serve, answers: dict[str, Answer], expected: tuple[type[HotplugError], str]
) -> None:
    server = serve(answers)
    started = time.monotonic()
    with pytest.raises(expected[0]) as caught:
        call(server)
    assert time.monotonic() - started < TIMEOUT_S + GRACE_S
    assert caught.value.code == expected[1]
    assert "t0ken" not in repr((caught.value.detail, caught.value.extensions))


HOSTILE_SSE: dict[str, tuple[dict[str, Answer], tuple[type[HotplugError], str]]] = {
    "says nothing": ({"GET": hang}, TIMEOUT),
    "names no endpoint": ({"GET": after(STREAM)}, NOT_MCP),
    "ends before it names one": ({"GET": STREAM}, NOT_MCP),
    "names one of another origin": (
        {"GET": events(event("http://attacker.example/steal", "endpoint"))},
        NOT_MCP,
    ),
    "names one that is no URL": ({"GET": events(event("http://[", "endpoint"))}, NOT_MCP),
    "answers with a page": ({"GET": http(200, b"<html>", "text/html")}, NOT_MCP),
    "redirects to the metadata": (
        {"GET": http(302, Location="http://169.254.169.254/")},
        (Forbidden, "http.forbidden_address"),
    ),
    "wants credentials": ({"GET": http(401)}, (UpstreamFailed, "mcp.unauthorized")),
    "refuses the message": (
        {"GET": after(STREAM + event("/m", "endpoint")), "initialize": http(500)},
        (UpstreamFailed, "mcp.http_error"),
    ),
    "never answers the message": (
        {"GET": after(STREAM + event("/m", "endpoint")), "initialize": http(202)},
        TIMEOUT,
    ),
    "hangs on the message": ({"GET": after(STREAM + event("/m", "endpoint")), "initialize": hang}, TIMEOUT),
    "ends after the message": (
        {"GET": STREAM + event("/m", "endpoint"), "initialize": http(202)},
        (UpstreamFailed, "mcp.connection_closed"),
    ),
    "sends an event of 100 MB": (
        {
            "GET": in_pieces(100 << 20, STREAM + event("/m", "endpoint") + b"data: ", b"x" * 65536),
            "initialize": http(202),
        },
        TOO_LARGE,
    ),
    "names its endpoint for ever": (
        {"GET": events(event("/m", "endpoint"), pause_s=0.1, for_ever=True), "initialize": http(202)},
        (UpstreamFailed, "mcp.connection_closed"),
    ),
}


@pytest.mark.parametrize("answers, expected", HOSTILE_SSE.values(), ids=HOSTILE_SSE)
def test_a_hostile_server_of_the_older_transport_too(
    serve: Serve, answers: dict[str, Answer], expected: tuple[type[HotplugError], str]
) -> None:
    refused: dict[str, Answer] = {"initialize": http(405), "server/discover": http(405)}
    server = serve({**refused, **answers})
    started = time.monotonic()
    with pytest.raises(expected[0]) as caught:
        call(server, SSE)
    assert time.monotonic() - started < TIMEOUT_S + GRACE_S
    assert caught.value.code == expected[1]


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({}, "mcp.http_error"),
        ({"GET": http(401)}, "mcp.unauthorized"),
        ({"GET": http(200, b"<html>", "text/html")}, "mcp.protocol_error"),
        ({"GET": after(STREAM + event("/m", "endpoint")), "initialize": http(404)}, "mcp.http_error"),
    ],
    ids=["nothing", "credentials wanted", "a page", "an endpoint that is gone"],
)
def test_a_server_that_speaks_neither_transport(serve: Serve, answers: dict[str, Answer], code: str) -> None:
    refused: dict[str, Answer] = {"initialize": http(405), "server/discover": http(405)}
    with pytest.raises(UpstreamFailed) as caught:
        call(serve({**refused, **answers}), None)
    assert caught.value.code == code


def test_a_server_that_knows_no_discovery_and_hangs_is_asked_for_the_handshake(serve: Serve) -> None:
    server = serve({"server/discover": hang, "tools/call": rpc_result({"content": []})})
    assert call(server, None) == {"content": []}


def test_a_server_that_hangs_on_our_answers_and_on_the_farewell_costs_no_result(serve: Serve) -> None:
    server = serve(
        {
            "initialize": rpc_result(INITIALIZED, Mcp_Session_Id="s"),
            "tools/call": events(event(PING), event(DONE)),
            "response": hang,
            "DELETE": hang,
        }
    )
    started = time.monotonic()
    assert call(server, timeout_s=10) == {"content": []}
    assert time.monotonic() - started < 5


def test_an_image_of_megabytes_is_no_attack(serve: Serve) -> None:
    image = {"type": "image", "data": "A" * (3 << 20), "mimeType": "image/png"}
    done = {"jsonrpc": "2.0", "id": 2, "result": {"content": [image]}}
    server = serve({"tools/call": events(event(done))})
    assert call(server, timeout_s=20)["content"] == [image]


def test_a_tool_that_may_have_run_is_not_called_again(serve: Serve) -> None:
    server = serve({"tools/call": rpc_error(-32600, "after all", 400)})
    with pytest.raises(UpstreamFailed):
        call(server, MODERN)
    assert len(server.requests) == 1


def test_a_session_that_is_lost_is_begun_again_once(serve: Serve) -> None:
    server = serve({"initialize": rpc_result(INITIALIZED, Mcp_Session_Id="s"), "tools/call": http(404)})
    with pytest.raises(UpstreamFailed):
        call(server)
    assert sum(b'"tools/call"' in request for request in server.requests) == 2


def test_no_cookie_is_kept(serve: Serve) -> None:
    server = serve(
        {
            "initialize": rpc_result(INITIALIZED, Set_Cookie="sid=1; Path=/"),
            "tools/call": rpc_result({"content": []}),
        }
    )
    call(server)
    assert all(b"cookie" not in request.lower() for request in server.requests)


def test_a_session_is_named_in_what_follows_and_ended(serve: Serve) -> None:
    server = serve(
        {
            "initialize": rpc_result(INITIALIZED, Mcp_Session_Id="s-1"),
            "tools/call": rpc_result({"content": []}),
        }
    )
    call(server)
    assert [b"mcp-session-id: s-1" in request.lower() for request in server.requests] == [
        False,
        True,
        True,
        True,
    ]
    assert server.requests[-1].startswith(b"DELETE /mcp ")


def test_the_session_of_a_call_that_is_given_up_is_ended(serve: Serve) -> None:
    server = serve({"initialize": rpc_result(INITIALIZED, Mcp_Session_Id="s-1"), "tools/call": hang})
    with pytest.raises(UpstreamTimeout):
        call(server)
    assert any(request.startswith(b"DELETE /mcp ") for request in server.requests)


@pytest.mark.parametrize(
    ("message", "expected"), [(PING, NOT_MCP), (NOTE, TOO_LARGE)], ids=["requests", "notifications"]
)
def test_a_flood_ends_long_before_the_deadline(
    serve: Serve, message: dict[str, Any], expected: tuple[type[HotplugError], str]
) -> None:
    server = serve({"tools/call": events(event(message), for_ever=True)})
    with pytest.raises(expected[0]) as caught:
        call(server, timeout_s=60)
    assert caught.value.code == expected[1]


def test_nothing_of_a_conversation_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve({"tools/call": http(200, b'{"secret-answer": 1}')})
    with caplog.at_level(logging.DEBUG), pytest.raises(UpstreamFailed):
        call(server)
    assert "secret-answer" not in caplog.text
    assert "t0ken" not in caplog.text


def pages(next_cursor: Callable[[int], str], tools: int = 1) -> Answer:
    """A listing without end, with the cursors of a function of the page's number."""
    asked: list[int] = []

    def answer(conn: socket.socket, request: bytes) -> None:
        asked.append(1)
        tool = {"name": f"t{len(asked)}", "inputSchema": {"type": "object"}}
        result = {"tools": [tool] * tools, "nextCursor": next_cursor(len(asked))}
        reaction = rpc_result(result)
        assert not isinstance(reaction, bytes)
        reaction(conn, request)

    return answer


@pytest.mark.parametrize(
    ("answer", "code", "listings"),
    [
        (pages(lambda number: "same"), "mcp.protocol_error", 2),
        (pages(lambda number: str(number % 3)), "mcp.protocol_error", 4),
        (pages(str), "mcp.listing_too_long", 50),
        (pages(str, tools=167), "mcp.listing_too_long", 3),
        (rpc_result({"tools": [{"name": "t"}]}), "mcp.protocol_error", 1),
        (rpc_error(-32601, "no tools here"), "mcp.rpc_error", 1),
    ],
)
def test_a_listing_without_end_is_refused(serve: Serve, answer: Answer, code: str, listings: int) -> None:
    server = serve({"tools/list": answer})
    with pytest.raises(UpstreamFailed) as caught:
        client.list_tools(
            HttpOut([f"127.0.0.1:{server.port}"]),
            f"http://127.0.0.1:{server.port}/mcp",
            {},
            timeout_s=20,
            dialect=HANDSHAKE,
        )
    assert caught.value.code == code
    assert sum(b'"tools/list"' in request for request in server.requests) == listings
