from __future__ import annotations

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from chalicelib.core.errors import Forbidden, UpstreamFailed, UpstreamTimeout
from chalicelib.tools.mcp_client.failures import MAX_QUOTED, refusal, translate

FORBIDDEN = Forbidden("x", code="http.forbidden_address")


def rpc(code: int, message: str = "no") -> MCPError:
    return MCPError(code=code, message=message)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "http.redirect_refused"),
        (308, "http.redirect_refused"),
        (400, "mcp.http_error"),
        (401, "mcp.unauthorized"),
        (403, "mcp.forbidden"),
        (404, "mcp.http_error"),
        (429, "mcp.http_error"),
        (500, "mcp.http_error"),
    ],
)
def test_a_status_has_one_error(status: int, code: str) -> None:
    error = refusal(status)
    assert (error.code, error.extensions) == (code, {"upstreamStatus": status})


@pytest.mark.parametrize(
    ("error", "status", "explained", "code"),
    [
        (ExceptionGroup("a", [ValueError(), ExceptionGroup("b", [FORBIDDEN])]), 500, False, FORBIDDEN.code),
        (httpx2.SSEError("too long: secret"), 200, False, "http.response_too_large"),
        (rpc(-32603, "Server returned an error response"), 500, False, "mcp.http_error"),
        (rpc(-32601, "Not Found"), 404, False, "mcp.http_error"),
        (rpc(-32602), 400, True, "mcp.rpc_error"),
        (rpc(-32602), 200, False, "mcp.rpc_error"),
        (ExceptionGroup("a", [rpc(-32602)]), 200, False, "mcp.rpc_error"),
        (rpc(-32022), 400, True, "mcp.version_unsupported"),
        (rpc(-32700, "Failed to parse: secret"), 200, False, "mcp.protocol_error"),
        (rpc(-32000, "Connection closed"), 200, False, "mcp.connection_closed"),
        (rpc(-32000, "SSE stream ended without a response"), 200, False, "mcp.connection_closed"),
        (rpc(-32000, "busy"), 200, False, "mcp.rpc_error"),
        (RuntimeError("Unsupported protocol version: secret"), 200, False, "mcp.protocol_error"),
        (RuntimeError(), None, False, "mcp.protocol_error"),
    ],
)
def test_what_the_sdk_raises_becomes_one_error(
    error: Exception, status: int | None, explained: bool, code: str
) -> None:
    translated = translate(error, status, explained)
    assert translated.code == code
    assert "secret" not in repr((translated.detail, translated.extensions))


@pytest.mark.parametrize("error", [rpc(-32001), TimeoutError(), ExceptionGroup("a", [TimeoutError()])])
def test_lateness_is_a_timeout(error: Exception) -> None:
    assert isinstance(translate(error, 200, False), UpstreamTimeout)


def test_a_server_is_quoted_within_bounds() -> None:
    translated = translate(rpc(-32602, "x" * 100_000), 422, True)
    assert isinstance(translated, UpstreamFailed)
    assert translated.extensions == {"upstreamStatus": 422, "rpcCode": -32602, "rpcMessage": "x" * MAX_QUOTED}
