"""Finding tools and MCP servers: one by id on the hot cache, one of its versions, and the paged lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Select, Table, func, or_, select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import NotFound
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.paging import Page, bad_cursor, list_page
from chalicelib.core.representation import entity_tag
from chalicelib.core.rows import part_of
from chalicelib.tools import rendering
from chalicelib.tools.models import SERVER, SHARED, TOOL, ToolDocument, ToolMeta, ToolSchema
from chalicelib.tools.versions import VersionKey, parse_version

# For reading: the first use of any model configures all of them.
_META, _SCHEMA = cast(Table, ToolMeta.__table__), cast(Table, ToolSchema.__table__)
_DOCUMENT = cast(Table, ToolDocument.__table__)
# Without what may hold megabytes.
_SUMMARY = [column for column in _SCHEMA.c if column.key not in ("open_api_schema", "schema")]

# Of the summary of one operation in memory, about.
_OPERATION_BYTES = 1_000


@dataclass(frozen=True)
class Registration:
    """A tool as warm functions keep it; shared between requests, so never changed.

    Parameters
    ----------
    versions
        Row ids of the live versions by number, the newest first.
    """

    tool_id: str
    app_id: int
    kind: str
    visibility: str
    transport: str | None
    versions: dict[VersionKey, int]

    def visible_to(self, caller: Caller) -> bool:
        """True for the owner, and for everyone where the tool is shared."""
        return self.app_id == caller.app_id or self.visibility == SHARED

    def row_of(self, version: str | None, pointer: str = "/version") -> int:
        """Return the row id of a live version, of the newest where none is named.

        Parameters
        ----------
        pointer
            Where the version stood in the request.

        Raises
        ------
        errors.Invalid, errors.NotFound
        """
        if version is None:
            return next(iter(self.versions.values()))
        found = self.versions.get(parse_version(version, pointer))
        if found is None:
            raise version_not_found()
        return found


def not_found(kind: str = TOOL) -> NotFound:
    """Return the 404 for a tool or an MCP server."""
    if kind == SERVER:
        return NotFound("There is no such MCP server.", code="mcp.server_not_found")
    return NotFound("There is no such tool.", code="tool.not_found")


def version_not_found() -> NotFound:
    """Return the 404 for a version of a tool."""
    return NotFound("The tool has no such version.", code="tool.version_not_found")


def find(cache: HotCache, caller: Caller, tool_id: str, kind: str = TOOL) -> Registration:
    """Return a tool that the caller may see, from memory where it is warm.

    Raises
    ------
    errors.NotFound
        Also for another tenant's private tool, and for one whose versions are all deleted.
    """
    found = cache.load(("tool", tool_id), lambda session: _read(session, tool_id))
    if found is None or found.kind != kind or not found.visible_to(caller):
        raise not_found(kind)
    return found


def _read(session: Session, tool_id: str) -> tuple[Registration | None, list[Dependency]]:
    rows = session.execute(
        select(_META, _SCHEMA.c.version.label("number"), _SCHEMA.c.id.label("row_id"))
        .join(_SCHEMA, _SCHEMA.c.tool_id == _META.c.tool_id)
        .where(_META.c.tool_id == tool_id, _SCHEMA.c.is_deleted == 0)
    ).all()
    depends = [("tools", tool_id)]
    if not rows:
        return None, depends
    meta = rows[0]
    found = Registration(
        tool_id=tool_id,
        app_id=meta.app_id,
        kind=meta.kind,
        visibility=meta.visibility,
        transport=meta.transport,
        versions=_newest_first({parse_version(row.number): row.row_id for row in rows}),
    )
    return found, depends


def _newest_first(versions: dict[VersionKey, int]) -> dict[VersionKey, int]:
    return dict(sorted(versions.items(), reverse=True))


def live_versions(session: Session, tool_id: str) -> dict[VersionKey, int]:
    """Return the row ids of a tool's live versions by number, the newest first: at most a hundred, in an index."""
    rows = session.execute(
        select(ToolSchema.version, ToolSchema.id).where(
            ToolSchema.tool_id == tool_id, ToolSchema.is_deleted == 0
        )
    )
    return _newest_first({parse_version(row.version): row.id for row in rows})


@dataclass(frozen=True)
class ToolResource:
    """The resource of a tool in one version, without its document, and its entity tag, both made once."""

    row_id: int
    resource: dict[str, Any]
    etag: str


def read_tool(cache: HotCache, caller: Caller, tool_id: str, version: str | None) -> ToolResource:
    """Return a tool in the newest version or the one that is named, from memory where it is warm.

    Raises
    ------
    errors.NotFound, errors.Invalid
    """
    row_id = find(cache, caller, tool_id).row_of(version, "/query/version")

    def read(session: Session) -> tuple[ToolResource | None, list[Dependency]]:
        resource = read_resource(session, row_id)
        found = None if resource is None else ToolResource(row_id, resource, entity_tag(resource))
        return found, [("tools", tool_id)]

    found = cache.load(("tool_resource", row_id), read, _weight)
    if found is None:
        raise version_not_found()
    return found


def _weight(found: ToolResource | None) -> int:
    return 0 if found is None else _OPERATION_BYTES * len(found.resource["operations"])


def read_resource(session: Session, row_id: int) -> dict[str, Any] | None:
    """Return the resource of a live version, None where the row is gone."""
    query = (
        select(_META, *_SUMMARY, _DOCUMENT)
        .join(_SCHEMA, _SCHEMA.c.tool_id == _META.c.tool_id)
        .join(_DOCUMENT, _DOCUMENT.c.schema_id == _SCHEMA.c.id)
        .where(_SCHEMA.c.id == row_id, _SCHEMA.c.is_deleted == 0)
        .set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    return rendering.tool(
        cast(ToolMeta, part_of(row, _META)),
        cast(ToolSchema, part_of(row, _SCHEMA)),
        cast(ToolDocument, part_of(row, _DOCUMENT)),
    )


def read_document(session: Session, row_id: int) -> dict[str, Any]:
    """Return the document of a live version.

    Raises
    ------
    errors.NotFound
    """
    text = session.scalar(
        select(ToolSchema.open_api_schema).where(ToolSchema.id == row_id, ToolSchema.is_deleted == 0)
    )
    if text is None:
        raise version_not_found()
    document: dict[str, Any] = json.loads(text)
    return document


def list_tools(
    session: Session, caller: Caller, page: Page, *, q: str | None = None, kind: str = TOOL
) -> dict[str, Any]:
    """Return a page of the tools (or MCP servers) that the caller sees, each in its newest version, newest first."""
    render = rendering.listed_tool if kind == TOOL else rendering.server
    query: Select[Any] = (
        select(ToolMeta)
        .join(ToolSchema, ToolSchema.id == ToolMeta.latest_id)
        .where(ToolMeta.kind == kind, ToolMeta.is_deleted == 0)
    )
    if q is not None:
        needle = q.lower()
        query = query.where(
            or_(
                func.lower(ToolSchema.name).contains(needle, autoescape=True),
                func.lower(ToolSchema.description).contains(needle, autoescape=True),
            )
        )
    seen = [
        (ToolMeta.app_id == caller.app_id, "ix_tool_meta_app"),
        (ToolMeta.visibility == SHARED, "ix_tool_meta_visibility"),
    ]
    found = list_page(session, query, page, [ToolMeta.id], lambda meta: {"meta": meta}, any_of=seen)
    metas = [item["meta"] for item in found["items"]]
    latest = select(ToolSchema).where(ToolSchema.id.in_([meta.latest_id for meta in metas]))
    by_id = {row.id: row for row in session.scalars(latest)}
    # A row that was deleted between the two reads is left out, as if the listing had come a moment later.
    found["items"] = [render(meta, by_id[meta.latest_id]) for meta in metas if meta.latest_id in by_id]
    return found


def list_versions(session: Session, found: Registration, page: Page) -> dict[str, Any]:
    """Return a page of a tool's live versions, the highest number first."""
    position = page.position(4)
    after = None if position is None else tuple(position)
    if after is not None and not all(isinstance(number, int) for number in after):
        raise bad_cursor()
    keys = [key for key in found.versions if after is None or key < after]
    shown = keys[: page.limit]
    rows = session.execute(
        select(ToolSchema, ToolDocument)
        .join(ToolDocument, ToolDocument.schema_id == ToolSchema.id)
        .where(ToolSchema.id.in_([found.versions[key] for key in shown]), ToolSchema.is_deleted == 0)
    ).all()
    by_key = {parse_version(row.version): (row, document) for row, document in rows}
    return {
        "items": [rendering.version(*by_key[key]) for key in shown if key in by_key],
        "nextCursor": page.encode(shown[-1]) if len(keys) > page.limit else None,
    }
