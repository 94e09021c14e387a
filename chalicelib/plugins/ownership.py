"""What an app still owns, asked before the app is deleted; and holding the app while something is added to it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps import tenants
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.plugins.install_models import TERMINAL, PluginInstall, PluginRemoval
from chalicelib.plugins.models import Plugin


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
    """Hold the caller's app while something is installed into it; see `tenants.hold_owner`.

    Raises
    ------
    errors.Forbidden
        `install.app_disabled`, also for an app that is gone.
    """
    tenants.hold_owner(session, caller, code="install.app_disabled")
