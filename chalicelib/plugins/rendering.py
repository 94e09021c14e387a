"""How plugins and what belongs to them leave the service: rows as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.core.representation import timestamp
from chalicelib.plugins.models import BROKEN, DISABLED, ENABLED, Plugin, PluginHistory, PluginVersion

if TYPE_CHECKING:
    from chalicelib.plugins.install_models import PluginInstall
    from chalicelib.plugins.run_models import PluginExecution

STATUS_NAMES = {DISABLED: "disabled", ENABLED: "enabled", BROKEN: "error"}
EXECUTABLE = ("wasm", "python")


def requested_hosts(manifest: dict[str, Any]) -> list[str]:
    """Return the hosts that a manifest asks to reach."""
    return list(manifest.get("permissions", {}).get("network", []))


def summary(plugin: Plugin) -> dict[str, Any]:
    """Return what a listing shows of a plugin."""
    return {
        "pluginId": plugin.plugin_id,
        "appId": str(plugin.app_id),
        "name": plugin.name,
        "version": plugin.version,
        "description": plugin.description,
        "author": plugin.author,
        "pluginType": plugin.plugin_type,
        "entryPoint": plugin.entry_point,
        "runtime": plugin.runtime,
        "executable": plugin.runtime in EXECUTABLE,
        "visibility": plugin.visibility,
        "isEnabled": plugin.is_enabled,
        "status": STATUS_NAMES[plugin.is_enabled],
        "isBuiltin": plugin.is_builtin,
        "checksum": plugin.checksum,
        "source": plugin.source,
        "registerStatus": plugin.register_status,
        "registerError": plugin.register_error,
        "generation": str(plugin.generation),
        "updateAvailable": None,
        "installTime": timestamp(plugin.install_time),
        "updateTime": timestamp(plugin.update_time),
    }


def detail(plugin: Plugin) -> dict[str, Any]:
    """Return the whole resource of a plugin."""
    manifest = plugin.manifest
    return summary(plugin) | {
        "icon": plugin.icon,
        "repository": plugin.repository,
        "documentation": plugin.documentation,
        "configSchema": plugin.config_schema,
        "paramsSchema": plugin.params_schema,
        "defaultConfig": plugin.default_config,
        "actions": manifest.get("actions", {}),
        "dependencies": manifest.get("dependencies", []),
        "permissions": {"network": requested_hosts(manifest)},
        "grants": {"network": list(plugin.grants.get("network", []))},
        "s3Path": plugin.s3_path,
        "manifest": manifest,
    }


def version(row: PluginVersion, active: str, *, own: bool) -> dict[str, Any]:
    """Return one version.

    Parameters
    ----------
    active
        The plugin's active version.
    own
        Whether whoever reads it is of the owner's app: credentials are nobody else's business.
    """
    return {
        "pluginId": row.plugin_id,
        "version": row.version,
        "active": row.version == active,
        "checksum": row.checksum,
        "size": row.size,
        "runtime": row.runtime,
        "signedBy": row.signed_by,
        "createdBy": str(row.created_by) if own and row.created_by is not None else None,
        "createdAt": timestamp(row.created_at),
        "manifest": row.manifest,
    }


def history(row: PluginHistory, *, own: bool) -> dict[str, Any]:
    """Return one line of a plugin's history; `own` as for `version`."""
    return {
        "id": str(row.id),
        "action": row.action,
        "version": row.version,
        "fromVersion": row.from_version,
        "outcome": row.outcome,
        "detail": row.detail,
        "credentialId": str(row.credential_id) if own and row.credential_id is not None else None,
        "requestId": row.request_id if own else "",
        "at": timestamp(row.at),
    }


def install(task: PluginInstall) -> dict[str, Any]:
    """Return an install task."""
    return {
        "installId": task.install_id,
        "source": task.source,
        "filename": task.filename,
        "state": task.state,
        "step": task.step,
        "progress": task.progress,
        "attempts": task.attempts,
        "errors": task.errors or [],
        "errorCode": task.error_code,
        "timings": task.timings or {},
        "pluginId": task.result_plugin_id or task.plugin_id,
        "version": task.result_version,
        "size": task.declared_size,
        "sha256": task.declared_sha256,
        "uploadExpiresAt": timestamp(task.upload_expires_at),
        "createdAt": timestamp(task.created_at),
        "updatedAt": timestamp(task.updated_at),
    }


def execution(row: PluginExecution) -> dict[str, Any]:
    """Return one execution; its parameters and its result are not kept."""
    return {
        "executionId": row.execution_id,
        "pluginId": row.plugin_id,
        "version": row.version,
        "action": row.action,
        "subject": row.subject or None,
        "outcome": row.outcome,
        "errorCode": row.error_code,
        "durationMs": row.duration_us / 1000,
        "coldLoad": bool(row.cold_load),
        "loadMs": row.load_us / 1000,
        "memoryBytes": row.memory_bytes,
        "requestId": row.request_id,
        "startedAt": timestamp(row.started_at),
    }
