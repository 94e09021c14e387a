from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent_folders import AgentFolders, agent_folders


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[AgentFolders]:
    with agent_folders(tmp_path) as made:
        yield made


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The log lines that were written since it was last asked."""
    capsys.readouterr()
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
