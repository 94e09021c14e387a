"""Making a version the active one: copying it into the registration, in the caller's unit of work.

Everything here is called under the graph's lock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import Forbidden, Invalid, Violation
from chalicelib.plugins import graph
from chalicelib.plugins.configs import snapshots, validation
from chalicelib.plugins.install_models import PluginTombstone
from chalicelib.plugins.models import DISABLED, REGISTERED, Plugin, PluginHistory, PluginVersion
from chalicelib.plugins.package.manifest import Manifest


def create(
    session: Session, caller: Caller, version: PluginVersion, manifest: Manifest, source: str
) -> Plugin:
    """Add the registration of a new plugin, disabled, with `version` active."""
    plugin = Plugin(
        plugin_id=version.plugin_id,
        app_id=caller.app_id,
        name=manifest.name,
        source=source,
        is_enabled=DISABLED,
        grants={},
        created_by=caller.credential_id,
    )
    _copy(plugin, version, manifest)
    session.add(plugin)
    graph.record(session, plugin.plugin_id, manifest.dependencies)
    note(session, caller, plugin, "install", version.version)
    return plugin


def activate(
    session: Session, caller: Caller, plugin: Plugin, version: PluginVersion, manifest: Manifest, action: str
) -> Plugin:
    """Make another version of an existing plugin the active one; its id, grants, configs and status stay.

    Parameters
    ----------
    action
        `update` or `rollback`, for the history.
    """
    outgoing = session.scalars(
        select(PluginVersion).where(
            PluginVersion.plugin_id == plugin.plugin_id, PluginVersion.version == plugin.version
        )
    ).one()
    outgoing.config_snapshot = snapshots.take(session, plugin.plugin_id)
    version_before = plugin.version
    kept = kept_configs(plugin, version, manifest) if action == "rollback" else None
    _copy(plugin, version, manifest)
    plugin.generation += 1
    if kept is not None:
        snapshots.restore(session, plugin.plugin_id, kept)
    graph.record(session, plugin.plugin_id, manifest.dependencies)
    note(session, caller, plugin, action, version.version, from_version=version_before)
    return plugin


def kept_configs(plugin: Plugin, version: PluginVersion, manifest: Manifest) -> list[dict[str, Any]] | None:
    """Return the config values that come back with `version`, kept when it was last active; None where the schema is
    the active version's, and today's values go on."""
    kept: list[dict[str, Any]] | None = version.config_snapshot
    return None if plugin.config_schema == manifest.config_schema else kept


def _copy(plugin: Plugin, version: PluginVersion, manifest: Manifest) -> None:
    plugin.version = version.version
    plugin.description = manifest.description
    plugin.author = manifest.author
    plugin.plugin_type = manifest.plugin_type
    plugin.entry_point = manifest.entry_point
    plugin.config_schema = manifest.config_schema
    plugin.params_schema = manifest.params_schema
    plugin.default_config = manifest.default_config
    plugin.icon = manifest.icon
    plugin.repository = manifest.repository
    plugin.documentation = manifest.documentation
    plugin.checksum = version.checksum
    plugin.s3_path = version.s3_path
    plugin.s3_version = version.s3_version
    plugin.manifest = version.manifest
    plugin.runtime = version.runtime
    plugin.register_status = REGISTERED
    plugin.update_time = datetime.now(UTC)


def check_configs(session: Session, plugin_id: str, manifest: Manifest) -> None:
    """Refuse a version whose configSchema the stored configs do not satisfy.

    Raises
    ------
    errors.Invalid
    """
    problems = validation.violations_against(session, plugin_id, manifest.config_schema)
    if problems:
        raise Invalid(
            "The plugin's stored configs do not fit the new configSchema.",
            code="plugin.config_incompatible",
            errors=problems,
        )


def check_granted(plugin: Plugin, manifest: Manifest) -> None:
    """Refuse what asks for more than an admin granted.

    Raises
    ------
    errors.Forbidden
        `plugin.grant_needed`, naming each host.
    """
    granted = plugin.grants.get("network", [])
    missing = [host for host in manifest.network if host not in granted]
    if missing:
        raise Forbidden(
            "The plugin asks for network access that no admin has granted.",
            code="plugin.grant_needed",
            errors=[
                Violation("/permissions/network", "grant.network", f"{host} is not granted")
                for host in missing
            ],
        )


def fresh_version(version: PluginVersion) -> PluginVersion:
    """Return an unsaved copy of a version row that was built outside the unit of work."""
    names = [column.key for column in PluginVersion.__mapper__.column_attrs]
    return PluginVersion(**{name: value for name in names if (value := getattr(version, name)) is not None})


def bound_checksum(session: Session, app_id: int, manifest: Manifest) -> str | None:
    """Return the digest under which (app, name, version) was ever registered, None for a new number."""
    return session.scalars(
        select(PluginTombstone.checksum).where(
            PluginTombstone.app_id == app_id,
            PluginTombstone.name == manifest.name,
            PluginTombstone.version == manifest.version,
        )
    ).one_or_none()


def remember(session: Session, app_id: int, manifest: Manifest, checksum: str) -> None:
    """Bind (app, name, version) to its bytes for ever; nothing to do where it is bound already."""
    if bound_checksum(session, app_id, manifest) is None:
        session.add(
            PluginTombstone(app_id=app_id, name=manifest.name, version=manifest.version, checksum=checksum)
        )


def note(
    session: Session,
    caller: Caller,
    plugin: Plugin,
    action: str,
    version: str,
    *,
    from_version: str | None = None,
    outcome: str = "done",
    detail: str = "",
) -> None:
    """Add a line to the plugin's history."""
    session.add(
        PluginHistory(
            plugin_id=plugin.plugin_id,
            app_id=plugin.app_id,
            action=action,
            version=version,
            from_version=from_version,
            outcome=outcome,
            detail=detail,
            credential_id=caller.credential_id,
            request_id=caller.request_id,
        )
    )
