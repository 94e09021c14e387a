"""Calls MCP servers that tenants registered: what a function that serves one request at a time uses.

The SDK is asynchronous and takes most of a second to import; both begin with the first call. Each call is a
conversation of its own: it connects, asks, ends the session, and leaves nothing behind.

All three functions raise

errors.Invalid
    `http.invalid_url`, `http.invalid_request`, `mcp.reserved_header`.
errors.Forbidden
    `http.forbidden_address`, `http.host_not_granted`.
errors.UpstreamFailed
    `mcp.unauthorized`, `mcp.forbidden`, `mcp.http_error` (`upstreamStatus` in the extensions), `mcp.rpc_error`
    (`rpcCode`, `rpcMessage`, and `upstreamStatus` where it was not 2xx), `mcp.version_unsupported`,
    `mcp.connection_closed`, `mcp.protocol_error`, and those of `HttpOut.request`.
errors.UpstreamTimeout
    The time is over, whatever the server was doing.
guards.NetworkInsideUnit
    A unit of work is open.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from chalicelib.core import guards
from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.core.strict_json import escape
from chalicelib.tools.mcp_client.dialect import Dialect, ServerInfo, ToolListing

if TYPE_CHECKING:
    from chalicelib.tools.mcp_client.connection import Connection
    from chalicelib.tools.mcp_client.http_transport import StreamingHttp

# The protocol's own: a credential in one of them would be replaced, or would break the conversation.
_RESERVED = frozenset({"accept", "cache-control", "content-type", "last-event-id"})
_RESERVED_PREFIX = "mcp-"
_T = TypeVar("_T")


def probe(
    http: StreamingHttp,
    url: str,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    allowed_hosts: Collection[str] | None = None,
) -> ServerInfo:
    """Return who answers at a URL, and how it is spoken to.

    Parameters
    ----------
    http
        The outbound client.
    headers
        The caller's credentials, ready to be sent. They go to the URL's origin only.
    timeout_s
        For everything together; `http` has a limit of its own for each request.
    allowed_hosts
        As `HttpOut.request`.
    """

    async def work(connection: Connection) -> ServerInfo:
        return connection.server

    return _converse(http, url, headers, timeout_s, allowed_hosts, None, work)


def list_tools(
    http: StreamingHttp,
    url: str,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    dialect: Dialect | None = None,
    allowed_hosts: Collection[str] | None = None,
) -> ToolListing:
    """Return all tools of a server, as it lists them, and what `probe` returns.

    Of a server of 2026-07-28, tools with invalid `x-mcp-header` annotations are missing, as it demands.

    Parameters
    ----------
    dialect
        What an earlier call found; saves the negotiation. One that is outdated does no harm.

    Raises
    ------
    errors.UpstreamFailed
        Besides those of the module: `mcp.listing_too_long`, beyond 500 tools or 50 pages.
    """
    from chalicelib.tools.mcp_client import requests

    return _converse(http, url, headers, timeout_s, allowed_hosts, dialect, requests.list_tools)


def call_tool(
    http: StreamingHttp,
    url: str,
    headers: Mapping[str, str],
    name: str,
    arguments: Mapping[str, Any],
    *,
    timeout_s: float,
    dialect: Dialect | None = None,
    allowed_hosts: Collection[str] | None = None,
) -> dict[str, Any]:
    """Call a tool, at most once, and return its CallToolResult as the server sent it, unknown members too.

    Its `isError` says whether the tool failed; that is a result and raises nothing. `structuredContent` is not
    validated against the tool's output schema.

    Parameters
    ----------
    dialect
        As `list_tools`.

    Raises
    ------
    errors.UpstreamFailed
        Besides those of the module: `mcp.input_required`.
    """
    from chalicelib.tools.mcp_client import requests

    async def work(connection: Connection) -> dict[str, Any]:
        return await requests.call_tool(connection, name, arguments)

    return _converse(http, url, headers, timeout_s, allowed_hosts, dialect, work)


def _converse(
    http: StreamingHttp,
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    allowed_hosts: Collection[str] | None,
    dialect: Dialect | None,
    work: Callable[[Connection], Awaitable[_T]],
) -> _T:
    ends = time.monotonic() + timeout_s
    guards.forbid_in_unit("http")
    if not timeout_s > 0:
        raise ValueError("timeout_s must be positive")
    parse_url(url)
    _refuse_reserved(headers)
    import anyio

    from chalicelib.tools.mcp_client.connection import converse
    from chalicelib.tools.mcp_client.http_transport import Endpoint

    endpoint = Endpoint(http, url, dict(headers), ends, allowed_hosts)
    return anyio.run(converse, endpoint, dialect, work)


def _refuse_reserved(headers: Mapping[str, str]) -> None:
    violations = [
        Violation(f"/headers/{escape(name)}", "mcp.reserved_header", "this header belongs to the protocol")
        for name in headers
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIX)
    ]
    if violations:
        raise Invalid("The headers are refused.", code="mcp.reserved_header", errors=violations[:100])
