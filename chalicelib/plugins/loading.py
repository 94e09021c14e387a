"""Handing a plugin to the runtime function: the invocation's payload, and the smoke load before a plugin goes live."""

from __future__ import annotations

from typing import Any

from chalicelib.core.errors import Invalid, UpstreamFailed, Violation
from chalicelib.core.functions import Functions
from chalicelib.core.hotcache import HotCache
from chalicelib.core.settings import settings
from chalicelib.core.storage import Storage
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.package.manifest import stored_manifest

# The invocation itself is over long before; a frozen environment must not find a stale URL still good.
PRESIGNED_S = 120
# What the runtime adds around a load: unpacking, starting a child.
LOAD_MARGIN_MS = 2_000


def runtime_function(found: Registration) -> str:
    """Return the function that may run this plugin: only what was granted hosts runs where there is a network."""
    return settings().runtime_network_function if found.granted_hosts else settings().runtime_function


def payload(
    storage: Storage, found: Registration, *, operation: str, config: dict[str, Any], timeout_ms: int
) -> dict[str, Any]:
    """Return the runtime function's event but for what an execution adds.

    Parameters
    ----------
    operation
        `load` (load and init once) or `execute`.
    config
        The configuration in force, secrets in the clear: it goes to the runtime and nowhere else.
    timeout_ms
        Milliseconds that the plugin's own work may take.
    """
    resources = stored_manifest(found.resource["manifest"]).resources
    compiled = None
    if found.compiled_path is not None:
        compiled = {
            "url": storage.presign_get(found.compiled_path, found.compiled_version, PRESIGNED_S),
            "engine": found.compiled_engine,
            "checksum": found.compiled_sha256,
            "sizeBytes": found.compiled_size,
        }
    return {
        "operation": operation,
        "plugin": {
            "pluginId": found.plugin_id,
            "version": found.version,
            "checksum": found.checksum,
            "runtime": found.runtime,
            "entryPoint": found.entry_point,
            "resources": {
                "cpuMillis": resources.cpu_millis,
                "memoryBytes": resources.memory_bytes,
                "diskBytes": resources.disk_bytes,
                "timeoutMs": resources.timeout_ms,
            },
            "network": list(found.granted_hosts),
        },
        "artifact": {
            "url": storage.presign_get(found.s3_path, found.s3_version, PRESIGNED_S),
            "sizeBytes": found.size,
        },
        "compiled": compiled,
        "config": config,
        "timeoutMs": timeout_ms,
        "loadTimeoutMs": settings().load_timeout_s * 1000,
    }


def cache_state(cache: HotCache) -> dict[str, Any]:
    """Return what tells a runtime environment which loaded plugins are out of date."""
    version, epoch = cache.version("plugins")
    return {"version": version, "epoch": epoch, "changes": cache.recent_changes("plugins")}


def smoke_load(
    storage: Storage,
    functions: Functions,
    found: Registration,
    *,
    tenant: str,
    config: dict[str, Any],
    cache: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Load and initialise a version once, before it is enabled or becomes active.

    Parameters
    ----------
    tenant
        alias_id of the owner: environments are per tenant.
    cache
        `cache_state` of the calling process.

    Returns
    -------
    The runtime's answer. Plugins that nothing executes (`none`) are not loaded; the answer is then empty.

    Raises
    ------
    errors.Invalid
        `plugin.load_failed`, with what the plugin said, and its `logs`.
    errors.Unavailable, errors.UpstreamFailed, errors.UpstreamTimeout
        The runtime could not be asked.
    """
    if found.runtime not in ("wasm", "python"):
        return {}
    timeout_ms = settings().load_timeout_s * 1000
    event = payload(storage, found, operation="load", config=config, timeout_ms=timeout_ms)
    if cache is not None:
        event["cache"] = cache
    answer = functions.invoke(
        runtime_function(found), event, tenant=tenant, timeout_ms=timeout_ms + LOAD_MARGIN_MS
    )
    if answer.get("ok"):
        return answer
    error = answer.get("error") or {}
    if error.get("kind") == "internal":
        raise UpstreamFailed("The runtime failed while it loaded the plugin.", code="runtime.failed")
    message = str(error.get("message", "it did not load"))[:2000]
    raise Invalid(
        "The plugin does not load.",
        code="plugin.load_failed",
        errors=[Violation("/entryPoint", f"load.{error.get('code', 'failed')}", message)],
        extensions={"logs": str(answer.get("logs", ""))},
    )
