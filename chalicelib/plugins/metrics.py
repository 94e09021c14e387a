"""What ran how often, how well and how fast: counted per minute, read per window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from chalicelib.core.caller import Caller
from chalicelib.core.paging import through
from chalicelib.core.representation import timestamp
from chalicelib.plugins import catalog, rendering
from chalicelib.plugins.models import Plugin
from chalicelib.plugins.run_models import PluginMetric

# Upper bounds in milliseconds of the histogram's buckets; stored rows refer to them by index, so only append. A plugin
# runs 25 s at most, and the gateway ends a request at 29.
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 25_000, 30_000)
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
WINDOW_PATTERN = "^([1-9][0-9]{0,3}m|[1-9][0-9]{0,2}h|[1-9]d|[12][0-9]d|30d)$"
# The answer is one array; beyond this many of the newest plugins it would be no overview.
MAX_PLUGINS = 1_000
# Ids of one look-up: a statement of more than 15 KB would pin a proxied session.
_LOOKED_UP = 100


def bucket(duration_ms: float) -> int:
    """Return the histogram bucket of a duration; the last one takes everything above."""
    return next((index for index, bound in enumerate(BOUNDS_MS) if duration_ms <= bound), len(BOUNDS_MS) - 1)


def window_minutes(text: str) -> int:
    """Return the minutes of a window such as `15m`, `24h` or `7d` that matches `WINDOW_PATTERN`."""
    return int(text[:-1]) * _MINUTES[text[-1]]


def percentile(histogram: Mapping[int, int], quantile: float) -> float | None:
    """Return a quantile in milliseconds, interpolated within its bucket; None for an empty histogram.

    Parameters
    ----------
    histogram
        Bucket → count.
    quantile
        0.5 for the median.
    """
    wanted = sum(histogram.values()) * quantile
    if not wanted:
        return None
    seen = 0
    for index in sorted(histogram):
        count = histogram[index]
        if count and seen + count >= wanted:
            lower = BOUNDS_MS[index - 1] if index else 0
            return round(lower + (BOUNDS_MS[index] - lower) * (wanted - seen) / count, 3)
        seen += count
    raise AssertionError("unreachable")


def count(
    session: Session,
    *,
    plugin_id: str,
    app_id: int,
    version: str,
    at: datetime,
    duration_ms: float,
    error_code: str | None,
    cold_load: bool,
    load_us: int,
    memory_bytes: int,
) -> None:
    """Add one execution to its minute: a single statement, so that concurrent functions lose none.

    It locks a row that other executions of the plugin want, so it belongs at the end of the unit of work.
    """
    row = {
        "plugin_id": plugin_id,
        "app_id": app_id,
        "version": version,
        "minute": int(at.timestamp()) // 60,
        "bucket": bucket(duration_ms),
        "executions": 1,
        "errors": int(error_code is not None),
        "cold_loads": int(cold_load),
        "load_us": load_us,
        "memory_bytes": memory_bytes,
        "last_at": at,
        "last_error": error_code,
        "last_error_at": at if error_code is not None else None,
    }
    added = ("executions", "errors", "cold_loads", "load_us")
    changes: dict[str, Any] = {name: getattr(PluginMetric, name) + row[name] for name in added}
    changes |= {
        name: _greater(getattr(PluginMetric, name), row[name]) for name in ("memory_bytes", "last_at")
    }
    if error_code is not None:
        changes |= {"last_error": error_code, "last_error_at": at}
    if session.get_bind().dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        keys = [column.name for column in PluginMetric.__table__.primary_key]
        session.execute(
            sqlite.insert(PluginMetric).values(row).on_conflict_do_update(index_elements=keys, set_=changes)
        )
        return
    from sqlalchemy.dialects import mysql

    session.execute(mysql.insert(PluginMetric).values(row).on_duplicate_key_update(changes))


def _greater(column: InstrumentedAttribute[Any], value: Any) -> Any:
    return case((column < value, value), else_=column)


@dataclass
class _Sums:
    """What one plugin did in a window."""

    histogram: dict[int, int] = field(default_factory=dict)
    errors: int = 0
    cold_loads: int = 0
    load_us: int = 0
    memory_bytes: int = 0
    last_at: datetime | None = None
    last_error: str | None = None


def summary(
    session: Session, caller: Caller, minutes: int, *, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Return a line for each plugin of the caller's app, and for each shared one that the app ran, newest first.

    Parameters
    ----------
    minutes
        How far back, whole minutes; the present one counts as the last.
    """
    since = int((now or datetime.now(UTC)).timestamp()) // 60 - minutes + 1
    sums = _sums(session, caller.app_id, since)
    plugins = sorted(_plugins(session, caller, sums), key=lambda plugin: plugin.id, reverse=True)
    return [_line(plugin, sums.get(plugin.plugin_id, _Sums())) for plugin in plugins[:MAX_PLUGINS]]


def _plugins(session: Session, caller: Caller, ran: Iterable[str]) -> list[Plugin]:
    """Return the app's own plugins, the newest, and those of others that ran and are shared. One statement with an OR
    would sort every plugin of the app."""
    own = select(Plugin).where(Plugin.app_id == caller.app_id).order_by(Plugin.id.desc()).limit(MAX_PLUGINS)
    found = list(session.scalars(through(own, Plugin, "ix_t_plugin_app")))
    others = sorted(set(ran) - {plugin.plugin_id for plugin in found})
    for start in range(0, len(others), _LOOKED_UP):
        some = Plugin.plugin_id.in_(others[start : start + _LOOKED_UP])
        shared = select(Plugin).where(
            some, Plugin.visibility == catalog.SHARED, Plugin.app_id != caller.app_id
        )
        found += session.scalars(shared)
    return found


def _sums(session: Session, app_id: int, since: int) -> dict[str, _Sums]:
    metric = PluginMetric
    window = and_(metric.app_id == app_id, metric.minute >= since)
    found: defaultdict[str, _Sums] = defaultdict(_Sums)
    grouped = (
        select(
            metric.plugin_id,
            metric.bucket,
            func.sum(metric.executions),
            func.sum(metric.errors),
            func.sum(metric.cold_loads),
            func.sum(metric.load_us),
            func.max(metric.memory_bytes),
            func.max(metric.last_at),
        )
        .where(window)
        .group_by(metric.plugin_id, metric.bucket)
    )
    for plugin_id, index, executions, errors, cold_loads, load_us, memory_bytes, last_at in session.execute(
        grouped
    ):
        sums = found[plugin_id]
        # MySQL sums integers to decimals.
        sums.histogram[index] = int(executions)
        sums.errors += int(errors)
        sums.cold_loads += int(cold_loads)
        sums.load_us += int(load_us)
        sums.memory_bytes = max(sums.memory_bytes, memory_bytes)
        sums.last_at = max(sums.last_at or last_at, last_at)
    for plugin_id, last_error in session.execute(_last_errors(window)):
        found[plugin_id].last_error = last_error
    return dict(found)


def _last_errors(window: Any) -> Any:
    """The newest error of each plugin: a rank within the window, which all three databases have."""
    rank = func.row_number().over(
        partition_by=PluginMetric.plugin_id, order_by=(PluginMetric.last_error_at.desc(), PluginMetric.bucket)
    )
    ranked = (
        select(PluginMetric.plugin_id, PluginMetric.last_error, rank.label("place"))
        .where(window, PluginMetric.last_error.is_not(None))
        .subquery()
    )
    return select(ranked.c.plugin_id, ranked.c.last_error).where(ranked.c.place == 1)


def _line(plugin: Plugin, sums: _Sums) -> dict[str, Any]:
    executions = sum(sums.histogram.values())
    return {
        "pluginId": plugin.plugin_id,
        "name": plugin.name,
        "type": plugin.plugin_type,
        "version": plugin.version,
        "path": plugin.s3_path,
        "description": plugin.description,
        "status": rendering.STATUS_NAMES[plugin.is_enabled],
        "executions": executions,
        "errors": sums.errors,
        "errorRate": round(sums.errors / executions, 4) if executions else 0.0,
        "lastError": sums.last_error,
        "lastExecutedAt": timestamp(sums.last_at),
        "p50Ms": percentile(sums.histogram, 0.5),
        "p95Ms": percentile(sums.histogram, 0.95),
        "coldLoads": sums.cold_loads,
        "loadMs": round(sums.load_us / sums.cold_loads / 1000, 3) if sums.cold_loads else None,
        "memoryBytes": sums.memory_bytes,
    }
