"""Which plugins need which: checked before a change, and again under the graph's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, delete, or_, select, update
from sqlalchemy.orm import Session

from chalicelib.core.errors import Conflict, Invalid, Violation
from chalicelib.core.semver import parse_version, satisfies
from chalicelib.plugins.catalog import SHARED
from chalicelib.plugins.install_models import PluginDependency, PluginGraph
from chalicelib.plugins.models import ENABLED, Plugin
from chalicelib.plugins.package.manifest import Dependency

_THE_GRAPH = 1


@dataclass(frozen=True)
class Need:
    """A plugin that needs another."""

    plugin_id: str
    app_id: int
    name: str
    range: str

    def as_dict(self) -> dict[str, str]:
        return {"pluginId": self.plugin_id, "name": self.name, "range": self.range}


def lock(session: Session) -> None:
    """Take the graph's lock, first of all locks: "enable A" and "disable B, which A needs" must not pass.

    Raises
    ------
    RuntimeError
        The row that is the lock is missing: without it everyone would pass.
    """
    taken = session.execute(
        update(PluginGraph).where(PluginGraph.id == _THE_GRAPH).values(changes=PluginGraph.changes + 1)
    )
    if cast("CursorResult[Any]", taken).rowcount != 1:
        raise RuntimeError("plugin_graph has no row: the database was not migrated")


def record(session: Session, plugin_id: str, dependencies: Iterable[Dependency]) -> None:
    """Write what the now active version of a plugin needs."""
    session.execute(delete(PluginDependency).where(PluginDependency.plugin_id == plugin_id))
    for one in dependencies:
        session.add(
            PluginDependency(plugin_id=plugin_id, name=one.name, range=one.range, optional=int(one.optional))
        )


def provider(session: Session, app_id: int, name: str) -> Plugin | None:
    """Return the plugin that a dependency's name stands for: the app's own, else the oldest shared one."""
    found = session.scalars(
        select(Plugin)
        .where(Plugin.name == name, or_(Plugin.app_id == app_id, Plugin.visibility == SHARED))
        .order_by(Plugin.id)
    ).all()
    own = [plugin for plugin in found if plugin.app_id == app_id]
    return next(iter(own or found), None)


def check_dependencies(
    session: Session, app_id: int, dependencies: Iterable[Dependency], *, own_name: str, enabled: bool
) -> None:
    """Refuse a plugin whose needs are not met.

    Parameters
    ----------
    own_name
        The plugin's own name: what it needs must not need it in turn.
    enabled
        True where the providers must be enabled too (to enable), False where being installed is enough.

    Raises
    ------
    errors.Invalid
        With a violation for each dependency that is missing, in the wrong version, disabled, or in a cycle.
    """
    problems: list[Violation] = []
    for index, need in enumerate(dependencies):
        found = provider(session, app_id, need.name)
        pointer = f"/dependencies/{index}"
        if found is None:
            if not need.optional:
                problems.append(Violation(pointer, "dependency.missing", f"{need.name} is not installed"))
            continue
        if not satisfies(parse_version(found.version), need.range):
            message = f"{need.name} is installed in {found.version}, which {need.range} does not admit"
            problems.append(Violation(pointer, "dependency.version", message))
        elif enabled and not need.optional and found.is_enabled != ENABLED:
            problems.append(Violation(pointer, "dependency.disabled", f"{need.name} is not enabled"))
        if cycle := _path_back(session, found, (app_id, own_name)):
            message = "needs itself: " + " → ".join([own_name, *cycle])
            problems.append(Violation(pointer, "dependency.cycle", message))
    if problems:
        raise Invalid("The plugin's dependencies are not met.", code="plugin.dependencies", errors=problems)


def _path_back(session: Session, start: Plugin, end: tuple[int, str]) -> list[str]:
    """Return the names from `start` to the plugin that is `end` (app, name), empty where none leads there.

    A name alone is no identity: a shared plugin of another app may need one that is called the same over there.
    """
    seen: set[str] = set()
    frontier: list[tuple[Plugin, list[str]]] = [(start, [start.name])]
    while frontier:
        plugin, path = frontier.pop()
        if (plugin.app_id, plugin.name) == end:
            return path
        if plugin.plugin_id in seen:
            continue
        seen.add(plugin.plugin_id)
        needs = session.scalars(
            select(PluginDependency.name).where(PluginDependency.plugin_id == plugin.plugin_id)
        )
        for needed in needs.all():
            if (plugin.app_id, needed) == end:
                # The plugin itself may not be registered yet; an app's own comes before a shared one.
                return [*path, needed]
            found = provider(session, plugin.app_id, needed)
            if found is not None:
                frontier.append((found, [*path, needed]))
    return []


def dependents(session: Session, plugin: Plugin) -> list[Need]:
    """Return the enabled plugins that need `plugin` as it stands (optional needs do not count)."""
    found = []
    for need in _needing(session, plugin.name):
        chosen = provider(session, need.app_id, plugin.name)
        if chosen is not None and chosen.plugin_id == plugin.plugin_id:
            found.append(need)
    return found


def _needing(session: Session, name: str) -> list[Need]:
    """Return the enabled plugins that need something of this name, whosever it is."""
    rows = session.execute(
        select(Plugin, PluginDependency.range)
        .join(PluginDependency, PluginDependency.plugin_id == Plugin.plugin_id)
        .where(PluginDependency.name == name, PluginDependency.optional == 0, Plugin.is_enabled == ENABLED)
        .order_by(Plugin.id)
    ).all()
    return [Need(row.plugin_id, row.app_id, row.name, range_text) for row, range_text in rows]


def all_dependents(session: Session, plugin: Plugin) -> list[Plugin]:
    """Return every enabled plugin that needs `plugin`, directly or through others, its row locked, in the order in
    which they can be disabled: each comes before whatever it needs."""
    seen = {plugin.plugin_id}
    ordered: list[Plugin] = []
    # Depth first, by hand: a chain may be longer than Python's stack.
    open_ends = [(plugin, iter(dependents(session, plugin)))]
    while open_ends:
        current, needs = open_ends[-1]
        need = next(needs, None)
        if need is None:
            open_ends.pop()
            ordered.append(current)
        elif need.plugin_id not in seen:
            seen.add(need.plugin_id)
            query = select(Plugin).where(Plugin.plugin_id == need.plugin_id).with_for_update()
            row = session.scalars(query, execution_options={"populate_existing": True}).one()
            open_ends.append((row, iter(dependents(session, row))))
    return ordered[:-1]


def refuse_dependents(session: Session, plugin: Plugin) -> None:
    """Refuse to take away what others need.

    Raises
    ------
    errors.Conflict
        With `dependents`, those of other apps counted but not named.
    """
    needs = dependents(session, plugin)
    if needs:
        raise Conflict(
            f"{len(needs)} enabled plugin(s) need this one.",
            code="plugin.has_dependents",
            extensions=_shown(plugin.app_id, needs),
        )


def refuse_newcomer(session: Session, app_id: int, name: str) -> None:
    """Refuse a new plugin of an app that would come before the shared one which enabled plugins of it need.

    Raises
    ------
    errors.Conflict
        With `dependents`.
    """
    _refuse_replacing(app_id, [need for need in _needing(session, name) if need.app_id == app_id])


def refuse_sharing(session: Session, plugin: Plugin) -> None:
    """Refuse to share a plugin that would come before the shared one which enabled plugins of other apps need: being
    older, another tenant's plugin would become their provider unasked.

    Raises
    ------
    errors.Conflict
        With `dependentsElsewhere`.
    """
    moved = []
    for need in _needing(session, plugin.name):
        now = provider(session, need.app_id, plugin.name)
        if now is not None and now.app_id != need.app_id and plugin.id < now.id:
            moved.append(need)
    _refuse_replacing(plugin.app_id, moved)


def _refuse_replacing(app_id: int, needs: Sequence[Need]) -> None:
    if needs:
        raise Conflict(
            f"{len(needs)} enabled plugin(s) need the shared plugin of this name, which this one would replace.",
            code="plugin.replaces_provider",
            extensions=_shown(app_id, needs),
        )


def _shown(app_id: int, needs: Sequence[Need]) -> dict[str, Any]:
    """Return what the app that owns a plugin may know of those that need it."""
    own = [need.as_dict() for need in needs if need.app_id == app_id]
    return {"dependents": own, "dependentsElsewhere": len(needs) - len(own)}


def check_dependents(session: Session, plugin: Plugin, version: str) -> None:
    """Refuse to activate a version that an enabled dependent does not admit.

    Raises
    ------
    errors.Conflict
        With `dependents`, those of other apps counted but not named.
    """
    broken = [
        need for need in dependents(session, plugin) if not satisfies(parse_version(version), need.range)
    ]
    if broken:
        raise Conflict(
            f"{version} does not satisfy {len(broken)} enabled plugin(s) that need this one.",
            code="plugin.breaks_dependents",
            extensions=_shown(plugin.app_id, broken),
        )
