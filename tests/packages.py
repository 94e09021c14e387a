"""The package for the interpreter that runs here: built once for all tests of a run, which takes 20 seconds."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.aws.dependencies import find_target
from infra.aws.package import build
from tests import run_folder

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def package_to_run() -> Path:
    """Return the folder of the package of stage dev; nobody writes into it."""
    return run_folder.once("package", lambda folder: _build(folder / "built")) / "built"


def _build(folder: Path) -> None:
    build("dev", find_target(RUNNING), folder)
