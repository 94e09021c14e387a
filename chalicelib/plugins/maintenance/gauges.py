"""What operators watch and no single request knows: how many plugins there are, and what they store."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import func, select

from chalicelib.core import telemetry
from chalicelib.core.jobs import Action, Plan
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.rendering import STATUS_NAMES


def plan_gauges(context: Context) -> Plan:
    """Plan one measurement; there is always something to measure."""
    return Plan((Action("measure", "plugins", _measure(context)),))


def _measure(context: Context) -> Callable[[], bool]:
    def work() -> bool:
        with context.database.reads() as session:
            rows = session.execute(
                select(Plugin.is_enabled, func.count().label("plugins")).group_by(Plugin.is_enabled)
            ).all()
            # One walk of an index that holds both, and not of the rows with their manifests.
            sizes = select(func.sum(PluginVersion.size), func.sum(PluginVersion.compiled_size))
            stored, compiled = session.execute(sizes).one()
        counts = {row.is_enabled: row.plugins for row in rows}
        telemetry.metric("plugins.total", sum(counts.values()))
        for status, name in STATUS_NAMES.items():
            telemetry.metric(f"plugins.{name}", counts.get(status, 0))
        telemetry.metric("storage.bytes", float(stored or 0) + float(compiled or 0), "Bytes")
        return False

    return work
