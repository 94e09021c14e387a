"""What the figures are taken on: the database server, and how busy the machine was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from tests import databases, run_folder


@contextmanager
def server() -> Iterator[None]:
    """Have a MySQL-family server: the one that is found, else a private one that ends with the block."""
    run_folder.begin()
    try:
        yield
    finally:
        databases.end_server()
        run_folder.end()


@contextmanager
def silence() -> Iterator[None]:
    """Drop what functions log to standard output; writing it costs, so it is written, to nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def load_note() -> str:
    """Return how busy the machine was, in words."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    busy = "busy: other work took part" if load > cores * 1.5 else "quiet enough"
    return f"Load {load:.1f} on {cores} cores ({busy})."
