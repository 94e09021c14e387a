"""What an agent is handed in a test: a history, a model, and the agents as they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from chalicelib.agents.base import AgentBase, Message
from chalicelib.agents.loading.process import registry_of_process
from chalicelib.core.caller import Caller

CALLER = Caller(1, "acme", 1, "caller", "r")


class Said:
    """A history that holds what was said before, (role, content) each; `reads` counts how often it was asked."""

    def __init__(self, *said: tuple[str, str]) -> None:
        self.said = said
        self.reads = 0

    def recent(self, limit: int = 20) -> Sequence[Message]:
        self.reads += 1
        messages = [
            Message(number, role, content, datetime.now(UTC))
            for number, (role, content) in enumerate(self.said)
        ]
        return messages[-limit:]

    def add(self, role: str, content: str, metadata: Mapping[str, Any] | None = None) -> None:
        raise AssertionError("nothing is added between a message and its reply")


def loaded(name: str) -> AgentBase:
    """Return the instance of an agent of this release."""
    found = registry_of_process().get(name)
    assert found is not None and found.agent is not None, found and found.error
    return found.agent
