"""An outbound client whose answers are given, read as they arrive; see `http_transport.StreamingHttp`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.errors import HotplugError, UpstreamFailed

URL = "https://mcp.example.org/mcp"
JSON = (("content-type", "application/json"),)
EVENTS = (("content-type", "text/event-stream; charset=utf-8"),)


@dataclass
class FakeAnswer:
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON
    chunks: Iterator[bytes] = field(default_factory=lambda: iter([b"{}"]))
    url: str = URL


class FakeCall:
    """A call whose answer, or failure, is given; blocked ones wait until they are closed."""

    def __init__(self, answer: FakeAnswer | HotplugError | None) -> None:
        self.answer = answer
        self.closed = threading.Event()
        self.left = threading.Event()

    def __enter__(self) -> FakeAnswer:
        if self.answer is None:
            assert self.closed.wait(10), "nobody ended the call"
            raise UpstreamFailed(code="http.closed")
        if isinstance(self.answer, HotplugError):
            raise self.answer
        return self.answer

    def __exit__(self, *_: object) -> None:
        self.left.set()

    def close(self) -> None:
        self.closed.set()


class FakeHttp:
    """Answers as told, and keeps what was asked."""

    def __init__(self, *answers: FakeAnswer | HotplugError | None) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.calls: list[FakeCall] = []

    def stream(self, method: str, url: str, **options: Any) -> FakeCall:
        self.asked.append({"method": method, "url": url, **options})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.calls.append(FakeCall(answer))
        return self.calls[-1]
