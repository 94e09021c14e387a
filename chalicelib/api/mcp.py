"""/api/v1/mcp: Hotplug as an MCP server."""

from __future__ import annotations

from typing import Any, NoReturn

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.request import Answer, Request
from chalicelib.core import process
from chalicelib.core.errors import MethodNotAllowed
from chalicelib.core.settings import ONE_MIB, settings
from chalicelib.mcp import protocol

blueprint = Blueprint(__name__)

MAX_BODY_BYTES = ONE_MIB
MESSAGE: dict[str, Any] = {
    "title": "JsonRpcMessage",
    "description": "A JSON-RPC 2.0 message, or an array of them (MCP 2025-03-26 only).",
    "type": ["object", "array"],
}


@endpoint(
    blueprint, "POST", "/mcp", role="caller", body=MESSAGE, raw_body=True, max_body_bytes=MAX_BODY_BYTES,
    rights=("database", "open_secrets", "presign", "invoke_runtime", "internet", "ask_model"), memory_mb=1769,
    errors=(503,),
    returns={200: MESSAGE, 202: None, 400: MESSAGE, 403: MESSAGE, 404: MESSAGE, 406: MESSAGE},
    summary="The Model Context Protocol: list and call tools",
)  # fmt: skip
def call_mcp(request: Request) -> Answer:
    # What offers tools is a third of the import, and none of it is for GET and DELETE, which are functions too.
    from chalicelib.mcp.flow_runs import FlowRuns
    from chalicelib.mcp.plugin_actions import PluginActions
    from chalicelib.mcp.service import ToolServer
    from chalicelib.mcp.tool_operations import ToolOperations
    from chalicelib.plugins.services import plugin_services
    from chalicelib.tools.services import tool_services

    caller, cache = request.caller, request.cache
    server = ToolServer(
        caller,
        [
            PluginActions(plugin_services(), process.heartbeat()),
            ToolOperations(tool_services()),
            FlowRuns(process.database(), cache),
        ],
        cursor_key=cache.version("apps")[1].encode(),
        admit=lambda: process.rate_limit().take(caller.app_id),
    )
    reply = protocol.answer(
        request.body,
        request.headers,
        server,
        allowed_origins=settings().allowed_origins,
        max_bytes=MAX_BODY_BYTES,
    )
    return Answer(reply.body, reply.status)


@endpoint(
    blueprint, "GET", "/mcp", role="caller", returns={}, errors=(405,),
    summary="No stream of server messages is offered",
)  # fmt: skip
def open_mcp_stream(request: Request) -> NoReturn:
    raise _post_only()


@endpoint(
    blueprint, "DELETE", "/mcp", role="caller", returns={}, errors=(405,),
    summary="There are no sessions to end",
)  # fmt: skip
def end_mcp_session(request: Request) -> NoReturn:
    raise _post_only()


def _post_only() -> MethodNotAllowed:
    return MethodNotAllowed("MCP is spoken by POST alone.", extensions={"allow": ["POST"]})
