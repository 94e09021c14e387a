"""One conversation with an MCP server: the transport and the version are agreed on, the work is done, all is closed.

The SDK's client negotiates the version: it asks for the stateless revisions (2026-07-28) first and falls back to
the handshake of the older ones. The transport is ours to find, by the rule that revision 2025-11-25 gives under
"Backwards Compatibility" of its transports: a server that answers the POST with 400, 404 or 405 is asked with a
GET for the event stream of HTTP+SSE.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import httpx2
import mcp_types
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel

from chalicelib.core.errors import HotplugError
from chalicelib.core.settings import VERSION
from chalicelib.tools.mcp_client.dialect import Dialect, ServerInfo, Transport
from chalicelib.tools.mcp_client.failures import late, not_mcp, translate
from chalicelib.tools.mcp_client.http_transport import MAX_BYTES, Endpoint, HttpTransport

# The statuses of "no such method here": no tool has run, and another way to speak may be tried.
_ANOTHER_WAY = frozenset({400, 404, 405})
# For an HTTP+SSE server to name the URL that it is spoken to at. The SDK waits for ever when that URL lies on
# another origin, which it refuses.
SSE_OPENING_S = 10.0
MAX_REDIRECTS = 5
# What is kept of the time to end the session, and with it a tool that runs for nobody.
FAREWELL_SHARE = 0.1
FAREWELL_MAX_S = 1.0

_T = TypeVar("_T")


class _AsSent(RootModel[dict[str, Any]]):
    """A result with all that came."""


class Connection:
    """An open conversation.

    Parameters
    ----------
    client
        The SDK's client, connected.
    transport
        What it runs over.
    requests_end
        When no answer is waited for any longer, on anyio's clock.
    """

    def __init__(self, client: Client, transport: Transport, requests_end: float) -> None:
        self.client = client
        self._transport = transport
        self._requests_end = requests_end

    @property
    def is_stateless(self) -> bool:
        """Whether the version has no handshake (2026-07-28)."""
        return self.client.protocol_version in MODERN_PROTOCOL_VERSIONS

    @property
    def server(self) -> ServerInfo:
        """The server as it described itself."""
        says = self.client.server_info
        return ServerInfo(
            dialect=Dialect(self._transport, self.client.protocol_version),
            name=says.name if says else None,
            version=says.version if says else None,
            instructions=self.client.instructions,
        )

    async def request(self, request: mcp_types.ClientRequest) -> dict[str, Any]:
        """Send a request and return its result as the JSON that came, checked against the protocol version.

        The SDK's own methods return models of their fields alone; what a server adds would be lost, and
        `call_tool` lists all tools again to validate what it returns.
        """
        left = self._requests_end - anyio.current_time()
        result = await self.client.session.send_request(
            request, _AsSent, request_read_timeout_seconds=max(left, 0.0)
        )
        return result.root


async def converse(
    endpoint: Endpoint, dialect: Dialect | None, work: Callable[[Connection], Awaitable[_T]]
) -> _T:
    """Return what `work` returns about the server.

    Parameters
    ----------
    dialect
        How the server was spoken to before; None to find out. One that the server refuses is found out again,
        unless a tool may have run.

    Raises
    ------
    errors.HotplugError
        What `client` documents.
    """
    _silence()
    if dialect is not None:
        known = _Attempt(endpoint, dialect.transport, _mode(dialect))
        try:
            return await known.run(work)
        except HotplugError as error:
            if not known.may_be_outdated(error):
                raise
    first = _Attempt(endpoint, "streamable_http", "auto")
    try:
        return await first.run(work)
    except HotplugError as error:
        if first.is_connected or error.extensions.get("upstreamStatus") not in _ANOTHER_WAY:
            raise
        older = _Attempt(endpoint, "sse", "legacy")
        try:
            return await older.run(work)
        except HotplugError as unspoken:
            if older.is_answered or unspoken.code != "mcp.http_error":
                raise
        raise  # neither is spoken here: the status of the newer transport says more


class _Attempt:
    """One try at a conversation, in one way to speak."""

    def __init__(self, endpoint: Endpoint, kind: Transport, mode: str) -> None:
        self._endpoint = endpoint
        self._kind: Transport = kind
        self._mode = mode
        self._scope = anyio.CancelScope()
        self._http = HttpTransport(endpoint, kind, self._scope.cancel)
        self.is_connected = False
        self._is_open = kind == "streamable_http"

    @property
    def is_answered(self) -> bool:
        """Whether the server said yes to any request."""
        return self._http.answered

    def may_be_outdated(self, error: HotplugError) -> bool:
        """Return whether the way to speak was refused before a tool could run."""
        if error.code == "mcp.version_unsupported":
            return True
        refused = error.extensions.get("upstreamStatus") in _ANOTHER_WAY
        if self.is_connected:
            return refused and error.code == "mcp.http_error"
        # A server that dropped HTTP+SSE may open another event stream where that one was.
        return refused or (not self._is_open and error.code == "mcp.protocol_error")

    async def run(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        left = self._endpoint.left()
        ends = anyio.current_time() + left
        requests_end = ends - min(left * FAREWELL_SHARE, FAREWELL_MAX_S)
        self._scope.deadline = ends
        results: list[_T] = []
        problems: list[HotplugError] = []
        with self._scope, self._reporting(problems):
            async with self._client() as client:
                self.is_connected = True
                # Inside, so that the session is ended, and nothing that goes wrong then hides what went before.
                with self._reporting(problems):
                    results.append(await work(Connection(client, self._kind, requests_end)))
        if results:
            return results[0]
        if not problems:
            raise self._reported(None)
        # Of an event that is too long, the request itself learns only that the stream has ended.
        raise problems[-1] if problems[-1].code == "http.response_too_large" else problems[0]

    @contextmanager
    def _reporting(self, problems: list[HotplugError]) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - hostile answers come out of the SDK as anything, in groups
            reported = self._reported(error)
            if reported.__traceback__ is None:  # not one that was raised, and is somewhere in `error`
                reported.__cause__ = error
            problems.append(reported)

    def _reported(self, problem: Exception | None) -> HotplugError:
        if self._http.failure is not None:
            return self._http.failure
        if problem is not None:
            return translate(problem, self._http.status, self._http.explained)
        if not self._is_open and self._http.answered and self._endpoint.left() > 0:
            return not_mcp()  # an event stream that never says where messages go to
        return late()

    def _client(self) -> Client:
        streams = self._streamable_http() if self._kind == "streamable_http" else self._sse()
        return Client(
            streams,
            mode=self._mode,
            cache=None,  # each conversation has one caller and ends with its answer
            client_info=mcp_types.Implementation(name="hotplug", version=VERSION),
        )

    @asynccontextmanager
    async def _streamable_http(self) -> AsyncIterator[Any]:
        async with (
            self._httpx_client() as http,
            streamable_http_client(
                self._endpoint.url, http_client=http, max_sse_event_size=MAX_BYTES
            ) as streams,
        ):
            yield streams

    @asynccontextmanager
    async def _sse(self) -> AsyncIterator[Any]:
        ends = self._scope.deadline
        self._scope.deadline = anyio.current_time() + min(self._endpoint.left() / 2, SSE_OPENING_S)
        async with sse_client(self._endpoint.url, httpx_client_factory=self._httpx_client) as streams:
            self._is_open = True
            self._scope.deadline = ends
            yield streams

    def _httpx_client(self, *_: Any, **__: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=self._http, trust_env=False, max_redirects=MAX_REDIRECTS)


def _mode(dialect: Dialect) -> str:
    return dialect.protocol_version if dialect.protocol_version in MODERN_PROTOCOL_VERSIONS else "legacy"


def _silence() -> None:
    """Keep the SDK's loggers, which quote messages and arguments at every level, out of the log."""
    for name in ("mcp", "client", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
