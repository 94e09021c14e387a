"""…/credentials of a tool and of an MCP server: what the caller's app calls them with; never returned."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import page_of
from chalicelib.api.request import Answer, Request
from chalicelib.api.tool_schemas import CREDENTIAL, CREDENTIALS
from chalicelib.tools import catalog, credentials
from chalicelib.tools.models import SERVER, TOOL

blueprint = Blueprint(__name__)

SEALS = ("database", "seal_secrets")


def _tool(request: Request) -> catalog.Registration:
    return catalog.find(request.cache, request.caller, request.path["toolId"], TOOL)


def _server(request: Request) -> catalog.Registration:
    return catalog.find(request.cache, request.caller, request.path["serverId"], SERVER)


def _put(request: Request, found: catalog.Registration, sealed: list[credentials.Credential]) -> Answer:
    return request.write(
        lambda session: credentials.put(session, request.caller, found, sealed, request.if_match)
    )


def _list(request: Request, found: catalog.Registration) -> dict[str, Any]:
    with request.reads() as session:
        return credentials.list_credentials(session, request.caller, found.tool_id)


def _delete(request: Request, found: catalog.Registration, scheme: str | None) -> Answer:
    def work(session: Any) -> Answer:
        credentials.delete(session, request.caller, found, scheme, request.if_match)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint, "PUT", "/tools/{toolId}/credentials", role="publisher", if_match="honoured", body=CREDENTIALS,
    errors=(409,), rights=SEALS, returns={200: page_of(CREDENTIAL)},
    summary="Store credentials by security scheme; others stay",
)  # fmt: skip
def put_tool_credentials(request: Request) -> Answer:
    found = _tool(request)
    sealed = credentials.seal_for_tool(request.database, request.cache, request.caller, found, request.body)
    return _put(request, found, sealed)


@endpoint(
    blueprint, "GET", "/tools/{toolId}/credentials", role="publisher",
    returns={200: page_of(CREDENTIAL)}, summary="Which credentials the app has stored for a tool",
)  # fmt: skip
def list_tool_credentials(request: Request) -> dict[str, Any]:
    return _list(request, _tool(request))


@endpoint(
    blueprint, "DELETE", "/tools/{toolId}/credentials", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete all credentials of the app for a tool",
)  # fmt: skip
def delete_tool_credentials(request: Request) -> Answer:
    return _delete(request, _tool(request), None)


@endpoint(
    blueprint, "DELETE", "/tools/{toolId}/credentials/{scheme}", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete one of them",
)  # fmt: skip
def delete_tool_credential(request: Request) -> Answer:
    return _delete(request, _tool(request), request.path["scheme"])


@endpoint(
    blueprint, "PUT", "/mcp/servers/{serverId}/credentials", role="publisher", if_match="honoured", body=CREDENTIALS,
    errors=(409,), rights=SEALS, returns={200: page_of(CREDENTIAL)},
    summary="Store credentials: bearer, basic, apiKey, oauth2; others stay",
)  # fmt: skip
def put_server_credentials(request: Request) -> Answer:
    from chalicelib.tools import server_calls, servers
    from chalicelib.tools.services import tool_services

    server = servers.find(request.cache, request.caller, request.path["serverId"])
    sealed = server_calls.seal(
        tool_services(), request.caller, server.server_id, server.url, request.body, ""
    )
    return _put(request, _server(request), sealed)


@endpoint(
    blueprint, "GET", "/mcp/servers/{serverId}/credentials", role="publisher",
    returns={200: page_of(CREDENTIAL)}, summary="Which credentials the app has stored for a server",
)  # fmt: skip
def list_server_credentials(request: Request) -> dict[str, Any]:
    return _list(request, _server(request))


@endpoint(
    blueprint, "DELETE", "/mcp/servers/{serverId}/credentials", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete all credentials of the app for a server",
)  # fmt: skip
def delete_server_credentials(request: Request) -> Answer:
    return _delete(request, _server(request), None)


@endpoint(
    blueprint, "DELETE", "/mcp/servers/{serverId}/credentials/{scheme}", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete one of them",
)  # fmt: skip
def delete_server_credential(request: Request) -> Answer:
    return _delete(request, _server(request), request.path["scheme"])
