"""`python -m infra.aws package|lock|releases`: see infra/aws/README.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from infra.aws import dependencies, releases_command
from infra.aws.dependencies import PackagingFailed
from infra.aws.package import build
from infra.aws.stages import STAGES
from infra.functions import ROOT


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.aws", description="Package Hotplug for AWS, and look after its releases there."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packaging = commands.add_parser("package", help="templates and zips of a stage, without AWS credentials")
    packaging.add_argument("--stage", choices=sorted(STAGES), default="dev")
    packaging.add_argument(
        "--python", default=dependencies.TARGET_PYTHON, help="version of the Lambda runtime"
    )
    packaging.add_argument("--out", type=Path, help="default: build/STAGE")
    commands.add_parser("lock", help="resolve the layer's dependencies anew")
    releases_command.add_to(
        commands.add_parser(
            "releases", help="the versions of a stage's functions: list, prune, back, publish"
        )
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "releases":
        return releases_command.run(chosen)
    try:
        return _lock() if chosen.command == "lock" else _package(chosen)
    except PackagingFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _package(chosen: argparse.Namespace) -> int:
    folder = chosen.out or ROOT / "build" / chosen.stage
    built = build(chosen.stage, dependencies.find_target(chosen.python), folder)
    for name, size in built.zipped.items():
        print(f"{name}: {size / 1e6:.1f} MB")
    bytecode = "yes" if built.bytecode else "NO"
    print(f"unpacked: {built.unpacked / 1e6:.1f} MB; release {built.release}; bytecode: {bytecode}")
    for note in built.notes:
        print(f"note: {note}")
    print(
        f"Next: infra/aws/README.md, from `aws cloudformation package --template-file {folder}/template.json` on."
    )
    return 0


def _lock() -> int:
    target = dependencies.find_target(dependencies.TARGET_PYTHON)
    with tempfile.TemporaryDirectory(prefix="hotplug-lock-") as temporary:
        folder = Path(temporary) / "layer"
        folder.mkdir()
        dependencies.install(target, folder, locked=False)
        dependencies.write_lock(folder)
    print(dependencies.LOCK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
