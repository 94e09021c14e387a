"""What an app can call: the operations of its tools and of those that are shared with it, each in its newest version.

Read for lists of thousands, so nothing here asks the database once per tool. Which tools there are depends on all of
them and is read anew whenever one changes (one row each, by an index); what a tool offers depends on it alone and is
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.tools.models import SHARED, TOOL, ToolDocument, ToolMeta, ToolSchema

MOST_TOOLS = 5_000
"""Own ones, and as many shared ones; what was registered after them can be run, but is not listed."""

# Summaries of two thousand operations are 400 KB.
_AT_ONCE = 50


@dataclass(frozen=True)
class CallableTool:
    """A tool that an app can call now."""

    tool_id: str
    name: str
    operations: tuple[str, ...]


@dataclass(frozen=True)
class _Listed:
    tool_id: str
    row_id: int
    name: str


def callable_tools(database: DatabaseService, cache: HotCache, app_id: int) -> list[CallableTool]:
    """Return the tools that an app owns or is let use, with the ids of their operations."""
    listed = cache.load(("tools.callable", app_id), lambda session: _listed(session, app_id))
    operations = _operations(database, cache, listed)
    return [
        CallableTool(one.tool_id, one.name, operations[one.row_id])
        for one in listed
        if one.row_id in operations
    ]


def tools_by_name(cache: HotCache, app_id: int) -> Mapping[str, str]:
    """Return the ids of the tools that an app owns or is let use, by name; shared between requests, so never changed.

    Of several of one name the app's own, and of those the newest.
    """
    return cache.load(
        ("tools.by_name", app_id), lambda session: _by_name(session, app_id), lambda found: 200 * len(found)
    )


def _by_name(session: Session, app_id: int) -> tuple[Mapping[str, str], list[Dependency]]:
    found: dict[str, str] = {}
    for condition in (ToolMeta.visibility == SHARED, ToolMeta.app_id == app_id):
        found |= {one.name: one.tool_id for one in _read(session, condition)}
    return found, [("tools", "*")]


def _listed(session: Session, app_id: int) -> tuple[tuple[_Listed, ...], list[Dependency]]:
    found: dict[str, _Listed] = {}
    for condition in (ToolMeta.app_id == app_id, ToolMeta.visibility == SHARED):
        found |= {one.tool_id: one for one in _read(session, condition)}
    return tuple(found.values()), [("tools", "*")]


def _read(session: Session, condition: ColumnElement[bool]) -> Iterator[_Listed]:
    rows = session.execute(
        select(ToolMeta.tool_id, ToolSchema.id, ToolSchema.name)
        .join(ToolSchema, ToolSchema.id == ToolMeta.latest_id)
        .where(condition, ToolMeta.kind == TOOL, ToolMeta.is_deleted == 0)
        .order_by(ToolMeta.id)
        .limit(MOST_TOOLS)
    )
    for row in rows:
        yield _Listed(row.tool_id, row.id, row.name)


def _operations(
    database: DatabaseService, cache: HotCache, listed: Sequence[_Listed]
) -> dict[int, tuple[str, ...]]:
    """Return the operations of each tool by its row, from the cache where they are there."""
    found: dict[int, tuple[str, ...]] = {}
    missing: list[_Listed] = []
    for one in listed:
        known = cache.get(("tool.operation_names", one.row_id))
        if known is None:
            missing.append(one)
        else:
            found[one.row_id] = known
    stamp = cache.stamp()
    for start in range(0, len(missing), _AT_ONCE):
        some = {one.row_id: one for one in missing[start : start + _AT_ONCE]}
        query = select(ToolDocument.schema_id, ToolDocument.operations)
        with database.reads() as session:
            rows = session.execute(query.where(ToolDocument.schema_id.in_(some))).all()
        for row in rows:
            names = tuple(str(one["operationId"]) for one in row.operations)
            found[row.schema_id] = names
            depends = [("tools", some[row.schema_id].tool_id)]
            weight = sum(map(len, names))
            cache.put(("tool.operation_names", row.schema_id), names, depends, stamp, weight=weight)
    return found
