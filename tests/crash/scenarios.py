"""The operations that a crash may interrupt, each on a real database and a real S3."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.apps.models import App
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.jobs import Runner
from chalicelib.core.storage import S3Storage
from chalicelib.plugins import incoming, installs, lifecycle, uploads
from chalicelib.plugins.maintenance.catalog import plugin_jobs
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.maintenance.context import _register as register_here
from chalicelib.plugins.registration import Registered
from chalicelib.plugins.services import Services
from chalicelib.plugins.uploads import Order, Received
from tests.fakes.functions import MemoryFunctions

APP_ID = 7
CALLER = Caller(APP_ID, "crash", 11, "admin", "request-1")
NAME = "survivor"
# (module (func (export "_start"))) with a memory: the smallest WASI command.
WASM = bytes.fromhex(
    "0061736d01000000010401600000030201000503010001071302066d656d6f72790200065f737461727400000a040102000b"
)


def package(version: str, *, wasm: bool = False) -> bytes:
    """Return a small package; the same version gives the same bytes."""
    entry = "main.wasm" if wasm else "plugin.py"
    manifest = {"name": NAME, "version": version, "pluginType": "custom", "entryPoint": entry}
    code = (
        WASM
        if wasm
        else b"class Plugin:\n    def execute(self, action, params, context):\n        return 1\n"
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in (("manifest.json", json.dumps(manifest).encode()), (entry, code)):
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def services(database_url: str, bucket: str) -> Services:
    """Return services on real servers; only the runtime function answers from memory."""
    database = DatabaseService(database_url)
    functions = MemoryFunctions(runtime=lambda event: {"ok": True})
    return Services(database, S3Storage(bucket), functions, HotCache(database))


def seed_app(services: Services) -> None:
    """Add the tenant that every scenario works for."""
    services.database.run(lambda session: session.add(App(id=APP_ID, name="Crash", alias_id="crash")))


def _open_upload(services: Services, content: bytes, target: str | None) -> tuple[str, str]:
    """Open an install and upload its package, as a publisher does; return (key, version id)."""
    digest = hashlib.sha256(content).hexdigest()
    task = installs.new_task(
        CALLER, filename="x.zip", size=len(content), sha256=digest, target=target, allow_downgrade=False
    )
    key = task.object_key
    services.database.run(lambda session: installs.save(session, CALLER, task))
    return key, services.storage.upload(key, content, sha256=digest)


def _install(services: Services, version: str, *, enabled: bool, wasm: bool = False) -> str:
    key, version_id = _open_upload(services, package(version, wasm=wasm), None)
    assert incoming.register_artifact(services, key, version_id) == "registered"
    with services.database.reads() as session:
        plugin_id = next(iter(installs_of(session))).result_plugin_id or ""
    if enabled:
        lifecycle.enable(services, CALLER, plugin_id, None, services.database.run)
    return plugin_id


def installs_of(session: Any) -> list[Any]:
    from sqlalchemy import select

    from chalicelib.plugins.install_models import PluginInstall

    return list(session.scalars(select(PluginInstall).order_by(PluginInstall.id.desc())))


@dataclass(frozen=True)
class Scenario:
    """An operation to interrupt.

    Parameters
    ----------
    prepare
        Brings the world into its state before; what it returns is handed to `run` (JSON).
    run
        The operation itself.
    outcomes
        Which states are allowed after the sweep: the plugin's active version, None for absent.
    """

    prepare: Callable[[Services], dict[str, Any]]
    run: Callable[[Services, dict[str, Any]], Any]
    outcomes: tuple[str | None, ...]


def _prepare_install(wasm: bool) -> Callable[[Services], dict[str, Any]]:
    def prepare(services: Services) -> dict[str, Any]:
        key, version_id = _open_upload(services, package("1.0.0", wasm=wasm), None)
        return {"key": key, "version_id": version_id}

    return prepare


def _prepare_drop(services: Services) -> dict[str, Any]:
    content = package("1.0.0")
    key = f"{installs.DROP_PREFIX}crash/x.zip"
    version_id = services.storage.upload(key, content, sha256=hashlib.sha256(content).hexdigest())
    return {"key": key, "version_id": version_id}


def _prepare_update(services: Services) -> dict[str, Any]:
    plugin_id = _install(services, "1.0.0", enabled=True, wasm=True)
    key, version_id = _open_upload(services, package("2.0.0", wasm=True), plugin_id)
    return {"key": key, "version_id": version_id, "plugin_id": plugin_id}


def _prepare_two_versions(services: Services) -> dict[str, Any]:
    plugin_id = _install(services, "1.0.0", enabled=True)
    key, version_id = _open_upload(services, package("2.0.0"), plugin_id)
    assert incoming.register_artifact(services, key, version_id) == "registered"
    return {"plugin_id": plugin_id}


def _prepare_rejected(services: Services) -> dict[str, Any]:
    content = b"PK not a zip"
    key, version_id = _open_upload(services, content, None)
    return {"key": key, "version_id": version_id}


def _register(services: Services, state: dict[str, Any]) -> Any:
    return incoming.register_artifact(services, state["key"], state["version_id"])


def _receive(services: Services, state: dict[str, Any]) -> Registered:
    order = Order(CALLER, state.get("plugin_id"), False, None)
    version = "2.0.0" if "plugin_id" in state else "1.0.0"
    received = Received("x.zip", package(version), None)
    outcome: Registered = uploads.receive(services, order, received, services.database.run)
    return outcome


def _hand_over(services: Services, state: dict[str, Any]) -> Any:
    received = Received("x.zip", package("1.0.0", wasm=True), None)
    return uploads.receive(services, Order(CALLER, None, False, None), received, services.database.run)


def _prepare_enabled(services: Services) -> dict[str, Any]:
    return {"plugin_id": _install(services, "1.0.0", enabled=True)}


def _prepare_disabled(services: Services) -> dict[str, Any]:
    return {"plugin_id": _install(services, "1.0.0", enabled=False)}


def _enable(services: Services, state: dict[str, Any]) -> Any:
    return lifecycle.enable(services, CALLER, state["plugin_id"], None, services.database.run)


def _rollback(services: Services, state: dict[str, Any]) -> Any:
    return lifecycle.rollback(services, CALLER, state["plugin_id"], None, None, services.database.run)


def _uninstall(services: Services, state: dict[str, Any]) -> Any:
    services.database.run(
        lambda session: lifecycle.uninstall(session, CALLER, state["plugin_id"], None, cascade=False)
    )
    sweep(services, ("sweep",))


def sweep(
    services: Services,
    names: tuple[str, ...] = ("sweep", "lost_events", "expired_uploads", "tombstoned_objects"),
    *,
    later: timedelta = timedelta(0),
) -> None:
    """Run the jobs that reconcile, as the schedules do, `later` than now."""

    def now() -> datetime:
        return datetime.now(UTC) + later

    def announce(key: str, version_id: str) -> None:
        register_here(services, key, version_id)

    context = Context(services.database, services.storage, announce, timedelta(0), now)
    jobs = {job.name: job for job in plugin_jobs(context)}
    runner = Runner(services.database, deadline_s=60, now=now)
    for name in names:
        runner.run(jobs[name])


SCENARIOS = {
    "install_python": Scenario(_prepare_install(False), _register, ("1.0.0",)),
    "install_wasm": Scenario(_prepare_install(True), _register, ("1.0.0",)),
    "install_dropped": Scenario(_prepare_drop, _register, ("1.0.0",)),
    "install_rejected": Scenario(_prepare_rejected, _register, (None,)),
    "install_inline": Scenario(lambda services: {}, _receive, ("1.0.0", None)),
    "install_handed_over": Scenario(lambda services: {}, _hand_over, ("1.0.0", None)),
    "update_wasm": Scenario(_prepare_update, _register, ("2.0.0",)),
    "update_inline": Scenario(_prepare_enabled, _receive, ("1.0.0", "2.0.0")),
    "enable": Scenario(_prepare_disabled, _enable, ("1.0.0",)),
    "rollback": Scenario(_prepare_two_versions, _rollback, ("1.0.0", "2.0.0")),
    "uninstall": Scenario(_prepare_two_versions, _uninstall, ("2.0.0", None)),
}
