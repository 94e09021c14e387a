"""What an app can run: the actions of its enabled plugins and of those that are shared with it.

Read for lists of thousands, so nothing here asks the database once per plugin. Which plugins there are depends on all
of them and is read anew whenever one changes (one row each, by an index); what a plugin can do depends on it alone and
is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Table, select
from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.plugins.catalog import SHARED
from chalicelib.plugins.execution import DEFAULT_ACTION
from chalicelib.plugins.models import ENABLED, Plugin
from chalicelib.plugins.rendering import EXECUTABLE, requested_hosts

T = TypeVar("T")
MOST_PLUGINS = 20_000
"""Own ones, and as many shared ones; what was installed after them can be run, but is not listed."""

# A manifest has up to 256 KiB.
_AT_ONCE = 100
_PLUGIN = cast(Table, Plugin.__table__)


@dataclass(frozen=True)
class Runnable:
    """A plugin that an app can run now."""

    plugin_id: str
    name: str
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Action:
    """One action as its plugin's manifest declares it.

    Parameters
    ----------
    params_schema, returns_schema
        JSON Schemas, None where the manifest promises nothing.
    reaches_out
        The plugin asks to reach hosts.
    """

    plugin_id: str
    plugin_name: str
    name: str
    description: str
    params_schema: Any
    returns_schema: Any
    reaches_out: bool


def runnable(database: DatabaseService, cache: HotCache, app_id: int) -> list[Runnable]:
    """Return the enabled plugins that an app owns or is let use, with the names of their actions."""
    plugins = cache.load(("plugins.enabled", app_id), lambda session: _enabled(session, app_id))
    names = dict(plugins)
    actions = _kept(database, cache, "plugin.action_names", names, lambda row: tuple(_declared(row)))
    return [
        Runnable(plugin_id, name, actions[plugin_id]) for plugin_id, name in plugins if plugin_id in actions
    ]


def plugins_by_name(cache: HotCache, app_id: int) -> Mapping[str, str]:
    """Return the ids of the enabled plugins that an app owns or is let use, by name; shared between requests, so never
    changed.

    Of several of one name the app's own, and of those the newest.
    """
    return cache.load(
        ("plugins.by_name", app_id), lambda session: _by_name(session, app_id), lambda found: 200 * len(found)
    )


def _by_name(session: Session, app_id: int) -> tuple[Mapping[str, str], list[Dependency]]:
    found: dict[str, str] = {}
    for condition in (_PLUGIN.c.visibility == SHARED, _PLUGIN.c.app_id == app_id):
        found |= {name: plugin_id for plugin_id, name in _ids_and_names(session, condition).items()}
    return found, [("plugins", "*")]


def actions_of(
    database: DatabaseService, cache: HotCache, plugin_ids: Iterable[str]
) -> dict[str, dict[str, Action]]:
    """Return the actions of a page of plugins, by plugin and name; without plugins that are gone."""
    return _kept(database, cache, "plugin.actions", plugin_ids, _actions)


def _enabled(session: Session, app_id: int) -> tuple[tuple[tuple[str, str], ...], list[Dependency]]:
    found: dict[str, str] = {}
    for condition in (_PLUGIN.c.app_id == app_id, _PLUGIN.c.visibility == SHARED):
        found |= _ids_and_names(session, condition)
    return tuple(found.items()), [("plugins", "*")]


def _ids_and_names(session: Session, condition: ColumnElement[bool]) -> dict[str, str]:
    rows = session.execute(
        select(_PLUGIN.c.plugin_id, _PLUGIN.c.name)
        .where(condition, _PLUGIN.c.is_enabled == ENABLED, _PLUGIN.c.runtime.in_(EXECUTABLE))
        .order_by(_PLUGIN.c.id)
        .limit(MOST_PLUGINS)
    )
    return {row.plugin_id: row.name for row in rows}


def _kept(
    database: DatabaseService,
    cache: HotCache,
    kind: str,
    plugin_ids: Iterable[str],
    read: Callable[[Any], T],
) -> dict[str, T]:
    """Return something of each plugin, from the cache where it is there."""
    found: dict[str, T] = {}
    missing: list[str] = []
    for plugin_id in dict.fromkeys(plugin_ids):
        value = cache.get((kind, plugin_id))
        if value is None:
            missing.append(plugin_id)
        else:
            found[plugin_id] = value
    stamp = cache.stamp()
    for some in _chunks(missing):
        with database.reads() as session:
            rows = session.execute(
                select(_PLUGIN.c.plugin_id, _PLUGIN.c.name, _PLUGIN.c.description, _PLUGIN.c.params_schema)
                .add_columns(_PLUGIN.c.manifest)
                .where(_PLUGIN.c.plugin_id.in_(some))
            ).all()
        for row in rows:
            found[row.plugin_id] = read(row)
            cache.put((kind, row.plugin_id), found[row.plugin_id], [("plugins", row.plugin_id)], stamp)
    return found


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _declared(row: Any) -> dict[str, dict[str, Any]]:
    """Return what a manifest declares; one that declares nothing has its default action."""
    return row.manifest.get("actions") or {DEFAULT_ACTION: {}}


def _actions(row: Any) -> dict[str, Action]:
    return {
        name: Action(
            plugin_id=row.plugin_id,
            plugin_name=row.name,
            name=name,
            description=declared.get("description") or row.description,
            params_schema=declared.get("paramsSchema", row.params_schema),
            returns_schema=declared.get("returnsSchema"),
            reaches_out=bool(requested_hosts(row.manifest)),
        )
        for name, declared in _declared(row).items()
    }
