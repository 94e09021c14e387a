"""What is asked of an MCP server: the tools it lists, and calls of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header

from chalicelib.core import strict_json
from chalicelib.core.errors import UpstreamFailed
from chalicelib.tools.mcp_client.connection import Connection
from chalicelib.tools.mcp_client.dialect import ToolListing
from chalicelib.tools.mcp_client.failures import not_mcp

MAX_TOOLS = 500
MAX_PAGES = 50


async def list_tools(connection: Connection) -> ToolListing:
    """Return all tools of a server, page after page.

    Raises
    ------
    errors.UpstreamFailed
        `mcp.listing_too_long`; `mcp.protocol_error` also for a cursor that comes twice.
    """
    tools: list[dict[str, Any]] = []
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        params = mcp_types.PaginatedRequestParams(cursor=cursor)
        page = _sound(await connection.request(mcp_types.ListToolsRequest(params=params)))
        tools += [tool for tool in page["tools"] if not _must_be_dropped(connection, tool)]
        if len(tools) > MAX_TOOLS:
            raise _too_long()
        cursor = page.get("nextCursor")
        if cursor is None:
            return ToolListing(connection.server, tuple(tools))
        if cursor in cursors:
            raise not_mcp()
        cursors.add(cursor)
    raise _too_long()


async def call_tool(connection: Connection, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a tool as the server sent it.

    Raises
    ------
    errors.UpstreamFailed
        `mcp.input_required`: it wants to ask a person or a model something first. `mcp.protocol_error` for a
        result of a kind that is not known here.
    """
    params = mcp_types.CallToolRequestParams(name=name, arguments=dict(arguments))
    request = mcp_types.CallToolRequest(params=params)
    try:
        result = _sound(await connection.request(request))
    except MCPError as error:
        if error.code != mcp_types.HEADER_MISMATCH or not connection.is_stateless:
            raise
        # The server wants some arguments repeated in headers (x-mcp-header), which a listing tells the SDK.
        await _find(connection, name)
        result = _sound(await connection.request(request))
    kind = result.get("resultType", "complete")
    if kind == "input_required":
        raise UpstreamFailed(
            "The tool asks for further input, which is not supported.", code="mcp.input_required"
        )
    if kind != "complete":
        raise not_mcp()
    return result


async def _find(connection: Connection, name: str) -> None:
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await connection.client.list_tools(cursor=cursor)
        cursor = page.next_cursor
        if cursor is None or any(tool.name == name for tool in page.tools):
            return


def _must_be_dropped(connection: Connection, tool: Mapping[str, Any]) -> bool:
    """Return whether the tool wants arguments in headers that no client may send (2026-07-28, a MUST)."""
    return connection.is_stateless and find_invalid_x_mcp_header(tool["inputSchema"]) is not None


def _sound(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result if it can be written as JSON again: the SDK's parser lets NaN and infinities pass."""
    try:
        strict_json.canonical(result)
    except ValueError as error:
        raise not_mcp() from error
    return result


def _too_long() -> UpstreamFailed:
    return UpstreamFailed(
        f"The MCP server lists more than {MAX_TOOLS} tools or {MAX_PAGES} pages.", code="mcp.listing_too_long"
    )
