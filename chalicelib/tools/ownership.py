"""What an app still owns of tools, asked before the app is deleted."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from chalicelib.tools.models import SERVER, TOOL, ToolMeta


def owned_by_app(session: Session, app_id: int) -> list[str]:
    """Return the kinds of things that an app owns, empty where it owns nothing; each look-up is one row of an index."""
    names = {TOOL: "tools", SERVER: "MCP servers"}
    return [name for kind, name in names.items() if session.scalars(_one(app_id, kind)).first() is not None]


def _one(app_id: int, kind: str) -> Select[int]:
    live = (ToolMeta.app_id == app_id, ToolMeta.kind == kind, ToolMeta.is_deleted == 0)
    return select(ToolMeta.id).where(*live).limit(1)
