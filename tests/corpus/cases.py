"""What a corpus case is, and the small good package that most cases spoil in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.corpus.raw_zip import Member, build

Build = Callable[[Path], None]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """A package: `build` writes it to a path. `rule` is empty for a good one."""

    name: str
    build: Build
    rule: str = ""
    also: frozenset[str] = frozenset()


def manifest(**changes: Any) -> dict[str, Any]:
    """The smallest good manifest, with members set (or, by `...`, left out)."""
    base = {
        "name": "notify-chat",
        "version": "1.0.0",
        "pluginType": "notify",
        "entryPoint": "main.py",
    } | changes
    return {name: value for name, value in base.items() if value is not ...}


MANIFEST = Member("manifest.json", json.dumps(manifest()).encode())
MAIN = Member(
    "main.py", b"class Plugin:\n    def execute(self, action, params, context):\n        return {}\n"
)


def raw(*members: Member, **options: Any) -> Build:
    """A package of the good manifest, the good entry point and further members."""
    return lambda path: write(path, build([MANIFEST, MAIN, *members], **options))


def only(*members: Member, **options: Any) -> Build:
    return lambda path: write(path, build(list(members), **options))


def with_manifest(content: bytes | dict[str, Any]) -> Build:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return only(Member("manifest.json", data), MAIN)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def zip_case(name: str, rule: str, make: Build, *also: str) -> Case:
    return Case(name, make, f"zip.{rule}", frozenset(f"zip.{other}" for other in also))
