"""Copies of the application with one defect: what proves that a test would notice it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from infra.functions import ROOT

_PARTS = ("app.py", "chalicelib", "migrations")


def copied(target: Path) -> Path:
    """Copy the application to a new folder and return it."""
    target.mkdir()
    for part in _PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target / part)
    return target


def without_bump(target: Path, model: str) -> Path:
    """Copy the application to a new folder `target`, there without the cache bump of one model of the plugins.

    Returns
    -------
    `target`, to be a stack's `task_root`.
    """
    plugins = copied(target) / "chalicelib" / "plugins"
    (path,) = [one for one in plugins.rglob("*models.py") if f"class {model}(Base)" in one.read_text()]
    text, count = re.subn(
        rf'(class {model}\(Base\):.*?cache_scope: ClassVar)\[str\] = "plugins"(\s+cache_key: ClassVar)\[str\] = "\w+"',
        r"\1[None] = None\2[None] = None",
        path.read_text(),
        count=1,
        flags=re.DOTALL,
    )
    if count != 1:
        raise LookupError(f"{model} declares no cache scope where it was looked for")
    path.write_text(text)
    return target
