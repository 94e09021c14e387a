"""Sending a bound request with its credentials, and reading what comes back. Knows no table; nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.answers import wire_bytes
from chalicelib.core.errors import HotplugError, UpstreamFailed
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.client import OutResponse
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools.authorization import Authorization, Reveal, TimeLeft, authorize
from chalicelib.tools.binding.answers import CheckedAnswer, read_answer
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.request import BoundRequest
from chalicelib.tools.tokens import Tokens

DEFAULT_TIMEOUT_MS = 20_000
MAX_TIMEOUT_MS = 25_000
# After a failed connection or a 502, 503 or 504; of idempotent methods only.
RETRIES = 2
# Of an answer as it travels, base64 and the escapes of JSON included.
MAX_ANSWER_BYTES = 5 * ONE_MIB
# Of an error's body, which is for people to read; a longer one is left out.
MAX_ERROR_BYTES = 256 * 1024
UNAUTHORIZED = 401


@dataclass(frozen=True)
class Options:
    """How a call is made.

    Parameters
    ----------
    timeout_ms
        Milliseconds for everything together, retries and a request for a token included, 1..25,000.
    strict
        Refuse an answer that the document does not describe, instead of reporting what is wrong with it.
    repair_nulls
        Take a null where the document declares a simple type for that type's empty value.
    """

    timeout_ms: int = DEFAULT_TIMEOUT_MS
    strict: bool = True
    repair_nulls: bool = False


@dataclass(frozen=True)
class ToolAnswer:
    """A good answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    checked: CheckedAnswer
    duration_ms: float

    def as_dict(self) -> dict[str, Any]:
        """Return the answer to the caller."""
        return {
            "status": self.status,
            "headers": dict(self.headers),
            "body": self.checked.body,
            "durationMs": self.duration_ms,
            "violations": [one.as_dict() for one in self.checked.violations],
            "repaired": [f"/body{pointer}" for pointer in self.checked.repaired],
        }


@dataclass(frozen=True)
class ReadyCall:
    """A call that may be sent.

    Parameters
    ----------
    owner
        Whose tokens it uses: (app, tool).
    """

    plan: CallPlan
    request: BoundRequest
    reveal: Reveal
    owner: tuple[str, ...]
    options: Options = field(default_factory=Options)


def call(http: AppHttp, tokens: Tokens, ready: ReadyCall) -> ToolAnswer:
    """Send a call and return its answer. Not inside a unit of work.

    Raises
    ------
    errors.Conflict
        `tool.credentials_missing`
    errors.UpstreamFailed
        `tool.upstream_error` with `upstream: {status, headers, body}`, `tool.invalid_answer`, `tool.answer_too_large`,
        or what the outbound client says.
    errors.UpstreamTimeout, errors.Forbidden, errors.Unavailable
    """
    time_left = TimeLeft(ready.options.timeout_ms / 1000)
    answer, authorization = _send(http, tokens, ready, time_left)
    if answer.status == UNAUTHORIZED and authorization.tokens:
        # A token from memory may have been withdrawn before it expired; 401 says that nothing was done.
        tokens.forget(authorization.tokens)
        answer, _ = _send(http, tokens, ready, time_left)
    headers = _joined(answer)
    success = 200 <= answer.status < 300
    checked = read_answer(
        ready.plan,
        answer.status,
        answer.headers,
        answer.body,
        strict=ready.options.strict and success,
        repair_nulls=ready.options.repair_nulls,
    )
    if not success:
        raise _upstream_error(answer.status, headers, checked.body)
    found = ToolAnswer(answer.status, headers, checked, float(answer.duration_ms))
    if wire_bytes(found.as_dict()) > MAX_ANSWER_BYTES:
        raise answer_too_large()
    return found


def answer_too_large() -> UpstreamFailed:
    """Return the error for an answer that no function can hand on."""
    return UpstreamFailed(
        f"The answer takes more than {MAX_ANSWER_BYTES} bytes as it travels.", code="tool.answer_too_large"
    )


def _send(
    http: AppHttp, tokens: Tokens, ready: ReadyCall, time_left: TimeLeft
) -> tuple[OutResponse, Authorization]:
    request = ready.request
    security, send = ready.plan.operation.security, time_left.bounded(http.request)
    authorization = authorize(
        security, request.base_url, ready.reveal, tokens, ready.owner, send, time_left.seconds()
    )
    for one in authorization.additions:
        if one.location == "query":
            request = request.with_query(one.name, one.value)
        elif one.location == "cookie":
            request = request.with_cookie(one.name, one.value)
        else:
            request = request.with_header(one.name, one.value)
    answer = http.request(
        request.method,
        request.url,
        headers=dict(request.headers),
        body=request.body,
        timeout_s=time_left.seconds(),
        retries=RETRIES,
    )
    return answer, authorization


def _joined(answer: OutResponse) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in answer.headers:
        # RFC 9110, 5.3: a list. Set-Cookie is none, but a JSON object has one member of a name.
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _upstream_error(status: int, headers: Mapping[str, str], body: Any) -> HotplugError:
    upstream = {"status": status, "headers": dict(headers), "body": body, "truncated": False}
    if _size(body) > MAX_ERROR_BYTES:
        upstream |= {"body": None, "truncated": True}
    return UpstreamFailed(
        f"The server answered with status {status}.",
        code="tool.upstream_error",
        extensions={"upstream": upstream},
    )


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
