"""Finding an app by its alias, for reading or for changing it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Forbidden, NotFound


def find_app(session: Session, alias_id: str) -> App:
    """Return the app of that alias.

    Raises
    ------
    errors.NotFound
        `app.not_found`
    """
    return _found(session.scalars(select(App).where(App.alias_id == alias_id)).one_or_none())


def lock_app(session: Unit, alias_id: str) -> App:
    """Return the app of that alias with its row locked: every change of an app or of what belongs to it takes
    this lock first.

    Raises
    ------
    errors.NotFound
        `app.not_found`
    """
    query = select(App).where(App.alias_id == alias_id).with_for_update()
    return _found(session.scalars(query, execution_options={"populate_existing": True}).one_or_none())


def hold_app(session: Unit, app_id: int) -> App | None:
    """Return an app that nobody can change or delete until this unit ends, None where there is none.

    A shared lock: whoever adds something to the app holds it, and does not wait for others that do the same.
    """
    query = select(App).where(App.id == app_id).with_for_update(read=True)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()


def hold_owner(session: Unit, caller: Caller, code: str = "app.disabled") -> None:
    """Keep the caller's app as it is until the unit ends: neither disabled nor deleted between its authentication and
    what is added to it here.

    Raises
    ------
    errors.Forbidden
        `code`, also for an app that is gone.
    """
    app = hold_app(session, caller.app_id)
    if app is None or app.status != 1:
        raise Forbidden("The app is disabled.", code=code)


def _found(app: App | None) -> App:
    if app is None:
        raise NotFound("There is no such app.", code="app.not_found")
    return app
