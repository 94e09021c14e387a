"""Build the example plugins: `python -m examples.build FOLDER` writes one zip each.

The same sources give the same bytes on every machine: entries are sorted, stored and dated 1980.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parent / "plugins"
COMPILE_S = 120


def pack(source: Path, output: Path, *, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the package of a plugin's folder and return its path.

    Parameters
    ----------
    source
        Folder with manifest.json; a `main.zig` in it is compiled to `main.wasm`.
    output
        Folder for `{name}-{version}.zip`.
    changes
        Members of the manifest to replace.
    """
    manifest = json.loads((source / "manifest.json").read_text()) | dict(changes or {})
    files = {"manifest.json": (json.dumps(manifest, indent=2) + "\n").encode()}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name != "manifest.json" and "__pycache__" not in path.parts:
            if path.suffix == ".zig":
                files[Path(name).with_suffix(".wasm").as_posix()] = compile_zig(path)
            else:
                files[name] = path.read_bytes()
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"{manifest['name']}-{manifest['version']}.zip"
    target.write_bytes(_zip(files))
    return target


def compile_zig(source: Path) -> bytes:
    """Compile one Zig program to a WASI command with the toolchain from PyPI (the package ziglang)."""
    with tempfile.TemporaryDirectory(prefix="hotplug-zig-") as folder:
        target = Path(folder, "main.wasm")
        command = [
            sys.executable, "-m", "ziglang", "build-exe", str(source), "-target", "wasm32-wasi",
            "-O", "ReleaseSmall", f"-femit-bin={target}",
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=folder, timeout=COMPILE_S)
        return target.read_bytes()


def _zip(files: Mapping[str, bytes]) -> bytes:
    import io

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as package:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            package.writestr(entry, files[name])
    return packed.getvalue()


def main() -> int:
    """Build every example into the folder that the command line names."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else ".local/examples")
    for manifest in sorted(PLUGINS.rglob("manifest.json")):
        print(pack(manifest.parent, output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
