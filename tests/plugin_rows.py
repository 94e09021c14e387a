"""Plugins put straight into the database, and the services to run them with: what a test needs before it begins."""

from __future__ import annotations

from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.plugins.models import ENABLED, Plugin, PluginVersion
from chalicelib.plugins.services import Services
from tests.fakes.functions import Handler, MemoryFunctions
from tests.fakes.storage import MemoryStorage

OWNER, OTHER = 11, 22
CHECKSUM = "ab" * 32


def caller(app_id: int = OWNER, role: str = "admin", request_id: str = "request-1") -> Caller:
    """Return a caller of one of two tenants."""
    return Caller(app_id, {OWNER: "owner", OTHER: "other"}[app_id], app_id + 1, role, request_id)


def warm_cache(database: DatabaseService) -> HotCache:
    """Return a hot cache that has read the versions, as at the beginning of a request."""
    cache = HotCache(database)
    cache.refresh()
    return cache


def put_plugin(
    database: DatabaseService,
    name: str = "notifier",
    *,
    app_id: int = OWNER,
    visibility: str = "private",
    is_enabled: int = ENABLED,
    runtime: str = "python",
    version: str = "1.0.0",
    **manifest: Any,
) -> str:
    """Register a plugin as an install would have left it and return its id; `manifest` holds further members."""
    entry_point = {"python": "main.py", "wasm": "main.wasm", "none": "main.so"}[runtime]
    document = {
        "name": name,
        "version": version,
        "pluginType": "notify",
        "entryPoint": entry_point,
        **manifest,
    }
    plugin_id = f"plugin_{name}_abc123"
    path = f"plugins/{plugin_id}/{version}/{plugin_id}_{version}.zip"
    stored = {
        "checksum": CHECKSUM,
        "s3_path": path,
        "s3_version": "v1",
        "manifest": document,
        "runtime": runtime,
    }
    plugin = Plugin(
        plugin_id=plugin_id, app_id=app_id, visibility=visibility, name=name, version=version, plugin_type="notify",
        entry_point=entry_point, is_enabled=is_enabled, config_schema=manifest.get("configSchema"),
        params_schema=manifest.get("paramsSchema"), default_config=manifest.get("defaultConfig", {}), **stored,
    )  # fmt: skip

    def work(session: Any) -> None:
        session.add(plugin)
        session.add(PluginVersion(plugin_id=plugin_id, version=version, size=10, **stored))

    database.run(work)
    return plugin_id


def answer(**members: Any) -> dict[str, Any]:
    """Return what a runtime function answers: a result unless told otherwise."""
    return {
        "ok": True, "result": {"sent": True}, "logs": "said hello\n", "durationMs": 12.5, "coldLoad": False,
        "loadMs": 0.0, "memoryBytes": 1000, "instanceId": "a" * 32, "scopeVersion": 3, "loaded": [], **members,
    }  # fmt: skip


def failure(
    kind: str, code: str, message: str = "it broke", data: Any = None, **members: Any
) -> dict[str, Any]:
    """Return what a runtime function answers instead of a result."""
    found = answer(ok=False, error={"kind": kind, "code": code, "message": message, "data": data}, **members)
    del found["result"]
    return found


def services(database: DatabaseService, runtime: Handler = lambda event: answer()) -> Services:
    """Return services whose runtime functions do what `runtime` says."""
    functions = MemoryFunctions(runtime=runtime, runtime_network=runtime)
    return Services(database, MemoryStorage(), functions, warm_cache(database))
