"""Plugins: with hosts and without, with a secret in their config, versions that do not load, an install too many."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.tenants import Tenant, declared, fail_install, fresh_name, upload
from tests.integration.plugin_world import package
from tests.least_privilege.drive.sealing import SECRET_SCHEMA
from tests.least_privilege.drive.world import PROBED, World

PLUGINS = "/api/v1/plugins"
HOST = "localhost:9"
BROKEN = b"class Plugin:\n    def __init__(self):\n        raise RuntimeError('no')\n"
# Writes {"result":{}} to its output. In text:
# (module (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
#  (memory (export "memory") 1) (data (i32.const 0) "\08\00\00\00\0d\00\00\00{\22result\22:{}}")
#  (func (export "_start") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))))
ANSWERS = bytes.fromhex(
    "0061736d01000000010c0260047f7f7f7f017f60000002230116776173695f736e617073686f745f70726576696577310866"
    "645f77726974650000030201010503010001071302066d656d6f72790200065f737461727400010a10010e00410141004101"
    "41c00010001a0b0b1b010041000b15080000000d0000007b22726573756c74223a7b7d7d000b046e616d65010401000177"
)
# Cannot be instantiated: it has data beyond its memory.
# (module (memory (export "memory") 1) (func (export "_start")) (data (i32.const 70000) "x"))
TOO_LONG = bytes.fromhex(
    "0061736d01000000010401600000030201000503010001071302066d656d6f72790200065f737461727400000a040102000b"
    "0b09010041f0a2040b0178"
)


@dataclass(frozen=True)
class Made:
    """Ids of two enabled plugins of one app: one of WebAssembly without hosts, one of Python with one and a secret."""

    tenant: Tenant
    compiled: str
    networked: str


def drive(world: World) -> Made:
    """Install, load, update, roll back, execute and hand out; be refused where something must be taken back."""
    tenant = world.tenant()
    compiled, networked = PROBED["plugins"]
    made = Made(tenant, _compiled(tenant, compiled), _networked(tenant, networked))
    _plain(tenant)
    _refused_at_once(world)
    _failed_and_tried_again(world, tenant)
    return made


def _compiled(tenant: Tenant, name: str) -> str:
    plugin_id = str(_registered(tenant, "POST", f"{PLUGINS}/install", _wasm(name, ANSWERS))["pluginId"])
    tenant.admin("POST", f"{PLUGINS}/{plugin_id}/enable", 200)
    # What does not load is taken back: the package and its module.
    ended = _ended(tenant, "PUT", f"{PLUGINS}/{plugin_id}", _wasm(name, TOO_LONG, "1.1.0"))
    assert ended["state"] == "rejected", ended
    return plugin_id


def _wasm(name: str, code: bytes, version: str = "1.0.0") -> bytes:
    return package(name, version, code=code, entryPoint="main.wasm")


def _networked(tenant: Tenant, name: str) -> str:
    def version(number: str, **more: Any) -> bytes:
        return package(name, number, permissions={"network": [HOST]}, configSchema=SECRET_SCHEMA, **more)

    first = tenant.admin("POST", f"{PLUGINS}/install", 201, **upload(version("1.0.0")))
    path = f"{PLUGINS}/{first.json()['pluginId']}"
    tenant.admin("PUT", f"{path}/grants", 200, json={"network": [HOST]})
    config = {"name": "c", "scope": "app", "isDefault": True, "configItems": {"token": "hush"}}
    tenant.admin("POST", f"{path}/configs", 201, json=config)
    tenant.admin("POST", f"{path}/enable", 200)
    tenant.admin("PUT", path, 200, **upload(version("1.1.0")))
    refused = tenant.admin("PUT", path, 422, **upload(version("1.2.0", code=BROKEN)))
    assert refused.json()["code"] == "plugin.load_failed", refused.text
    # The same by an upload, which `register` loads.
    _upload(tenant, path, version("1.3.0"))
    tenant.admin("POST", f"{path}/rollback", 200, json={})
    tenant.admin("POST", f"{path}/execute", 200, json={"params": {}})
    tenant.admin("GET", f"{path}/download", 302)
    return path.rpartition("/")[2]


def _plain(tenant: Tenant) -> None:
    name = fresh_name("plain")
    plugin = tenant.install(name)
    path = f"{PLUGINS}/{plugin['pluginId']}"
    tenant.admin("PUT", path, 200, **upload(package(name, "1.2.0")))


def _refused_at_once(world: World) -> None:
    """An app that is disabled between its authentication and its install: the package was placed by then."""
    tenant = world.tenant()
    disabled = f"UPDATE app SET status = 0 WHERE alias_id = '{tenant.alias}'"
    with world.trigger("AFTER UPDATE ON plugin_graph", disabled):
        tenant.admin("POST", f"{PLUGINS}/install", 403, **upload(package(fresh_name("late"))))


def _failed_and_tried_again(world: World, tenant: Tenant) -> None:
    """An install that the queue gave up before anybody knew its object's version: `register` asks for the newest."""
    install_id = tenant.open_install()
    fail_install(world.stack, install_id, version=None)
    tenant.admin("POST", f"{PLUGINS}/installs/{install_id}/retry", 202, json={})


def _registered(tenant: Tenant, method: str, path: str, content: bytes) -> dict[str, Any]:
    task = _ended(tenant, method, path, content)
    assert task["state"] == "registered", task
    return task


def _ended(tenant: Tenant, method: str, path: str, content: bytes) -> dict[str, Any]:
    """Hand over a package that another function registers and return its task at its end."""
    return wait(tenant, str(tenant.admin(method, path, 202, **upload(content)).json()["installId"]))


def _upload(tenant: Tenant, path: str, content: bytes) -> None:
    opened = tenant.admin("PUT", path, 202, **declared(content)).json()
    form = opened["upload"]
    answer = httpx.post(form["url"], data=form["fields"], files={"file": content}, timeout=30)
    assert answer.status_code < 300, answer.text
    task = wait(tenant, opened["installId"])
    assert task["state"] == "registered", task


def wait(tenant: Tenant, install_id: str) -> dict[str, Any]:
    """Return an install once it has ended."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        task: dict[str, Any] = tenant.admin("GET", f"{PLUGINS}/installs/{install_id}", 200).json()
        if task["state"] not in ("awaiting_upload", "verifying"):
            return task
        time.sleep(0.05)
    raise AssertionError(f"the install does not end: {task}")
