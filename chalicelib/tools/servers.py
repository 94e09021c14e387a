"""MCP servers: registered, asked what they offer, changed and deleted.

A server is asked before the unit of work begins. What it answered to tools/list is kept in its row, so that a listing
costs no call; how it speaks is kept too, which saves a negotiation for each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from chalicelib.apps.tenants import hold_owner
from chalicelib.core import audit
from chalicelib.core.answers import fitting
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.core.paging import Page
from chalicelib.core.representation import check_if_match
from chalicelib.tools import catalog, credentials, registry, rendering
from chalicelib.tools.credentials import Credential
from chalicelib.tools.mcp_client.dialect import Dialect, ToolListing
from chalicelib.tools.models import DEF_VER, PRIVATE, SERVER, SHARED, ToolMeta, ToolSchema

MAX_URL_LENGTH = 255  # tools_schema.mcp_server_url


@dataclass(frozen=True)
class Server:
    """An MCP server as warm functions keep it; shared between requests, so never changed."""

    server_id: str
    row_id: int
    url: str
    dialect: Dialect | None
    resource: dict[str, Any]


@dataclass(frozen=True)
class NewServer:
    """A server that is to be registered, after it was asked."""

    server_id: str
    name: str
    description: str
    url: str
    shared: bool
    listing: ToolListing
    credentials: Sequence[Credential]


@dataclass(frozen=True)
class Change:
    """What of a server is to change; None leaves a field as it is.

    Parameters
    ----------
    url
        What was asked, which may be a new place.
    listing
        What was found there.
    credentials
        The caller's, to be stored with it.
    """

    url: str
    listing: ToolListing
    name: str | None = None
    description: str | None = None
    shared: bool | None = None
    credentials: Sequence[Credential] = ()


def new_server_id() -> str:
    """Return the id of a server that is about to be registered: its credentials are sealed under it."""
    return f"mcp@{new_ulid()}"


def find(cache: HotCache, caller: Caller, server_id: str) -> Server:
    """Return a server that the caller may see, from memory where it is warm.

    Raises
    ------
    errors.NotFound
        Also for another tenant's private one.
    """
    row_id = catalog.find(cache, caller, server_id, SERVER).row_of(None)

    def read(session: Session) -> tuple[Server | None, list[Dependency]]:
        query = (
            select(ToolMeta, ToolSchema)
            .join(ToolSchema, ToolSchema.tool_id == ToolMeta.tool_id)
            .where(ToolSchema.id == row_id, ToolSchema.is_deleted == 0)
        )
        row = session.execute(query).one_or_none()
        return None if row is None else _server(*row), [("tools", server_id)]

    found = cache.load(("mcp_server", row_id), read)
    if found is None:
        raise catalog.not_found(SERVER)
    return found


def find_own(cache: HotCache, caller: Caller, server_id: str) -> Server:
    """Return a server of the caller's own app: nobody else makes Hotplug call it in order to change it.

    Raises
    ------
    errors.NotFound, errors.Forbidden
    """
    found = find(cache, caller, server_id)
    if found.resource["appId"] != str(caller.app_id):
        raise registry.not_owner()
    return found


def _server(meta: ToolMeta, row: ToolSchema) -> Server:
    dialect = None
    if meta.transport is not None and meta.protocol_version is not None:
        dialect = Dialect("sse" if meta.transport == "sse" else "streamable_http", meta.protocol_version)
    return Server(meta.tool_id, row.id, row.mcp_server_url or "", dialect, rendering.server(meta, row))


def create(session: Unit, caller: Caller, new: NewServer) -> dict[str, Any]:
    """Register a server and return its resource."""
    hold_owner(session, caller)
    meta = ToolMeta(
        tool_id=new.server_id,
        app_id=caller.app_id,
        kind=SERVER,
        visibility=SHARED if new.shared else PRIVATE,
        created_by=caller.credential_id,
    )
    row = ToolSchema(
        id=new_id(),
        app_id=str(caller.app_id),
        tool_id=new.server_id,
        name=new.name,
        description=new.description,
        mcp_server_url=new.url,
        version=DEF_VER,
        is_deleted=0,
    )
    meta.latest_id = row.id
    _fill(meta, row, new.listing)
    session.add_all([meta, row])
    credentials.store(session, caller, new.server_id, new.credentials)
    session.flush()
    after = rendering.server(meta, row)
    audit.record(session, caller, "mcp.create", "mcp_server", new.server_id, after=after)
    return after


def change(
    session: Unit, caller: Caller, server: Server, if_match: str | None, wanted: Change
) -> dict[str, Any]:
    """Change a server and return its resource.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.PreconditionFailed
    errors.Conflict
        `mcp.server_changed`: it is no longer what was asked.
    """
    server_id = server.server_id
    meta, row = _locked(session, caller, server_id)
    before = rendering.server(meta, row)
    check_if_match(if_match, before)
    if before != server.resource:
        raise Conflict("The server was changed meanwhile; try again.", code="mcp.server_changed")
    if wanted.name is not None:
        row.name = wanted.name
    if wanted.description is not None:
        row.description = wanted.description
    if wanted.shared is not None:
        meta.visibility = SHARED if wanted.shared else PRIVATE
    row.mcp_server_url = wanted.url
    _fill(meta, row, wanted.listing)
    credentials.store(session, caller, server_id, wanted.credentials)
    session.flush()
    after = rendering.server(meta, row)
    audit.record(session, caller, "mcp.update", "mcp_server", server_id, before=before, after=after)
    return after


def delete(session: Unit, caller: Caller, server_id: str, if_match: str | None) -> None:
    """Delete a server, and what every app stored to call it.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.PreconditionFailed
    """
    meta, row = _locked(session, caller, server_id)
    before = rendering.server(meta, row)
    check_if_match(if_match, before)
    row.is_deleted, meta.is_deleted, meta.latest_id = row.id, meta.id, None
    registry.forget_credentials(session, server_id)
    audit.record(session, caller, "mcp.delete", "mcp_server", server_id, before=before)


def list_tools(session: Session, server: Server, page: Page) -> dict[str, Any]:
    """Return a page of the tools that a server listed when it was last asked, by name, as they came over the wire."""
    query = select(ToolSchema).where(ToolSchema.id == server.row_id, ToolSchema.is_deleted == 0)
    row = session.scalars(query.options(undefer(ToolSchema.schema))).one_or_none()
    if row is None:
        raise catalog.not_found(SERVER)
    return page_of_tools(row.schema["tools"], page)


def page_of_tools(tools: Sequence[Mapping[str, Any]], page: Page) -> dict[str, Any]:
    """Return a page of tools by name."""
    position = page.position(1)
    ordered = sorted(tools, key=lambda tool: str(tool["name"]))
    rest = [tool for tool in ordered if position is None or str(tool["name"]) > str(position[0])]
    shown = rest[: page.limit]
    shown = shown[: fitting(shown)]
    more = len(rest) > len(shown)
    return {"items": shown, "nextCursor": page.encode([str(shown[-1]["name"])]) if more else None}


def _locked(session: Unit, caller: Caller, server_id: str) -> tuple[ToolMeta, ToolSchema]:
    meta = registry.lock(session, caller, server_id, kind=SERVER)
    return meta, session.get_one(ToolSchema, meta.latest_id)


def _fill(meta: ToolMeta, row: ToolSchema, listing: ToolListing) -> None:
    found = listing.server
    row.schema = {"tools": list(listing.tools)}
    meta.transport, meta.protocol_version = found.dialect.transport, found.dialect.protocol_version
    meta.server_info = {"name": found.name, "version": found.version, "instructions": found.instructions}
