"""The configs of a version that is left: kept with it, and given back by a rollback."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.plugins.configs.models import PluginConfig


def take(session: Session, plugin_id: str) -> list[dict[str, Any]]:
    """Return the values of a plugin's configs as they are stored, secrets sealed, to be kept with a version."""
    rows = session.scalars(
        select(PluginConfig).where(PluginConfig.plugin_id == plugin_id).order_by(PluginConfig.id)
    )
    return [{"configId": row.config_id, "items": row.config_items} for row in rows]


def restore(session: Session, plugin_id: str, kept: list[dict[str, Any]]) -> None:
    """Give a plugin's configs the values of a snapshot.

    Configs that were deleted since stay deleted (a withdrawn secret must not come back), those that were added since
    stay as they are.
    """
    values = {one["configId"]: one["items"] for one in kept}
    for row in session.scalars(select(PluginConfig).where(PluginConfig.plugin_id == plugin_id)):
        if row.config_id in values:
            row.config_items = values[row.config_id]
