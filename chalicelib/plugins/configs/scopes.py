"""Whom a config is for, and which stored configs an app sees."""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from chalicelib.core.errors import NotFound
from chalicelib.plugins.configs.models import PluginConfig

GLOBAL, APP, USER = "global", "app", "user"
# From the widest to the narrowest.
SCOPES = (GLOBAL, APP, USER)
# At most 100 characters (scope_id, of 128, holds the app as well), and no blank at either end: MariaDB's collations
# call 'u1' and 'u1 ' equal, and one subject would get the other's secrets.
SUBJECT_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?$"


def scope_id(scope: str, app_id: int, subject: str | None) -> str:
    """Return what a scope's configs are filed under. A subject is named by an app, so the app comes with it: two
    tenants of a shared plugin may both have a user "1"."""
    return {GLOBAL: "", APP: str(app_id), USER: f"{app_id}:{subject}"}[scope]


def not_found() -> NotFound:
    """Return the 404 for a config."""
    return NotFound("There is no such config.", code="config.not_found")


def seen_by(app_id: int) -> ColumnElement[bool]:
    """Return the condition for the configs that an app sees: its own, and the global ones."""
    return or_(PluginConfig.app_id == app_id, PluginConfig.scope == GLOBAL)


def find(
    session: Session, app_id: int, plugin_id: str, config_id: str, *, lock: bool = False
) -> PluginConfig | None:
    query = select(PluginConfig).where(
        PluginConfig.config_id == config_id, PluginConfig.plugin_id == plugin_id, seen_by(app_id)
    )
    return session.scalars(query.with_for_update() if lock else query).one_or_none()
