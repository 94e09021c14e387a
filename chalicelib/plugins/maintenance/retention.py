"""What is not kept for ever: versions beyond the newest ten, executions and metrics beyond thirty days.

History, tombstones and the audit log stay: they are small, and they answer for what was done.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, load_only
from sqlalchemy.orm.attributes import flag_modified

from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.housekeeping import COUNTED, plan_rows
from chalicelib.core.jobs import Action, Plan
from chalicelib.core.steps import declare, step
from chalicelib.plugins import activation, graph
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.maintenance.objects import Name, delete_unnamed
from chalicelib.plugins.models import Plugin, PluginHistory, PluginVersion
from chalicelib.plugins.run_models import PluginExecution, PluginMetric

STEPS = declare("retention", ("delete_versions", "delete_objects", "delete_metrics"))
KEPT_VERSIONS = 10
KEPT = timedelta(days=30)
PLUGINS_A_RUN = 200
# Rows of one unit, which holds the graph's lock.
VERSIONS_A_UNIT = 20
METRICS_A_UNIT = 500


def plan_versions(context: Context) -> Plan:
    """Delete the versions beyond the newest ten of each plugin.

    The active version stays, and so does the one that a rollback without a version would go back to.
    """
    many = (
        select(PluginVersion.plugin_id)
        .group_by(PluginVersion.plugin_id)
        .having(func.count() > KEPT_VERSIONS)
        .order_by(PluginVersion.plugin_id)
    )
    actions: list[Action] = []
    with context.database.reads() as session:
        for plugin_id in session.scalars(many).all():
            if len(actions) == PLUGINS_A_RUN:
                return Plan(tuple(actions), more=True)
            plugin = session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one_or_none()
            # None: it is being uninstalled, and the sweep removes everything.
            if plugin is not None and (doomed := _beyond(session, plugin)):
                work = _retire(context, plugin_id)
                actions.append(Action("retire_versions", plugin_id, work, len(doomed)))
    return Plan(tuple(actions))


def _beyond(session: Session, plugin: Plugin) -> list[int]:
    """Return the ids of the version rows that need not be kept, the oldest first."""
    rows = session.execute(
        select(PluginVersion.id, PluginVersion.version)
        .where(PluginVersion.plugin_id == plugin.plugin_id)
        .order_by(PluginVersion.id.desc())
    ).all()
    before = session.scalars(
        select(PluginHistory.from_version)
        .where(
            PluginHistory.plugin_id == plugin.plugin_id,
            PluginHistory.version == plugin.version,
            PluginHistory.from_version.is_not(None),
        )
        .order_by(PluginHistory.id.desc())
        .limit(1)
    ).one_or_none()
    kept = {plugin.version, before}
    return [id_ for id_, version in reversed(rows[KEPT_VERSIONS:]) if version not in kept]


def _retire(context: Context, plugin_id: str) -> Callable[[], bool]:
    def work() -> bool:
        step("retention", "delete_versions")
        objects, more = context.database.run(lambda session: _delete_versions(session, plugin_id))
        # Killed here, they are orphans, and the sweep finds them.
        delete_unnamed(context, "retention", "delete_objects", objects)
        return more

    return work


def _delete_versions(session: Unit, plugin_id: str) -> tuple[list[Name], bool]:
    """Delete some version rows; return the objects that they named, and whether there are more rows."""
    graph.lock(session)
    query = select(Plugin).where(Plugin.plugin_id == plugin_id)
    plugin = session.scalars(query.with_for_update()).one_or_none()
    # Looked at again under the lock: what is active now is not what was active when this was planned.
    doomed = [] if plugin is None else _beyond(session, plugin)
    if plugin is None or not doomed:
        return [], False
    rows = session.scalars(
        select(PluginVersion)
        .where(PluginVersion.id.in_(doomed[:VERSIONS_A_UNIT]))
        .options(load_only(*_NAMES))
        .order_by(PluginVersion.id)
    ).all()
    caller = Caller(plugin.app_id, "", 0, "admin", "job/retain_versions")
    for row in rows:
        activation.note(session, caller, plugin, "retire", row.version)
        state = {"version": row.version, "checksum": row.checksum}
        audit.record(session, caller, "plugin.retire", "plugin", plugin_id, before=state)
        session.delete(row)
    # An update or rollback that has already chosen one of these rows finds that the plugin has moved on; nothing that
    # a reader sees has changed, so its time stays.
    plugin.generation += 1
    flag_modified(plugin, "update_time")
    return [name for row in rows for name in _objects(row)], len(doomed) > VERSIONS_A_UNIT


_NAMES = (
    PluginVersion.plugin_id,
    PluginVersion.version,
    PluginVersion.checksum,
    PluginVersion.s3_path,
    PluginVersion.s3_version,
    PluginVersion.compiled_path,
    PluginVersion.compiled_version,
)


def _objects(row: PluginVersion) -> list[Name]:
    names = [(row.s3_path, row.s3_version)]
    if row.compiled_path is not None and row.compiled_version is not None:
        names.append((row.compiled_path, row.compiled_version))
    return names


def plan_executions(context: Context) -> Plan:
    """Delete executions and metrics beyond thirty days."""
    before = context.now() - KEPT
    old = PluginExecution.started_at < before
    rows = plan_rows(context.database, PluginExecution, PluginExecution.id, old, PluginExecution.started_at)
    minute = int(before.timestamp()) // 60
    with context.database.reads() as session:
        some = select(PluginMetric.minute).where(PluginMetric.minute < minute).limit(COUNTED).subquery()
        metrics = session.scalar(select(func.count()).select_from(some)) or 0
    if not metrics:
        return rows
    action = Action("delete_rows", PluginMetric.__tablename__, _delete_metrics(context, minute), metrics)
    return Plan((*rows.actions, action), more=rows.more or metrics == COUNTED)


def _delete_metrics(context: Context, before: int) -> Callable[[], bool]:
    """Return work that deletes metric rows by whole minutes, about `METRICS_A_UNIT` at a time."""

    def batch(session: Unit) -> bool:
        minutes = (
            select(PluginMetric.minute).where(PluginMetric.minute < before).order_by(PluginMetric.minute)
        )
        last = session.scalars(minutes.offset(METRICS_A_UNIT - 1).limit(1)).one_or_none()
        through = before - 1 if last is None else last
        gone = delete(PluginMetric).where(PluginMetric.minute <= through)
        session.execute(gone, execution_options={"synchronize_session": False})
        return last is not None

    def work() -> bool:
        step("retention", "delete_metrics")
        return context.database.run(batch)

    return work
