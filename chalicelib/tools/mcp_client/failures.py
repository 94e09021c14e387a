"""How a conversation that failed is reported: one error of the tree, never a group of the SDK's exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chalicelib.core.errors import HotplugError, UpstreamFailed, UpstreamTimeout

if TYPE_CHECKING:
    from mcp.shared.exceptions import MCPError

MAX_QUOTED = 500
"""Characters of a server's own message in an error of ours."""

# How the SDK words its own errors under a code (-32000) that servers use as well.
_OWN_TEXTS = ("Connection closed", "SSE stream ")


def refusal(status: int) -> UpstreamFailed:
    """Return how an HTTP status outside of 2xx is reported; `extensions` name it."""
    extensions = {"upstreamStatus": status}
    if status == 401:
        return UpstreamFailed(
            "The MCP server wants credentials, or does not accept these.",
            code="mcp.unauthorized",
            extensions=extensions,
        )
    if status == 403:
        return UpstreamFailed(
            "The MCP server forbids the request.", code="mcp.forbidden", extensions=extensions
        )
    if 300 <= status < 400:
        return UpstreamFailed(
            "The MCP server redirects; register the URL that it leads to.",
            code="http.redirect_refused",
            extensions=extensions,
        )
    return UpstreamFailed(
        f"The MCP server answered with status {status}.", code="mcp.http_error", extensions=extensions
    )


def translate(error: Exception, status: int | None, explained: bool) -> HotplugError:
    """Return the error that a caller gets for what the SDK raised.

    Parameters
    ----------
    error
        Whatever came out of it, an ExceptionGroup too.
    status
        Of the newest answer to a POST. The SDK hides it behind a JSON-RPC error of its own making.
    explained
        Whether that answer held a JSON-RPC error, which then is what the SDK raised.
    """
    from httpx2 import SSEError
    from mcp.shared.exceptions import MCPError

    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, HotplugError):
            return leaf
    if any(isinstance(leaf, SSEError) for leaf in leaves):
        return UpstreamFailed("An event of the MCP server is too long.", code="http.response_too_large")
    refused = refusal(status) if status is not None and status >= 300 else None
    if refused and not explained:
        return refused
    for leaf in leaves:
        if isinstance(leaf, MCPError):
            return _rpc_error(leaf, refused)
    if any(isinstance(leaf, TimeoutError) for leaf in leaves):
        return late()
    return not_mcp()


def late() -> UpstreamTimeout:
    """Return the error of a conversation that ran out of time."""
    return UpstreamTimeout("The MCP server did not answer in time.")


def not_mcp() -> UpstreamFailed:
    """Return the error of an answer that the protocol does not allow; its content is not repeated."""
    return UpstreamFailed("The server does not speak MCP as it is defined.", code="mcp.protocol_error")


def _rpc_error(error: MCPError, refused: UpstreamFailed | None) -> HotplugError:
    from mcp_types import CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT, UNSUPPORTED_PROTOCOL_VERSION

    if error.code == REQUEST_TIMEOUT:
        return late()
    if error.code == PARSE_ERROR:  # the SDK's text quotes what could not be parsed
        return not_mcp()
    if error.code == CONNECTION_CLOSED and error.message.startswith(_OWN_TEXTS):
        return UpstreamFailed(
            "The MCP server ended the connection before it had answered.", code="mcp.connection_closed"
        )
    extensions = dict(refused.extensions) if refused else {}
    if error.code == UNSUPPORTED_PROTOCOL_VERSION:
        return UpstreamFailed(
            "The MCP server speaks no protocol version that is spoken here.",
            code="mcp.version_unsupported",
            extensions=extensions,
        )
    extensions |= {"rpcCode": error.code, "rpcMessage": error.message[:MAX_QUOTED]}
    return UpstreamFailed(
        f"The MCP server answered with JSON-RPC error {error.code}.",
        code="mcp.rpc_error",
        extensions=extensions,
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
