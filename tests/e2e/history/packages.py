"""Plugins whose answers show which version ran and with which configuration."""

from __future__ import annotations

import io
import json
import zipfile
from functools import lru_cache

from tests.e2e.history.model import default_value

PYTHON = """
VERSION = {version!r}


class Plugin:
    def init(self, config):
        self.value = config["value"]

    def execute(self, action, params, context):
        return {{"version": VERSION, "value": self.value}}
"""

# Answers with its version, and with all that it got on stdin.
WASM = r"""
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 64) "{\22result\22:{\22version\22:\22%s\22,\22input\22:")
  (data (i32.const 256) "}}")
  (func $emit (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start") (local $got i32)
    (call $emit (i32.const 64) (i32.const %d))
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $got (i32.load (i32.const 8)))
      (if (local.get $got) (then (call $emit (i32.const 1024) (local.get $got)) (br $more))))
    (call $emit (i32.const 256) (i32.const 2))))
"""


@lru_cache(maxsize=256)
def package(
    name: str,
    version: str,
    runtime: str,
    *,
    hosts: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    note: str = "",
) -> bytes:
    """Return the zip of a plugin; `note` makes its bytes differ under the same version.

    Parameters
    ----------
    runtime
        `python` or `wasm`.
    hosts
        What it asks to reach; it never does.
    needs
        Its dependencies, `name@range`.
    """
    entry, content = _entry_point(version, runtime)
    manifest = {
        "name": name,
        "version": version,
        "pluginType": "custom",
        "entryPoint": entry,
        "description": note,
        "defaultConfig": {"value": default_value(version)},
        "permissions": {"network": list(hosts)},
        "dependencies": list(needs),
        "resources": {"memory": "64Mi", "timeoutMs": 10_000},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for path, data in ((entry, content), ("manifest.json", json.dumps(manifest).encode())):
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data)
    return packed.getvalue()


def _entry_point(version: str, runtime: str) -> tuple[str, bytes]:
    if runtime == "python":
        return "plugin.py", PYTHON.format(version=version).encode()
    from wasmtime import wat2wasm

    opening = len('{"result":{"version":"","input":') + len(version)
    return "plugin.wasm", bytes(wat2wasm(WASM % (version, opening)))


def shown(result: dict[str, object]) -> tuple[str, str]:
    """Return (version, config value) that an execution's result shows."""
    given = result.get("input", result)
    assert isinstance(given, dict)
    value = given["config"]["value"] if "config" in given else given["value"]
    return str(result["version"]), str(value)
