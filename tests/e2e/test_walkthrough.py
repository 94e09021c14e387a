"""The walkthrough, as `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.stack import LocalStack
from infra.walkthrough import API_PROCESSES, Walkthrough, Webhook


@pytest.mark.slow
@pytest.mark.parametrize("per_endpoint", [False, True], ids=["one-api-function", "per-endpoint"])
def test_every_step_holds(tmp_path: Path, per_endpoint: bool) -> None:
    webhook = Webhook()
    try:
        with LocalStack(
            tmp_path / "local",
            api_processes=API_PROCESSES,
            per_endpoint=per_endpoint,
            environment={"HOTPLUG_PRIVATE_ENDPOINTS": webhook.host},
        ) as stack:
            walk = Walkthrough(stack, webhook, tmp_path / "examples")
            assert walk.run(), walk.steps[-1].detail
    finally:
        webhook.close()
    assert len(walk.steps) == 15
