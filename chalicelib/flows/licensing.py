"""Who may run a flow. The check is made on every run, from memory where it is warm."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.apps.tenants import find_app, hold_app, hold_owner
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Forbidden, NotFound
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.representation import check_if_match
from chalicelib.flows import rendering
from chalicelib.flows.dao import Grant, LicenseDAO
from chalicelib.flows.locking import lock
from chalicelib.flows.models import Flow, License

# One by one these go unnoticed; a bulk statement names no flow, so every warm function drops all that it has of flows.
FEW_LICENSES = 100


def find(cache: HotCache, alias_id: str, flow_id: int) -> Grant | None:
    """Return the licence of an app for a flow, enabled or not; None where it never got one."""

    def read(session: Session) -> tuple[Grant | None, list[Dependency]]:
        found = LicenseDAO(session).get_by(flow_id, alias_id)
        depends = [("flows", str(flow_id))]
        return found, depends if found is None else [*depends, ("apps", str(found.app_id))]

    return cache.load(("license", alias_id, flow_id), read)


def check(cache: HotCache, alias_id: str, flow_id: int) -> None:
    """Refuse a run of a flow by an app that is not licensed for it, or is disabled.

    Parameters
    ----------
    cache
        Refreshed since the last thing that the run did.
    alias_id
        The app that runs the flow, its owner included.
    flow_id
        The flow's id; one that is deleted is for `catalog.find_usable` to tell.

    Raises
    ------
    errors.Forbidden
        `flow.not_licensed`
    """
    found = find(cache, alias_id, flow_id)
    if found is None or not found.is_enabled or not found.app_is_enabled:
        raise Forbidden("The app has no enabled licence for this flow.", code="flow.not_licensed")


def grant_owner(session: Unit, flow: Flow) -> None:
    """Give the owner its licence, if it never had one: one that was taken away stays so. The unit holds the draft."""
    app_id = int(flow.app_id)
    if _find(session, app_id, flow.id) is None:
        session.add(License(app_id=app_id, group_id=flow.id, status=1))


def put(
    session: Unit, caller: Caller, flow_id: int, alias_id: str, status: int, if_match: str | None = None
) -> dict[str, Any]:
    """Give an app a licence, or set the one that it has, and return it.

    Parameters
    ----------
    status
        1 enabled, 0 disabled.

    Raises
    ------
    errors.NotFound
        The flow, or `app.not_found`.
    errors.Forbidden, errors.PreconditionFailed
    """
    hold_owner(session, caller)
    # Held too: it must not be deleted while a licence that refers to it is made.
    licensee = hold_app(session, find_app(session, alias_id).id)
    if licensee is None:
        raise NotFound("There is no such app.", code="app.not_found")
    lock(session, caller, flow_id)
    row = _find(session, licensee.id, flow_id)
    before = None if row is None else rendering.license_of(row, alias_id)
    check_if_match(if_match, before)
    if row is None:
        row = License(app_id=licensee.id, group_id=flow_id)
        session.add(row)
    elif row.status == status:
        return rendering.license_of(row, alias_id)
    row.status = status
    session.flush()
    after = rendering.license_of(row, alias_id)
    audit.record(session, caller, "flow.license", "flow", str(flow_id), before=before, after=after)
    return after


def list_licenses(session: Session, flow_id: int, page: Page) -> dict[str, Any]:
    """Return a page of a flow's licences, the newest first."""
    query = through(select(License).where(License.group_id == flow_id), License, "ix_license_group")
    found = list_page(session, query, page, [License.id], lambda row: {"row": row})
    rows = [item["row"] for item in found["items"]]
    named = session.execute(select(App.id, App.alias_id).where(App.id.in_([row.app_id for row in rows])))
    aliases = {row.id: row.alias_id for row in named}
    # One whose app was deleted between the two reads is left out, as if the listing had come a moment later.
    found["items"] = [rendering.license_of(row, aliases[row.app_id]) for row in rows if row.app_id in aliases]
    return found


def forget_app(session: Unit, app_id: int) -> None:
    """Delete the licences of an app that is about to be deleted. The unit holds the app."""
    of_app = License.app_id == app_id
    rows = session.scalars(select(License).where(of_app).limit(FEW_LICENSES + 1)).all()
    if len(rows) <= FEW_LICENSES:
        for row in rows:
            session.delete(row)
        return
    session.execute(delete_rows(License).where(of_app), execution_options={"synchronize_session": False})


def _find(session: Unit, app_id: int, flow_id: int) -> License | None:
    query = select(License).where(License.app_id == app_id, License.group_id == flow_id)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
