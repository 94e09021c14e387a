"""The walkthrough, as `make demo` runs it. With one function per endpoint it runs in test_least_privilege.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.walkthrough.outside import Outside
from infra.walkthrough.steps import API_PROCESSES
from infra.walkthrough.walk import Walkthrough
from tests.least_privilege.watched import WatchedStack


@pytest.mark.slow
def test_every_step_holds(tmp_path: Path) -> None:
    outside = Outside()
    try:
        with WatchedStack(
            tmp_path / "local",
            api_processes=API_PROCESSES,
            environment={"HOTPLUG_PRIVATE_ENDPOINTS": outside.endpoints()},
        ) as stack:
            walk = Walkthrough(stack, outside, tmp_path / "examples")
            assert walk.run(), walk.steps[-1].detail
    finally:
        outside.close()
    assert len(walk.steps) == 27
