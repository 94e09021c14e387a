"""Registering tools: versions, changes, soft deletion and restoring. Every function is part of one unit of work.

The row of `tool_meta` is locked first, so two writers of one tool follow each other; what a version's document says
was parsed and checked before the unit began (`drafts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select

from chalicelib.apps.tenants import hold_owner
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, Forbidden
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.core.representation import check_if_match
from chalicelib.tools import catalog, rendering
from chalicelib.tools.drafts import DocumentDraft
from chalicelib.tools.models import (
    DEF_VER,
    PRIVATE,
    SHARED,
    TOOL,
    ToolCredential,
    ToolDocument,
    ToolMeta,
    ToolSchema,
)
from chalicelib.tools.versions import VersionKey, parse_version

# All of them are one look-up in an index, and a version number is chosen by people.
MOST_VERSIONS = 100
# One by one these go unnoticed; a bulk statement names no tool, so every warm function drops all that it has of tools.
FEW_CREDENTIALS = 100


@dataclass(frozen=True)
class NewTool:
    """A tool that is to be registered."""

    name: str
    description: str
    document: DocumentDraft
    shared: bool = False


@dataclass(frozen=True)
class Change:
    """What of a version is to change; None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    document: DocumentDraft | None = None
    shared: bool | None = None


def create(session: Unit, caller: Caller, tools: Sequence[NewTool]) -> list[dict[str, Any]]:
    """Register tools, each as version V1.0, and return their resources; all of them or, by raising, none."""
    hold_owner(session, caller)
    return [_create(session, caller, new) for new in tools]


def _create(session: Unit, caller: Caller, new: NewTool) -> dict[str, Any]:
    meta = ToolMeta(
        tool_id=f"tool@{new_ulid()}",
        app_id=caller.app_id,
        kind=TOOL,
        visibility=SHARED if new.shared else PRIVATE,
        created_by=caller.credential_id,
    )
    session.add(meta)
    row, document = _add_row(session, meta, DEF_VER, new.name, new.description, new.document)
    meta.latest_id = row.id
    session.flush()
    after = rendering.tool(meta, row, document)
    audit.record(session, caller, "tool.create", "tool", meta.tool_id, after=after)
    return after


def add_version(
    session: Unit,
    caller: Caller,
    tool_id: str,
    version: str,
    *,
    name: str | None,
    description: str | None,
    document: DocumentDraft,
) -> dict[str, Any]:
    """Add a version to a tool and return its resource; what is not named is taken from the newest version.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid
    errors.Conflict
        `tool.version_exists`, also for another spelling of a live version's number; `tool.too_many_versions`.
    """
    hold_owner(session, caller)
    meta = lock(session, caller, tool_id)
    live = catalog.live_versions(session, tool_id)
    _refuse_taken(live, parse_version(version))
    newest = session.get_one(ToolSchema, meta.latest_id)
    row, stored = _add_row(
        session,
        meta,
        version,
        newest.name if name is None else name,
        newest.description if description is None else description,
        document,
    )
    session.flush()
    _name_latest(session, meta)
    after = rendering.tool(meta, row, stored)
    audit.record(session, caller, "tool.version", "tool", tool_id, after=after)
    return after


def _add_row(
    session: Unit, meta: ToolMeta, version: str, name: str, description: str, draft: DocumentDraft
) -> tuple[ToolSchema, ToolDocument]:
    row = ToolSchema(
        id=new_id(),
        app_id=str(meta.app_id),
        tool_id=meta.tool_id,
        name=name,
        description=description,
        open_api_schema=draft.text,
        version=version,
        is_deleted=0,
    )
    document = ToolDocument(schema_id=row.id, tool_id=meta.tool_id)
    _fill(document, draft)
    session.add_all([row, document])
    return row, document


def _fill(document: ToolDocument, draft: DocumentDraft) -> None:
    document.operations, document.security_schemes = draft.operations, draft.security_schemes
    document.origins, document.checksum, document.size = draft.origins, draft.checksum, draft.size


def change(
    session: Unit, caller: Caller, tool_id: str, version: str, if_match: str | None, wanted: Change
) -> dict[str, Any]:
    """Change a version in place and return its resource.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid, errors.PreconditionFailed
    """
    meta = lock(session, caller, tool_id)
    row, document = _live(session, tool_id, version)
    before = rendering.tool(meta, row, document)
    check_if_match(if_match, before)
    if wanted.name is not None:
        row.name = wanted.name
    if wanted.description is not None:
        row.description = wanted.description
    if wanted.document is not None:
        row.open_api_schema = wanted.document.text
        _fill(document, wanted.document)
    if wanted.shared is not None:
        meta.visibility = SHARED if wanted.shared else PRIVATE
    session.flush()
    after = rendering.tool(meta, row, document)
    audit.record(session, caller, "tool.update", "tool", tool_id, before=before, after=after)
    return after


def delete(session: Unit, caller: Caller, tool_id: str, version: str | None, if_match: str | None) -> None:
    """Delete a version, or with None every one; with its last version a tool is gone, and so are all credentials.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid, errors.PreconditionFailed
    """
    meta = lock(session, caller, tool_id)
    live = catalog.live_versions(session, tool_id)
    row_ids = list(live.values()) if version is None else [_row_id(live, version)]
    row, document = _row(session, row_ids[0])
    before = rendering.tool(meta, row, document)
    check_if_match(if_match, before)
    for row in session.scalars(select(ToolSchema).where(ToolSchema.id.in_(row_ids))):
        row.is_deleted = row.id
    session.flush()
    _name_latest(session, meta)
    if meta.latest_id is None:
        forget_credentials(session, tool_id)
    audit.record(session, caller, "tool.delete", "tool", tool_id, before=before)


def restore(session: Unit, caller: Caller, tool_id: str, version: str) -> dict[str, Any]:
    """Bring back the version that was deleted last under that number, and return its resource.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid
    errors.Conflict
        `tool.version_exists` while one is live, `tool.too_many_versions`.
    """
    hold_owner(session, caller)
    meta = lock(session, caller, tool_id, gone=True)
    key = parse_version(version)
    _refuse_taken(catalog.live_versions(session, tool_id), key)
    deleted = session.execute(
        select(ToolSchema.id, ToolSchema.version)
        .where(ToolSchema.tool_id == tool_id, ToolSchema.is_deleted != 0)
        .order_by(ToolSchema.id.desc())
    )
    # A number has one live row at a time, so its rows were deleted in the order in which they were made.
    row_id = next((row.id for row in deleted if parse_version(row.version) == key), None)
    if row_id is None:
        raise catalog.version_not_found()
    row, document = _row(session, row_id)
    row.is_deleted = 0
    session.flush()
    _name_latest(session, meta)
    after = rendering.tool(meta, row, document)
    audit.record(session, caller, "tool.restore", "tool", tool_id, after=after)
    return after


def lock(session: Unit, caller: Caller, tool_id: str, *, kind: str = TOOL, gone: bool = False) -> ToolMeta:
    """Return the row that all versions of a tool share, locked, if it is the caller's.

    Parameters
    ----------
    gone
        Also where every version is deleted.

    Raises
    ------
    errors.NotFound
        Also for another tenant's private tool.
    errors.Forbidden
        `tool.not_owner`: a shared tool of another app, which the caller can see but must not change.
    """
    query = select(ToolMeta).where(ToolMeta.tool_id == tool_id, ToolMeta.kind == kind).with_for_update()
    meta = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if meta is None or (meta.is_deleted and not gone):
        raise catalog.not_found(kind)
    if meta.app_id != caller.app_id:
        if meta.visibility != SHARED or meta.is_deleted:
            raise catalog.not_found(kind)
        raise not_owner()
    return meta


def not_owner() -> Forbidden:
    """Return the 403 for what another app shares."""
    return Forbidden("Only the app that registered it may change it.", code="tool.not_owner")


def forget_credentials(session: Unit, tool_id: str) -> None:
    """Delete what every app stored to call a tool that is gone. The unit holds the tool."""
    of_tool = ToolCredential.tool_id == tool_id
    rows = session.scalars(select(ToolCredential).where(of_tool).limit(FEW_CREDENTIALS + 1)).all()
    if len(rows) <= FEW_CREDENTIALS:
        for row in rows:
            session.delete(row)
        return
    gone = delete_rows(ToolCredential).where(of_tool)
    session.execute(gone, execution_options={"synchronize_session": False})


def _refuse_taken(live: dict[VersionKey, int], key: VersionKey) -> None:
    if key in live:
        raise Conflict("The tool has that version already.", code="tool.version_exists")
    if len(live) >= MOST_VERSIONS:
        raise Conflict(f"A tool has at most {MOST_VERSIONS} versions.", code="tool.too_many_versions")


def _row_id(live: dict[VersionKey, int], version: str) -> int:
    row_id = live.get(parse_version(version))
    if row_id is None:
        raise catalog.version_not_found()
    return row_id


def _live(session: Unit, tool_id: str, version: str) -> tuple[ToolSchema, ToolDocument]:
    return _row(session, _row_id(catalog.live_versions(session, tool_id), version))


def _row(session: Unit, row_id: int) -> tuple[ToolSchema, ToolDocument]:
    return session.get_one(ToolSchema, row_id), session.get_one(ToolDocument, row_id)


def _name_latest(session: Unit, meta: ToolMeta) -> None:
    live = catalog.live_versions(session, meta.tool_id)
    meta.latest_id = next(iter(live.values()), None)
    meta.is_deleted = 0 if live else meta.id
    session.flush()
