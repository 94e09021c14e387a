from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.plugins.runtime.service import Runtime
from tests.unit.plugins.runtime.support import Bench, ObjectServer


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Starting a python plugin takes credentials and settings out of this process; the next test has them back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    running = ObjectServer()
    yield running
    running.close()


@pytest.fixture
def bench(server: ObjectServer, tmp_path: Path) -> Iterator[Bench]:
    runtime = Runtime(tmp_path / "cache")
    yield Bench(runtime, server, tmp_path / "cache")
    runtime.close()
