"""/api/v1/mcp/servers: MCP servers that Hotplug calls."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of, resource
from chalicelib.api.request import Answer, Request
from chalicelib.api.tool_runs import CALLS, calls_of
from chalicelib.api.tool_schemas import (
    CREDENTIALS,
    DESCRIPTION,
    EXECUTION,
    NAME,
    OPTIONAL_TEXT,
    SHARED,
    TEXT,
    TIME,
    VISIBILITY,
)
from chalicelib.core.errors import Forbidden
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools import catalog, execution_log
from chalicelib.tools.models import SERVER

blueprint = Blueprint(__name__)

CALLS_OUT = ("database", "open_secrets", "internet")
SEALS_AND_ASKS = ("database", "seal_secrets", "internet")
ERRORS = (409, 502, 503, 504)
URL: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^https?://"}
RESOURCE = resource(
    "McpServer",
    {
        "serverId": TEXT,
        "appId": TEXT,
        "name": TEXT,
        "description": TEXT,
        "url": TEXT,
        "visibility": VISIBILITY,
        "transport": OPTIONAL_TEXT,
        "protocolVersion": OPTIONAL_TEXT,
        "serverInfo": {"type": ["object", "null"]},
        "createdAt": TIME,
        "updatedAt": TIME,
    },
)
LISTED_TOOL: dict[str, Any] = {
    "title": "McpTool",
    "type": "object",
    "required": ["name"],
    "properties": {"name": TEXT},
}
RESULT: dict[str, Any] = {
    "title": "McpResult",
    "type": "object",
    "required": ["executionId", "result"],
    "additionalProperties": False,
    "properties": {
        "executionId": TEXT,
        "result": {"type": "object", "description": "The server's CallToolResult, as it came."},
    },
}
_FIELDS: dict[str, Any] = {
    "name": NAME,
    "description": DESCRIPTION,
    "url": URL,
    "shared": SHARED,
    "credentials": CREDENTIALS,
}
NEW: dict[str, Any] = {
    "title": "NewMcpServer",
    "type": "object",
    "required": ["name", "url"],
    "additionalProperties": False,
    "properties": _FIELDS,
}
CHANGES: dict[str, Any] = {
    "title": "McpServerChanges",
    "type": "object",
    "additionalProperties": False,
    "properties": _FIELDS,
    "description": "Whatever changes, the server is asked anew; `{}` does that alone.",
}
CALL: dict[str, Any] = {
    "title": "McpToolCall",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "arguments": {"type": "object", "default": {}},
        "timeoutMs": {"type": "integer", "minimum": 1, "maximum": 25_000, "default": 20_000},
    },
}


def _may_share(request: Request) -> None:
    if request.body.get("shared") and not request.caller.may("admin"):
        raise Forbidden("Sharing with every app needs the role admin.", code="auth.role")


@endpoint(
    blueprint, "POST", "/mcp/servers", role="publisher", idempotent=True, body=NEW, errors=ERRORS,
    rights=SEALS_AND_ASKS, returns={201: RESOURCE}, summary="Ask an MCP server what it offers, and register it",
)  # fmt: skip
def create_server(request: Request) -> Answer:
    from chalicelib.tools import server_calls, servers
    from chalicelib.tools.services import tool_services

    _may_share(request)
    body, services, server_id = request.body, tool_services(), servers.new_server_id()
    sealed = server_calls.seal(services, request.caller, server_id, body["url"], body.get("credentials", {}))
    new = servers.NewServer(
        server_id=server_id,
        name=body["name"],
        description=body.get("description", ""),
        url=body["url"],
        shared=body.get("shared", False),
        listing=server_calls.ask(services, request.caller, server_id, body["url"], sealed),
        credentials=sealed,
    )
    location = {"Location": f"{BASE}/mcp/servers/{server_id}"}
    return request.write(lambda session: Answer(servers.create(session, request.caller, new), 201, location))


@endpoint(
    blueprint, "GET", "/mcp/servers", role="viewer",
    query={**PAGE, "q": {"type": "string", "minLength": 1, "maxLength": 64}},
    returns={200: page_of(RESOURCE)}, summary="The app's own and the shared MCP servers, newest first",
)  # fmt: skip
def list_servers(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return catalog.list_tools(
            session, request.caller, request.page(), q=request.query.get("q"), kind=SERVER
        )


@endpoint(
    blueprint, "GET", "/mcp/servers/{serverId}", role="viewer", returns={200: RESOURCE}, summary="One MCP server",
)  # fmt: skip
def get_server(request: Request) -> dict[str, Any]:
    from chalicelib.tools import servers

    return servers.find(request.cache, request.caller, request.path["serverId"]).resource


@endpoint(
    blueprint, "PATCH", "/mcp/servers/{serverId}", role="publisher", if_match="honoured", body=CHANGES,
    body_optional=True, errors=ERRORS, rights=SEALS_AND_ASKS, returns={200: RESOURCE},
    summary="Change an MCP server, and ask it anew what it offers",
)  # fmt: skip
def patch_server(request: Request) -> Answer:
    from chalicelib.tools import server_calls, servers
    from chalicelib.tools.services import tool_services

    _may_share(request)
    body, services = request.body, tool_services()
    server = servers.find_own(request.cache, request.caller, request.path["serverId"])
    url = body.get("url", server.url)
    sealed = server_calls.seal(services, request.caller, server.server_id, url, body.get("credentials", {}))
    wanted = servers.Change(
        url=url,
        listing=server_calls.ask(services, request.caller, server.server_id, url, sealed),
        name=body.get("name"),
        description=body.get("description"),
        shared=body.get("shared"),
        credentials=sealed,
    )
    return request.write(
        lambda session: servers.change(session, request.caller, server, request.if_match, wanted)
    )


@endpoint(
    blueprint, "DELETE", "/mcp/servers/{serverId}", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete an MCP server with all credentials for it",
)  # fmt: skip
def delete_server(request: Request) -> Answer:
    from chalicelib.tools import servers

    def work(session: Any) -> Answer:
        servers.delete(session, request.caller, request.path["serverId"], request.if_match)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint, "GET", "/mcp/servers/{serverId}/tools", role="viewer", query=PAGE,
    returns={200: page_of(LISTED_TOOL)}, summary="What the server offered when it was last asked, by name",
)  # fmt: skip
def list_server_tools(request: Request) -> dict[str, Any]:
    from chalicelib.tools import servers

    server = servers.find(request.cache, request.caller, request.path["serverId"])
    with request.reads() as session:
        return servers.list_tools(session, server, request.page())


@endpoint(
    blueprint, "GET", "/mcp/servers/{serverId}/executions", role="viewer", query={**PAGE, **CALLS},
    returns={200: page_of(EXECUTION)}, summary="The app's calls of a server's tools, newest first",
)  # fmt: skip
def list_server_executions(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["serverId"], SERVER)
    return calls_of(request, found.tool_id)


@endpoint(
    blueprint, "POST", "/mcp/servers/{serverId}/tools/{toolName}/call", role="caller", idempotent=True, body=CALL,
    body_optional=True, max_body_bytes=ONE_MIB, errors=ERRORS, rights=CALLS_OUT,
    returns={200: RESULT}, summary="Call a tool of an MCP server",
)  # fmt: skip
def call_server_tool(request: Request) -> Answer:
    from chalicelib.tools import server_calls, servers
    from chalicelib.tools.services import tool_services

    server = servers.find(request.cache, request.caller, request.path["serverId"])
    result, call = server_calls.call(
        tool_services(),
        request.caller,
        server,
        request.path["toolName"],
        request.body.get("arguments", {}),
        request.body.get("timeoutMs", server_calls.DEFAULT_TIMEOUT_MS),
    )

    def work(session: Any) -> dict[str, Any]:
        execution_log.store(session, call)
        return {"executionId": call.execution_id, "result": result}

    return request.write(work)
