"""`context.http` of a plugin, as the runtime sees it: a request described in JSON, made here, only to
granted hosts.

A plugin has no socket of its own. What it may reach is what an admin granted, and HttpOut checks every
address.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from chalicelib.core.errors import HotplugError
from chalicelib.plugins.runtime.faults import Deadline

if TYPE_CHECKING:
    from chalicelib.core.outbound.client import HttpOut

MAX_CALLS = 100
"""Per execution: a plugin is a step of a workflow, not a crawler."""

DEFAULT_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Response:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


class Fetcher(Protocol):
    """Makes one request; raises errors of core/errors where it may not, or cannot."""

    def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_ms: int,
        allowed_hosts: Collection[str],
    ) -> Response: ...


class OutboundFetcher:
    """The real one, over core/outbound; made on the first call, so that plugins without network never load
    it.

    Parameters
    ----------
    client
        The environment's where none is given.
    """

    def __init__(self, client: HttpOut | None = None) -> None:
        from chalicelib.core.outbound.client import HttpOut

        self._client = client or HttpOut.from_environment(os.environ)

    def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_ms: int,
        allowed_hosts: Collection[str],
    ) -> Response:
        answer = self._client.request(
            method, url, headers=headers, body=body, timeout_s=timeout_ms / 1000, allowed_hosts=allowed_hosts
        )
        return Response(answer.status, answer.headers, answer.body)


class Gateway:
    """The calls of one execution.

    Parameters
    ----------
    fetcher
        None where this runtime function has no network.
    hosts
        What was granted: `host` or `host:port`.
    deadline
        Of the execution; no call outlasts it.
    """

    def __init__(self, fetcher: Fetcher | None, hosts: Collection[str], deadline: Deadline) -> None:
        self._fetcher = fetcher
        self._hosts = hosts
        self._deadline = deadline
        self._calls = 0

    def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return `{status, headers, bodyBase64}` or `{error: {code, message}}` for a plugin's request.

        Parameters
        ----------
        request
            `{method, url, headers?, body? (text) or bodyBase64?, timeoutMs?}`, written by the plugin.
        """
        self._calls += 1
        if self._fetcher is None or not self._hosts:
            return _error("http.not_granted", "This plugin was not granted any host.")
        if self._calls > MAX_CALLS:
            return _error("http.too_many_calls", f"More than {MAX_CALLS} requests in one execution.")
        try:
            prepared = _prepare(request, self._deadline)
        except (ValueError, TypeError) as error:
            return _error("http.bad_request", str(error))
        try:
            response = self._fetcher.fetch(**prepared, allowed_hosts=self._hosts)
        except HotplugError as error:
            return _error(error.code, error.detail)
        return {
            "status": response.status,
            "headers": _joined(response.headers),
            "bodyBase64": base64.b64encode(response.body).decode("ascii"),
        }


def _prepare(request: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
    method, url = request.get("method"), request.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        raise ValueError("method and url must be text")
    headers = request.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("headers must be an object of texts")
    timeout = request.get("timeoutMs")
    asked = timeout if isinstance(timeout, int) and timeout > 0 else DEFAULT_TIMEOUT_MS
    return {
        "method": method,
        "url": url,
        "headers": headers,
        "body": _body(request),
        "timeout_ms": max(1, min(asked, int(deadline.left() * 1000))),
    }


def _body(request: Mapping[str, Any]) -> bytes | None:
    encoded, text = request.get("bodyBase64"), request.get("body")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError("bodyBase64 is not base64") from error
    if text is None or isinstance(text, str):
        return None if text is None else text.encode("utf-8")
    raise ValueError("body must be text")


def _joined(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
