"""Sending a bound request with its credentials, and reading what comes back. Knows no table; nothing is stored."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.errors import HotplugError, UpstreamFailed
from chalicelib.core.http_out import OutResponse
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools.authorization import Authorization, Reveal, Tokens, authorize
from chalicelib.tools.binding.answers import CheckedAnswer, read_answer
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.request import BoundRequest
from chalicelib.tools.services import Http

DEFAULT_TIMEOUT_MS = 20_000
MAX_TIMEOUT_MS = 25_000
# After a failed connection or a 502, 503 or 504; of idempotent methods only.
RETRIES = 2
# A function answers with at most 6 MB; base64 and the escapes of JSON have been added by then.
MAX_ANSWER_BYTES = 5 * ONE_MIB
# Of an error's body, which is for people to read.
MAX_ERROR_BYTES = 64 * 1024
UNAUTHORIZED = 401


@dataclass(frozen=True)
class Options:
    """How a call is made.

    Parameters
    ----------
    timeout_ms
        Milliseconds for each request and its retries, 1..25,000.
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
            "repaired": list(self.checked.repaired),
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


def call(http: Http, tokens: Tokens, ready: ReadyCall) -> ToolAnswer:
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
    answer, authorization = _send(http, tokens, ready)
    if answer.status == UNAUTHORIZED and authorization.tokens:
        # A token from memory may have been withdrawn before it expired; 401 says that nothing was done.
        tokens.forget(authorization.tokens)
        answer, _ = _send(http, tokens, ready)
    headers = _joined(answer)
    if not 200 <= answer.status < 300:
        raise _upstream_error(answer, headers)
    checked = read_answer(
        ready.plan,
        answer.status,
        answer.headers,
        answer.body,
        strict=ready.options.strict,
        repair_nulls=ready.options.repair_nulls,
    )
    found = ToolAnswer(answer.status, headers, checked, float(answer.duration_ms))
    if len(json.dumps(found.as_dict(), ensure_ascii=False).encode()) > MAX_ANSWER_BYTES:
        raise UpstreamFailed(
            f"The answer takes more than {MAX_ANSWER_BYTES} bytes as JSON.", code="tool.answer_too_large"
        )
    return found


def _send(http: Http, tokens: Tokens, ready: ReadyCall) -> tuple[OutResponse, Authorization]:
    request = ready.request
    authorization = authorize(
        ready.plan.operation.security, request.base_url, ready.reveal, tokens, ready.owner, http.request
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
        timeout_s=ready.options.timeout_ms / 1000,
        retries=RETRIES,
    )
    return answer, authorization


def _joined(answer: OutResponse) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in answer.headers:
        # RFC 9110, 5.3: a list. Set-Cookie is none, but a JSON object has one member of a name.
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _upstream_error(answer: OutResponse, headers: Mapping[str, str]) -> HotplugError:
    upstream = {"status": answer.status, "headers": dict(headers), "body": _readable(answer.body)}
    return UpstreamFailed(
        f"The server answered with status {answer.status}.",
        code="tool.upstream_error",
        extensions={"upstream": upstream},
    )


def _readable(body: bytes) -> Any:
    """Return the body of an error as JSON, else as text, else as base64; cut where it is long."""
    if len(body) <= MAX_ERROR_BYTES:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            # Not JSON, which an error need not be.
            pass
    try:
        return body[:MAX_ERROR_BYTES].decode("utf-8", "strict" if len(body) <= MAX_ERROR_BYTES else "ignore")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body[:MAX_ERROR_BYTES]).decode()}
