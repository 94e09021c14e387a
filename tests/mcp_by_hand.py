"""MCP servers by hand, for what no SDK would say: `internet.Server(by_hand({"tools/call": rpc_result({})}))`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.internet import Answer


def by_hand(answers: Mapping[str, Answer]) -> Answer:
    """Return what answers each request by its JSON-RPC method, `response`, or HTTP method where it has no body.

    What is not named is answered as a server of 2025-11-25 does that offers no stream and keeps no session.
    """
    chosen = {**_BY_HAND, **answers}

    def answer(conn: socket.socket, request: bytes) -> None:
        kind = _kind_of(request)
        if kind is None:
            return
        reaction = chosen[kind]
        if isinstance(reaction, bytes):
            conn.sendall(reaction)
        else:
            reaction(conn, request)

    return answer


def http(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def rpc_result(result: Any, **headers: str) -> Answer:
    """Return an answer in JSON to whatever was asked."""
    return _correlated(lambda asked: http(200, _dumps(_response(asked, result=result)), **headers))


def rpc_error(code: int, message: str, status: int = 200) -> Answer:
    """Return a JSON-RPC error to whatever was asked."""
    error = {"code": code, "message": message}
    return _correlated(lambda asked: http(status, _dumps(_response(asked, error=error))))


def event(message: Any, name: str = "message") -> bytes:
    """Return a server-sent event with a JSON-RPC message, or with text."""
    data = message if isinstance(message, str) else json.dumps(message)
    return f"event: {name}\ndata: {data}\n\n".encode()


def events(*pieces: bytes, pause_s: float = 0.0, for_ever: bool = False) -> Answer:
    """Return an event stream without an end of its own, the pieces sent once or again and again."""

    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            for piece in pieces:
                conn.sendall(piece)
                time.sleep(pause_s)
            if not for_ever:
                return

    return answer


def hang(conn: socket.socket, request: bytes) -> None:
    """Say nothing until the client has gone."""
    conn.settimeout(60)
    while conn.recv(65536):
        pass


def after(start: bytes) -> Answer:
    """Return an answer that begins and never goes on."""

    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(start)
        hang(conn, request)

    return answer


INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "by hand", "version": "0"},
}


def _kind_of(request: bytes) -> str | None:
    """Return what a request asks for, None if it was given up while it was sent."""
    head, _, body = request.partition(b"\r\n\r\n")
    if not head.startswith(b"POST "):
        return head.split(b" ")[0].decode() or None
    try:
        return str(json.loads(body).get("method", "response"))
    except ValueError:
        return None


def _correlated(write: Callable[[dict[str, Any]], bytes]) -> Answer:
    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(write(json.loads(request.partition(b"\r\n\r\n")[2])))

    return answer


def _response(asked: dict[str, Any], **outcome: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked["id"], **outcome}


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


_BY_HAND: dict[str, Answer] = {
    "server/discover": http(400),
    "initialize": rpc_result(INITIALIZED),
    "notifications/initialized": http(202),
    "notifications/cancelled": http(202),
    "response": http(202),
    "GET": http(405),
    "DELETE": http(200),
}
