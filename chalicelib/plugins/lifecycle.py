"""What happens to a plugin after it is installed: enable, disable, roll back, uninstall, share, grant.

Whatever needs the network (loading a version once, verifying a stored object) happens before the unit of work; the
unit takes the graph's lock, looks again, and refuses if the plugin has moved on meanwhile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from chalicelib.core import audit, telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, Invalid, NotFound, TooLarge
from chalicelib.core.representation import check_if_match
from chalicelib.core.steps import declare, step
from chalicelib.plugins import activation, catalog, graph, loading, rendering
from chalicelib.plugins.configs import resolution
from chalicelib.plugins.install_models import PluginDependency, PluginRemoval
from chalicelib.plugins.models import BROKEN, DISABLED, ENABLED, Plugin, PluginHistory, PluginVersion
from chalicelib.plugins.package.manifest import Manifest, stored_manifest
from chalicelib.plugins.services import Services

STEPS = declare("lifecycle", ("load", "mark_broken", "verify", "commit"))
T = TypeVar("T")
Write = Callable[[Callable[[Unit], Any]], T]


def enable(services: Services, caller: Caller, plugin_id: str, if_match: str | None, write: Write[T]) -> T:
    """Load a plugin once and enable it.

    Parameters
    ----------
    write
        Runs the answering unit of work (`request.write`); the plugin's resource is its value.

    Raises
    ------
    errors.Forbidden
        `plugin.grant_needed`.
    errors.Invalid
        Dependencies that are not enabled; `plugin.load_failed`, after which its status is 2 with the reason.
    errors.Conflict
        It was changed while it was being loaded.
    """
    with services.database.reads() as session:
        plugin = catalog.owned(session, caller, plugin_id)
        # Before the load too: a caller that saw another state must not make this one `error`.
        check_if_match(if_match, rendering.detail(plugin))
        manifest = stored_manifest(plugin.manifest)
        if plugin.is_enabled != ENABLED:
            _check_may_run(session, plugin, manifest)
        version = _version(session, plugin, plugin.version)
    if plugin.is_enabled != ENABLED:
        _load(services, caller, plugin, version, mark_broken=True)

    def work(session: Unit) -> Any:
        graph.lock(session)
        now = catalog.owned(session, caller, plugin_id, lock=True)
        check_if_match(if_match, rendering.detail(now))
        if now.is_enabled == ENABLED:
            return rendering.detail(now)
        _refuse_if_moved(now, plugin)
        _check_may_run(session, now, manifest)
        return _changed(session, caller, now, "enable", _status(ENABLED))

    step("lifecycle", "commit")
    return write(work)


def disable(
    session: Unit, caller: Caller, plugin_id: str, if_match: str | None, *, cascade: bool
) -> dict[str, Any]:
    """Disable a plugin, and with `cascade` whatever needs it.

    Raises
    ------
    errors.Conflict
        With `dependents`, unless `cascade`.
    """
    step("lifecycle", "commit")
    graph.lock(session)
    plugin = catalog.owned(session, caller, plugin_id, lock=True)
    check_if_match(if_match, rendering.detail(plugin))
    if plugin.is_enabled == DISABLED:
        return rendering.detail(plugin)
    _release_dependents(session, caller, plugin, cascade=cascade)
    return _changed(session, caller, plugin, "disable", _status(DISABLED))


def rollback(
    services: Services,
    caller: Caller,
    plugin_id: str,
    version: str | None,
    if_match: str | None,
    write: Write[T],
) -> T:
    """Make an earlier version active again, without an upload.

    Parameters
    ----------
    version
        Which one; None for the version that was active before the present one.

    Raises
    ------
    errors.Conflict
        No such version is kept, or its stored bytes are no longer those that were registered.
    """
    with services.database.reads() as session:
        plugin = catalog.owned(session, caller, plugin_id)
        check_if_match(if_match, rendering.detail(plugin))
        target = _rollback_target(session, plugin, version)
        graph.check_dependents(session, plugin, target.version)
        manifest = stored_manifest(target.manifest)
        if plugin.is_enabled == ENABLED:
            _check_may_run(session, plugin, manifest)
    step("lifecycle", "verify")
    _verify_stored(services, target)
    if plugin.is_enabled == ENABLED:
        kept = activation.kept_configs(plugin, target, manifest)
        _load(services, caller, plugin, target, mark_broken=False, kept=kept)

    def work(session: Unit) -> Any:
        graph.lock(session)
        now = catalog.owned(session, caller, plugin_id, lock=True)
        check_if_match(if_match, rendering.detail(now))
        _refuse_if_moved(now, plugin)
        chosen = _version(session, now, target.version)
        graph.check_dependents(session, now, chosen.version)
        if now.is_enabled == ENABLED:
            _check_may_run(session, now, manifest)
        before = rendering.detail(now)
        activation.activate(session, caller, now, chosen, manifest, "rollback")
        return _audited(session, caller, now, "plugin.rollback", before)

    step("lifecycle", "commit")
    return write(work)


def uninstall(session: Unit, caller: Caller, plugin_id: str, if_match: str | None, *, cascade: bool) -> None:
    """Remove a plugin for every reader at once; the sweep deletes its objects and rows.

    With `cascade` whatever needs it is disabled, not removed: that can be undone.

    Raises
    ------
    errors.Conflict
        With `dependents`, unless `cascade`.
    """
    step("lifecycle", "commit")
    graph.lock(session)
    plugin = catalog.owned(session, caller, plugin_id, lock=True)
    before = rendering.detail(plugin)
    check_if_match(if_match, before)
    _release_dependents(session, caller, plugin, cascade=cascade)
    activation.note(session, caller, plugin, "uninstall", plugin.version)
    audit.record(session, caller, "plugin.uninstall", "plugin", plugin_id, before=before)
    session.execute(delete(PluginDependency).where(PluginDependency.plugin_id == plugin_id))
    session.add(PluginRemoval(plugin_id=plugin_id, app_id=plugin.app_id))
    session.delete(plugin)


def share(
    session: Unit, caller: Caller, plugin_id: str, if_match: str | None, visibility: str
) -> dict[str, Any]:
    """Set who sees a plugin.

    Raises
    ------
    errors.Conflict
        Taking back what enabled plugins of other apps need, or replacing it by sharing an older plugin of its name.
    """
    step("lifecycle", "commit")
    graph.lock(session)
    plugin = catalog.owned(session, caller, plugin_id, lock=True)
    check_if_match(if_match, rendering.detail(plugin))
    if plugin.visibility == visibility:
        return rendering.detail(plugin)
    if visibility == "private":
        elsewhere = [need for need in graph.dependents(session, plugin) if need.app_id != plugin.app_id]
        if elsewhere:
            raise Conflict(
                f"{len(elsewhere)} enabled plugin(s) of other apps need this one.",
                code="plugin.has_dependents",
                extensions={"dependents": [], "dependentsElsewhere": len(elsewhere)},
            )
    else:
        graph.refuse_sharing(session, plugin)

    def set_visibility(row: Plugin) -> None:
        row.visibility = visibility

    return _changed(session, caller, plugin, "share", set_visibility)


def grant(
    session: Unit, caller: Caller, plugin_id: str, if_match: str | None, hosts: list[str]
) -> dict[str, Any]:
    """Set which hosts a plugin may reach; taking one away disables a plugin that asks for it.

    A host may be granted before a version that asks for it arrives.
    """
    step("lifecycle", "commit")
    graph.lock(session)
    plugin = catalog.owned(session, caller, plugin_id, lock=True)
    check_if_match(if_match, rendering.detail(plugin))
    lost = [host for host in rendering.requested_hosts(plugin.manifest) if host not in hosts]
    if lost and plugin.is_enabled == ENABLED:
        _release_dependents(session, caller, plugin, cascade=False)

    def set_grants(row: Plugin) -> None:
        row.grants = {"network": sorted(set(hosts))}
        if lost and row.is_enabled == ENABLED:
            row.is_enabled = DISABLED

    return _changed(session, caller, plugin, "grant", set_grants)


# -- shared by the above -------------------------------------------------------------------------------------------


def _status(status: int) -> Callable[[Plugin], None]:
    def change(plugin: Plugin) -> None:
        plugin.is_enabled = status
        plugin.register_error = None

    return change


def _changed(
    session: Unit, caller: Caller, plugin: Plugin, action: str, change: Callable[[Plugin], None]
) -> dict[str, Any]:
    """Change a locked plugin, with its history and audit rows, and return its resource."""
    before = rendering.detail(plugin)
    change(plugin)
    plugin.generation += 1
    activation.note(session, caller, plugin, action, plugin.version)
    return _audited(session, caller, plugin, f"plugin.{action}", before)


def _audited(
    session: Unit, caller: Caller, plugin: Plugin, action: str, before: dict[str, Any]
) -> dict[str, Any]:
    session.flush()
    after = rendering.detail(plugin)
    audit.record(session, caller, action, "plugin", plugin.plugin_id, before=before, after=after)
    telemetry.event("plugin.reloaded", pluginId=plugin.plugin_id, version=plugin.version, action=action)
    return after


def _check_may_run(session: Session, plugin: Plugin, manifest: Manifest) -> None:
    activation.check_granted(plugin, manifest)
    graph.check_dependencies(
        session, plugin.app_id, manifest.dependencies, own_name=plugin.name, enabled=True
    )


def _release_dependents(session: Unit, caller: Caller, plugin: Plugin, *, cascade: bool) -> None:
    if not cascade:
        graph.refuse_dependents(session, plugin)
        return
    found = graph.all_dependents(session, plugin)
    elsewhere = [row for row in found if row.app_id != plugin.app_id]
    if elsewhere:
        # A publisher must not switch off what belongs to another tenant.
        own = [need.as_dict() for need in graph.dependents(session, plugin) if need.app_id == plugin.app_id]
        raise Conflict(
            f"{len(elsewhere)} enabled plugin(s) of other apps need this one, directly or through others.",
            code="plugin.has_dependents",
            extensions={"dependents": own, "dependentsElsewhere": len(elsewhere)},
        )
    for row in found:
        _changed(session, caller, row, "disable", _status(DISABLED))


def _refuse_if_moved(now: Plugin, seen: Plugin) -> None:
    if now.generation != seen.generation:
        raise Conflict("The plugin was changed meanwhile; try again.", code="plugin.changed", retry_after=1)


def _version(session: Session, plugin: Plugin, version: str) -> PluginVersion:
    row = catalog.version_row(session, plugin.plugin_id, version)
    if row is None:
        raise NotFound("The plugin has no such version.", code="plugin.version_not_found")
    return row


def _load(
    services: Services,
    caller: Caller,
    plugin: Plugin,
    version: PluginVersion,
    *,
    mark_broken: bool,
    kept: list[dict[str, Any]] | None = None,
) -> None:
    candidate = catalog.registration(plugin, version)
    config = resolution.resolve(
        services.database,
        services.cache,
        candidate,
        app_id=plugin.app_id,
        subject=None,
        config_id=None,
        kept=kept,
    )
    step("lifecycle", "load")
    try:
        loading.smoke_load(
            services.storage,
            services.functions,
            candidate,
            tenant=caller.alias_id,
            config=config,
            cache=loading.cache_state(services.cache),
        )
    except Invalid as error:
        if mark_broken:
            step("lifecycle", "mark_broken")
            reason = "; ".join(problem.message for problem in error.errors)[:2000] or error.detail
            services.database.run(lambda session: _mark_broken(session, caller, plugin, reason))
        raise


def _mark_broken(session: Unit, caller: Caller, seen: Plugin, reason: str) -> None:
    graph.lock(session)
    now = catalog.owned(session, caller, seen.plugin_id, lock=True)
    if now.generation != seen.generation:
        return
    now.is_enabled = BROKEN
    now.register_error = reason
    now.generation += 1
    activation.note(session, caller, now, "enable", now.version, outcome="failed", detail=reason)
    audit.record(session, caller, "plugin.load_failed", "plugin", now.plugin_id, after=rendering.detail(now))


def _rollback_target(session: Session, plugin: Plugin, version: str | None) -> PluginVersion:
    if version is None:
        version = session.scalars(
            select(PluginHistory.from_version)
            .where(
                PluginHistory.plugin_id == plugin.plugin_id,
                PluginHistory.version == plugin.version,
                PluginHistory.from_version.is_not(None),
            )
            .order_by(PluginHistory.id.desc())
            .limit(1)
        ).one_or_none()
    row = catalog.version_row(session, plugin.plugin_id, version) if version else None
    if row is None:
        missing = f"There is no version {version}" if version else "There is no earlier version"
        raise Conflict(f"{missing} to go back to.", code="plugin.no_such_version")
    if row.version == plugin.version:
        raise Conflict(f"{row.version} is the active version.", code="plugin.version_active")
    return row


def _verify_stored(services: Services, version: PluginVersion) -> None:
    """Refuse a stored object that is gone or is not what was hashed; S3's own checksum saves the download."""
    info = services.storage.head(version.s3_path, version.s3_version)
    found = info.checksum_sha256 if info else None
    if info is not None and found is None:
        found = _stored_checksum(services, version)
    if found != version.checksum:
        telemetry.event("plugin.stored_object_differs", pluginId=version.plugin_id, version=version.version)
        raise Conflict("The stored package is not what was registered.", code="plugin.artifact_damaged")


def _stored_checksum(services: Services, version: PluginVersion) -> str | None:
    with tempfile.TemporaryFile() as file:
        try:
            return services.storage.download(
                version.s3_path, version.s3_version, file, max_bytes=version.size
            ).sha256
        except TooLarge:
            # More bytes than were registered: other bytes.
            return None
