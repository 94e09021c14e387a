"""Speaking with registered MCP servers: with the caller's credentials, through the outbound client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from chalicelib.core.answers import wire_bytes
from chalicelib.core.caller import Caller
from chalicelib.core.errors import UpstreamFailed
from chalicelib.core.keys.app_box import box_of
from chalicelib.core.outbound.addresses import origin_of
from chalicelib.tools import credentials
from chalicelib.tools.authorization import TimeLeft, authorize_server
from chalicelib.tools.calling import MAX_ANSWER_BYTES, answer_too_large
from chalicelib.tools.credentials import Credential
from chalicelib.tools.execution_log import Call
from chalicelib.tools.mcp_client import client
from chalicelib.tools.mcp_client.dialect import ToolListing
from chalicelib.tools.models import DEF_VER
from chalicelib.tools.running import Subject, recorded
from chalicelib.tools.servers import Server
from chalicelib.tools.services import Services

# Registering waits for the listing, and the gateway ends a request after 29 s.
ASK_TIMEOUT_S = 20.0
DEFAULT_TIMEOUT_MS = 20_000
MAX_TIMEOUT_MS = 25_000


def ask(
    services: Services, caller: Caller, server_id: str, url: str, given: Sequence[Credential] = ()
) -> ToolListing:
    """Return who answers at a URL, and all its tools. Not inside a unit of work.

    Parameters
    ----------
    given
        Credentials that are about to be stored; they count before those that are.

    Raises
    ------
    errors.HotplugError
        Those of `mcp_client.client`, and of asking for a token.
    """
    time_left = TimeLeft(ASK_TIMEOUT_S)
    headers = _headers(services, caller, server_id, url, given, time_left)
    with _watched(services, caller, url):
        return client.list_tools(services.http, url, headers, timeout_s=time_left.seconds())


def call(
    services: Services,
    caller: Caller,
    server: Server,
    name: str,
    arguments: Mapping[str, Any],
    timeout_ms: int,
) -> tuple[dict[str, Any], Call]:
    """Call a tool of a server; return its CallToolResult as it came, and what is to be stored of the call.

    Raises
    ------
    errors.HotplugError
        Those of `mcp_client.client`, and `tool.answer_too_large`; with `executionId`, after the call was stored.
    """

    def work() -> dict[str, Any]:
        time_left = TimeLeft(timeout_ms / 1000)
        headers = _headers(services, caller, server.server_id, server.url, (), time_left)
        with _watched(services, caller, server.url):
            result = client.call_tool(
                services.http,
                server.url,
                headers,
                name,
                arguments,
                timeout_s=time_left.seconds(),
                dialect=server.dialect,
            )
        if wire_bytes(result) > MAX_ANSWER_BYTES:
            raise answer_too_large()
        return result

    return recorded(
        services,
        caller,
        Subject(server.server_id, DEF_VER, name),
        work,
        lambda _: None,
        lambda result: "mcp.tool_error" if result.get("isError") is True else None,
    )


@contextmanager
def _watched(services: Services, caller: Caller, url: str) -> Iterator[None]:
    """Let the breaker learn from a conversation with a server; one that is open refuses it (`CircuitOpen`)."""
    with services.breaker.watch(caller.app_id, url) as watched:
        try:
            yield
        except UpstreamFailed as error:
            if "upstreamStatus" in error.extensions:
                watched.answered(error.extensions["upstreamStatus"])
            raise


def _headers(
    services: Services,
    caller: Caller,
    server_id: str,
    url: str,
    given: Sequence[Credential],
    time_left: TimeLeft,
) -> dict[str, str]:
    stored = credentials.stored(services.cache, caller, server_id) | {one.scheme: one for one in given}
    values = {
        one.scheme: (one.kind, value)
        for one in stored.values()
        if (value := credentials.reveal(services.database, services.cache, caller, server_id, one, url))
    }
    send = time_left.bounded(services.http_of(caller.app_id).request)
    authorization = authorize_server(values, services.tokens, (str(caller.app_id), server_id), send)
    return {one.name: one.value for one in authorization.additions}


def seal(
    services: Services,
    caller: Caller,
    server_id: str,
    url: str,
    values: Mapping[str, Any],
    pointer: str = "/credentials",
) -> list[Credential]:
    """Return credentials for a server as they will be stored. Not inside a unit of work.

    Parameters
    ----------
    pointer
        Where they stood in the request.

    Raises
    ------
    errors.Invalid, errors.Unavailable
    """
    credentials.check_values(credentials.SERVER_SCHEMES, values, pointer)
    if not values:
        return []
    box = box_of(services.database, services.cache, caller.app_id)()
    origins = [origin_of(url)]
    return credentials.seal(box, server_id, credentials.SERVER_SCHEMES, values, origins)
