"""A folder that all worker processes of one test run share, for what is made once and used by several."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_VARIABLE = "HOTPLUG_TEST_RUN_FOLDER"


def begin() -> None:
    """Make the folder, which workers inherit; called once, by the process that leads the run."""
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="hotplug-test-")


def end() -> None:
    """Remove the folder."""
    shutil.rmtree(os.environ.pop(_VARIABLE), ignore_errors=True)


def path() -> Path:
    return Path(os.environ[_VARIABLE])


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Of all processes of the run, let one at a time do what is called `name`."""
    with (path() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of this name, which the first who asks has filled by `make`; others wait for it.

    A `make` that fails leaves nothing, and the next who asks tries again.
    """
    made = path() / name
    with alone(name):
        if not made.exists():
            unfinished = made.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(made)
    return made
