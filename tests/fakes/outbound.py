"""An outbound client of an app that answers from a list and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.outbound.client import OutResponse


def answered(
    value: Any = None, status: int = 200, *, headers: tuple[tuple[str, str], ...] = (), duration_ms: int = 5
) -> OutResponse:
    """Return a JSON answer."""
    body = b"" if value is None else json.dumps(value).encode()
    named = (("content-type", "application/json"), *headers)
    return OutResponse(status, named, body, "https://api.example", duration_ms)


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float | None
    retries: int


@dataclass
class FakeHttp:
    """Gives its answers one after the other, the last one for ever; an error among them is raised."""

    answers: list[OutResponse | Exception]
    asked: list[Asked] = field(default_factory=list)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
    ) -> OutResponse:
        """Keep the request, and answer."""
        self.asked.append(Asked(method, url, dict(headers), body, timeout_s, retries))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
