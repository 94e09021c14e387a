"""Packages that are refused, one for each sort of mistake: `python -m examples.broken FOLDER` writes the zips.

Each is a good package with one thing wrong, so that its refusal shows one rule. What nobody can make with a zip
program by accident (a link, a lying checksum) is made here byte by byte.
"""

from __future__ import annotations

import json
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

PLUGIN = b"class Plugin:\n    def execute(self, action, params, context):\n        return params\n"
MANIFEST: dict[str, Any] = {
    "name": "broken-example",
    "version": "1.0.0",
    "pluginType": "custom",
    "entryPoint": "plugin.py",
}
Files = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Broken:
    """A package and what is said against it.

    Parameters
    ----------
    name
        Of the file, without `.zip`.
    code
        Of the problem document.
    rules
        Of its `errors`, in their order.
    """

    name: str
    code: str
    rules: tuple[str, ...]
    build: Callable[[], bytes]


def _manifest(**changes: Any) -> bytes:
    """Return the good manifest with members replaced; None removes one."""
    changed = {name: value for name, value in (MANIFEST | changes).items() if value is not None}
    return (json.dumps(changed, indent=2) + "\n").encode()


def _zip(files: Files) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in files:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            package.writestr(entry, content)
    return packed.getvalue()


def _good(*more: tuple[str, bytes], **changes: Any) -> bytes:
    return _zip([("manifest.json", _manifest(**changes)), ("plugin.py", PLUGIN), *more])


def _climbing() -> bytes:
    return _good(("../outside.py", b"pass\n"))


def _linked() -> bytes:
    packed = BytesIO(_good())
    with zipfile.ZipFile(packed, "a") as package:
        entry = zipfile.ZipInfo("data", (1980, 1, 1, 0, 0, 0))
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        package.writestr(entry, "/etc/passwd")
    return packed.getvalue()


def _same_twice() -> bytes:
    return _good(("Data.json", b"{}\n"), ("data.json", b"{}\n"))


def _nested() -> bytes:
    """What zipping the folder itself, instead of what is in it, gives."""
    return _zip([("my-plugin/manifest.json", _manifest()), ("my-plugin/plugin.py", PLUGIN)])


def _bomb() -> bytes:
    return _good(("zeros.bin", bytes(16 * 1024 * 1024)))


def _damaged() -> bytes:
    packed = bytearray(_good(("data.bin", b"the bytes that were meant")))
    with zipfile.ZipFile(BytesIO(packed)) as package:
        crc = package.getinfo("data.bin").CRC.to_bytes(4, "little")
    # Once in the entry's own header and once in the directory.
    return bytes(packed.replace(crc, bytes([crc[0] ^ 1]) + crc[1:]))


def _prefixed() -> bytes:
    return b"#!/bin/sh\n" + _good()


def _duplicate_member() -> bytes:
    text = _manifest().decode().replace('"version": "1.0.0"', '"version": "1.0.0", "version": "2.0.0"')
    return _zip([("manifest.json", text.encode()), ("plugin.py", PLUGIN)])


def _not_json() -> bytes:
    text = _manifest().decode().replace('plugin.py"\n', 'plugin.py",\n')
    return _zip([("manifest.json", text.encode()), ("plugin.py", PLUGIN)])


def _many_mistakes() -> bytes:
    return _good(
        name="Broken Example",
        version="1.0",
        pluginType=None,
        resources={"memory": "8Gi"},
        permissions={"network": ["*.example.com"]},
    )


def _remote_schema() -> bytes:
    return _good(configSchema={"$ref": "https://example.com/schema.json"})


BROKEN = (
    Broken("not-a-zip", "plugin.package_invalid", ("zip.not_a_zip",), lambda: b"just text\n"),
    Broken("no-manifest", "plugin.package_invalid", ("zip.manifest_missing",), lambda: _zip([("plugin.py", PLUGIN)])),
    Broken("zipped-folder", "plugin.package_invalid", ("zip.manifest_missing",), _nested),
    Broken("climbs-out", "plugin.package_invalid", ("zip.traversal",), _climbing),
    Broken("symbolic-link", "plugin.package_invalid", ("zip.link",), _linked),
    Broken("same-name-twice", "plugin.package_invalid", ("zip.case_duplicate",), _same_twice),
    Broken("bomb", "plugin.package_invalid", ("zip.ratio",), _bomb),
    Broken("damaged", "plugin.package_invalid", ("zip.crc",), _damaged),
    Broken("script-in-front", "plugin.package_invalid", ("zip.prefix_data",), _prefixed),
    Broken("trailing-comma", "plugin.manifest_invalid", ("json.syntax",), _not_json),
    Broken("member-twice", "plugin.manifest_invalid", ("json.duplicate_key",), _duplicate_member),
    Broken(
        "no-entry-point-file", "plugin.manifest_invalid", ("manifest.entry_point_missing",),
        lambda: _good(entryPoint="main.py"),
    ),
    Broken(
        "default-config", "plugin.manifest_invalid", ("schema.type",),
        lambda: _good(
            configSchema={"type": "object", "properties": {"retries": {"type": "integer"}}},
            defaultConfig={"retries": "three"},
        ),
    ),
    Broken("remote-schema", "plugin.manifest_invalid", ("schema.remote_ref",), _remote_schema),
    Broken(
        "too-new", "plugin.manifest_invalid", ("manifest.platform",), lambda: _good(minVersion="99.0.0")
    ),
    Broken(
        "many-mistakes", "plugin.manifest_invalid",
        ("schema.pattern", "schema.pattern", "schema.required", "manifest.version", "manifest.resources"),
        _many_mistakes,
    ),
)  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Write every broken package and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for broken in BROKEN:
        path = folder / f"{broken.name}.zip"
        path.write_bytes(broken.build())
        paths.append(path)
    return paths


def main() -> int:
    """Write the packages into the folder that the command line names."""
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".local/broken")):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
