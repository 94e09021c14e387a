"""Packages of a chosen size: random bytes, stored, so that nothing about them is easier than about real ones."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path

PLUGIN = "class Plugin:\n    def execute(self, action, params, context):\n        return params\n"
MIB = 1024 * 1024


def write_package(target: Path, name: str, size: int, version: str = "1.0.0") -> Path:
    """Write a python plugin whose zip has about `size` bytes, each time other ones."""
    manifest = {"name": name, "version": version, "pluginType": "custom", "entryPoint": "main.py"}
    noise = random.Random(os.urandom(8))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as package:
        package.writestr(_entry("manifest.json"), json.dumps(manifest))
        package.writestr(_entry("main.py"), PLUGIN)
        for number, start in enumerate(range(0, size, MIB)):
            package.writestr(_entry(f"data/{number}.bin"), noise.randbytes(min(MIB, size - start)))
    return target


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    return entry
