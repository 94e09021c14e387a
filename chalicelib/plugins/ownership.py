"""What an app still owns, asked before the app is deleted; and holding the app while something is added to it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.tenants import hold_app
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Forbidden
from chalicelib.plugins.models import TERMINAL, Plugin, PluginInstall, PluginRemoval


def owned_by_app(session: Session, app_id: int) -> list[str]:
    """Return the kinds of things that an app owns, empty where it owns nothing.

    Raises nothing; each look-up is one row of an index.
    """
    found = []
    if session.scalars(select(Plugin.id).where(Plugin.app_id == app_id).limit(1)).first() is not None:
        found.append("plugins")
    running = select(PluginInstall.id).where(
        PluginInstall.app_id == app_id, PluginInstall.state.not_in(TERMINAL)
    )
    if session.scalars(running.limit(1)).first() is not None:
        found.append("installs")
    removals = select(PluginRemoval.plugin_id).where(PluginRemoval.app_id == app_id)
    if session.scalars(removals.limit(1)).first() is not None:
        found.append("plugins being removed")
    return found


def hold_owner(session: Unit, caller: Caller) -> None:
    """Keep the caller's app as it is until the unit ends: neither disabled nor deleted between the look at what it owns
    and what is added to it here.

    Raises
    ------
    errors.Forbidden
        `install.app_disabled`, also for an app that is gone.
    """
    app = hold_app(session, caller.app_id)
    if app is None or app.status != 1:
        raise Forbidden("The app is disabled.", code="install.app_disabled")
