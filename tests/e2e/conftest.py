"""One local stack for the end-to-end tests that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.stack import LocalStack

# A test that counts no requests must not be refused for sending many.
UNLIMITED = {"HOTPLUG_RATE": "100000", "HOTPLUG_BURST": "100000"}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A running stack on SQLite with two API processes; whoever uses it makes apps of its own."""
    folder = tmp_path_factory.mktemp("stack") / "local"
    with LocalStack(folder, api_processes=2, schedules=False, environment=UNLIMITED) as running:
        yield running
