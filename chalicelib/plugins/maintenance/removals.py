"""Finishing uninstalls: the plugin is gone for every reader, its objects and rows are still there.

First the objects, then the rows that name them, last the row that says what is left to do: a kill anywhere leaves that
row, and everything before it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import load_only

from chalicelib.core.database import Unit
from chalicelib.core.jobs import Action
from chalicelib.core.steps import step
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import PluginRemoval
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.maintenance.objects import PLUGINS, Name
from chalicelib.plugins.models import PluginVersion

REMOVALS = 100
OBJECTS = 100
ROWS = 50


def plan_removals(context: Context) -> list[Action]:
    """Return an action for each uninstalled plugin that is still to be removed, the oldest first."""
    query = select(PluginRemoval.plugin_id).order_by(PluginRemoval.created_at).limit(REMOVALS)
    with context.database.reads() as session:
        found = session.scalars(query).all()
    return [Action("remove_plugin", plugin_id, _remove(context, plugin_id)) for plugin_id in found]


def _remove(context: Context, plugin_id: str) -> Callable[[], bool]:
    def work() -> bool:
        more = _objects(context, plugin_id) or _versions(context, plugin_id) or _configs(context, plugin_id)
        if not more:
            step("sweep", "forget_removal")
            gone = delete(PluginRemoval).where(PluginRemoval.plugin_id == plugin_id)
            context.database.run(lambda session: session.execute(gone))
        return more

    return work


def _objects(context: Context, plugin_id: str) -> bool:
    """Delete some of the plugin's packages, whatever their version; False when none are left."""
    some: list[Name] = []
    for found in context.storage.list_versions(f"{PLUGINS}{plugin_id}/"):
        some.append((found.key, found.version_id))
        if len(some) == OBJECTS:
            break
    for key, version_id in some:
        step("sweep", "delete_package")
        context.storage.delete(key, version_id)
    return bool(some)


def _versions(context: Context, plugin_id: str) -> bool:
    """Delete some of the plugin's compiled modules and version rows; False when none are left."""
    query = (
        select(PluginVersion)
        .where(PluginVersion.plugin_id == plugin_id)
        # Without the manifests.
        .options(
            load_only(PluginVersion.plugin_id, PluginVersion.compiled_path, PluginVersion.compiled_version)
        )
        .order_by(PluginVersion.id)
        .limit(ROWS)
    )
    with context.database.reads() as session:
        rows = session.scalars(query).all()
    for row in rows:
        # Each registration stores its own object version, so no other row names this one.
        if row.compiled_path is not None and row.compiled_version is not None:
            step("sweep", "delete_compiled")
            context.storage.delete(row.compiled_path, row.compiled_version)
    ids = [row.id for row in rows]

    def work(session: Unit) -> None:
        for row in session.scalars(query.where(PluginVersion.id.in_(ids))):
            session.delete(row)

    if ids:
        step("sweep", "delete_versions")
        context.database.run(work)
    return bool(ids)


def _configs(context: Context, plugin_id: str) -> bool:
    """Delete some of the plugin's configs; False when none are left."""
    query = (
        select(PluginConfig)
        .where(PluginConfig.plugin_id == plugin_id)
        .options(load_only(PluginConfig.plugin_id))
        .limit(ROWS)
    )
    with context.database.reads() as session:
        found = session.scalars(query).first() is not None

    def work(session: Unit) -> None:
        for row in session.scalars(query):
            session.delete(row)

    if found:
        step("sweep", "delete_configs")
        context.database.run(work)
    return found
