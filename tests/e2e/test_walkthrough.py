"""The walkthrough, as `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.stack import LocalStack
from infra.walkthrough.outside import Outside
from infra.walkthrough.steps import API_PROCESSES
from infra.walkthrough.walk import Walkthrough


@pytest.mark.slow
@pytest.mark.parametrize("per_endpoint", [False, True], ids=["one-api-function", "per-endpoint"])
def test_every_step_holds(tmp_path: Path, per_endpoint: bool) -> None:
    outside = Outside()
    try:
        with LocalStack(
            tmp_path / "local",
            api_processes=API_PROCESSES,
            per_endpoint=per_endpoint,
            environment={"HOTPLUG_PRIVATE_ENDPOINTS": outside.endpoints()},
        ) as stack:
            walk = Walkthrough(stack, outside, tmp_path / "examples")
            assert walk.run(), walk.steps[-1].detail
    finally:
        outside.close()
    assert len(walk.steps) == 27
