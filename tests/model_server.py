"""A server of this machine that speaks OpenAI's chat completions, or Bedrock's Converse, as a script says.

It is an HTTP server like any other, reached through the client that is under test: whoever uses it sets
`HOTPLUG_PRIVATE_ENDPOINTS`, or the client's `private_endpoints`, to its `endpoint`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.internet import Answer, Server, header_of

MODEL = "small-1"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    raw: bytes

    @property
    def line(self) -> str:
        return self.raw.partition(b"\r\n")[0].decode("latin-1")

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return header_of(self.raw, name)


class ModelServer:
    """Gives its answers one after the other, the last one for ever. Used in a `with` block.

    Parameters
    ----------
    answers
        Bytes of whole answers, or what writes one to a socket: the functions below make them.
    """

    def __init__(self, *answers: Answer) -> None:
        self._server = Server(*answers)
        self.endpoint = f"127.0.0.1:{self._server.port}"
        self.origin = f"http://{self.endpoint}"
        self.url = f"{self.origin}/v1"

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def asked(self) -> list[Asked]:
        """What arrived, in that order."""
        return [Asked(raw) for raw in self._server.requests]


def http(body: bytes, status: int = 200, **headers: str) -> bytes:
    """Return any answer; `_` in a header's name stands for `-`."""
    given = {"Content-Type": "application/json", "Connection": "close"}
    given |= {name.replace("_", "-"): text for name, text in headers.items()}
    lines = "".join(f"{name}: {text}\r\n" for name, text in given.items())
    head = f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


def completion(message: Any, finish_reason: Any = "stop", **members: Any) -> bytes:
    """Return a chat completion with this message; a member that is `...` is left out."""
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": USAGE,
    } | members
    return http(json.dumps({name: value for name, value in answer.items() if value is not ...}).encode())


def said(text: str, **members: Any) -> bytes:
    """Return a chat completion that says this."""
    return completion({"role": "assistant", "content": text}, **members)


def failed(status: int, code: str | None = None, message: str = "no", **headers: str) -> bytes:
    """Return an error as OpenAI words it."""
    error = {"message": message, "type": "x", "param": None, "code": code}
    return http(json.dumps({"error": error}).encode(), status, **headers)


def converse(*blocks: Any, stop: str = "end_turn", usage: Any = None) -> bytes:
    """Return an answer of Bedrock with these blocks of content, or texts."""
    content = [{"text": block} if isinstance(block, str) else block for block in blocks]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12} if usage is None else usage,
        "metrics": {"latencyMs": 1},
    }
    return http(json.dumps(answer).encode())


def bedrock_failed(status: int, code: str, message: str = "no") -> bytes:
    """Return an error of Bedrock."""
    return http(json.dumps({"message": message}).encode(), status, x_amzn_ErrorType=f"{code}:http://x/")


def replying(choose: Callable[[Any], Answer]) -> Answer:
    """Return an answer that depends on the request's JSON."""

    def answer(conn: socket.socket, request: bytes) -> None:
        give(conn, request, choose(Asked(request).json))

    return answer


def echoing(status: int, **headers: str) -> Answer:
    """Return a failure that repeats all that arrived, the key included."""

    def answer(conn: socket.socket, request: bytes) -> None:
        conn.sendall(failed(status, message=request.decode("latin-1"), **headers))

    return answer


def after(seconds: float, then: Answer) -> Answer:
    """Return an answer that comes late."""

    def answer(conn: socket.socket, request: bytes) -> None:
        time.sleep(seconds)
        give(conn, request, then)

    return answer


def trickling(whole: bytes, pause_s: float) -> Answer:
    """Return an answer that comes byte by byte."""

    def answer(conn: socket.socket, request: bytes) -> None:
        for position in range(len(whole)):
            conn.sendall(whole[position : position + 1])
            time.sleep(pause_s)

    return answer


def silence(conn: socket.socket, request: bytes) -> None:
    """Say nothing until the client gives up."""
    conn.recv(1)


def hang_up(conn: socket.socket, request: bytes) -> None:
    """End the connection instead of answering."""


def give(conn: socket.socket, request: bytes, answer: Answer) -> None:
    """Send one answer, of either kind."""
    if isinstance(answer, bytes):
        conn.sendall(answer)
    else:
        answer(conn, request)
