"""The audit log as admins read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core.audit import AuditLog
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import timestamp

_COLUMNS = {"objectType": AuditLog.object_type, "objectId": AuditLog.object_id, "action": AuditLog.action}
# By which filter the rows are found, the most selective first. Left to itself the server intersects the indexes of
# several filters and sorts what is left, for each page anew.
_INDEXES = {
    "objectId": "ix_audit_log_object",
    "appAlias": "ix_audit_log_app",
    "action": "ix_audit_log_action",
    "objectType": "ix_audit_log_type",
}


def list_audit(session: Session, page: Page, filters: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of audit rows, the newest first.

    Parameters
    ----------
    filters
        Any of `objectType`, `objectId`, `action`, and `appAlias`: who did it.
    """
    query = select(AuditLog).where(
        *[column == filters[name] for name, column in _COLUMNS.items() if name in filters]
    )
    if "appAlias" in filters:
        app_id = session.scalar(select(App.id).where(App.alias_id == filters["appAlias"]))
        if app_id is None:
            return {"items": [], "nextCursor": None}
        query = query.where(AuditLog.app_id == app_id)
    for name, index in _INDEXES.items():
        if name in filters:
            query = query.with_hint(AuditLog, f"FORCE INDEX ({index})", "mysql")
            break
    found = list_page(session, query, page, [AuditLog.id], _describe)
    _name_apps(session, found["items"])
    return found


def _describe(row: AuditLog) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "appId": str(row.app_id),
        "credentialId": str(row.credential_id),
        "action": row.action,
        "objectType": row.object_type,
        "objectId": row.object_id,
        "beforeDigest": row.before_digest,
        "afterDigest": row.after_digest,
        "requestId": row.request_id,
        "at": timestamp(row.at),
    }


def _name_apps(session: Session, items: list[dict[str, Any]]) -> None:
    ids = {int(item["appId"]) for item in items}
    rows = session.execute(select(App.id, App.alias_id).where(App.id.in_(ids)))
    aliases = {row.id: row.alias_id for row in rows}
    for item in items:
        # None for an app that was deleted since.
        item["appAlias"] = aliases.get(int(item["appId"]))
