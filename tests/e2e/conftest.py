"""One local stack for the end-to-end tests that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.stack import LocalStack
from tests.least_privilege.watched import WatchedStack
from tests.upstreams import Upstreams, serving_upstreams

# A test that counts no requests must not be refused for sending many.
UNLIMITED = {"HOTPLUG_RATE": "100000", "HOTPLUG_BURST": "100000"}


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Upstreams]:
    """What tools lead to; a stack that may call it is told so."""
    with serving_upstreams() as running:
        yield running


def calling(upstreams: Upstreams) -> dict[str, str]:
    """Return the variables of a stack whose tools lead there."""
    return {**UNLIMITED, "HOTPLUG_PRIVATE_ENDPOINTS": upstreams.endpoints}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams) -> Iterator[LocalStack]:
    """A running stack on SQLite with two API processes; whoever uses it makes apps of its own."""
    folder = tmp_path_factory.mktemp("stack") / "local"
    with WatchedStack(folder, api_processes=2, schedules=False, environment=calling(upstreams)) as running:
        yield running
