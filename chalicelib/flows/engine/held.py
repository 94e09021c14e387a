"""What the values of one run may take in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.flows.engine.call import Result
from chalicelib.flows.engine.errors import NODE_FAILED, NodeError

MAX_HELD = 64 * 1024 * 1024
"""Characters that the outputs of one run may have together: a text that doubles in every round of a loop would fill any
memory."""
MAX_LEVELS = 100
"""How deep a value may be nested. A loop that wraps it in a list in every round makes one that no JSON encoder can
write; MySQL and the parsers of others end at about as many."""


class Held:
    """Counts what the nodes of a run gave."""

    def __init__(self) -> None:
        self._characters = 0

    def take(self, result: Result) -> None:
        """Count what a node gave.

        Raises
        ------
        NodeError
            22302: it is nested too deep, or too much together with all that the run has.
        """
        weight, levels = _size(result.outputs)
        self._characters += weight + len(result.content or "")
        if self._characters > MAX_HELD:
            message = f"The run's values are larger than {MAX_HELD} characters together."
            raise NodeError(NODE_FAILED, message, is_transient=False)
        if levels > MAX_LEVELS:
            message = f"A value of it is nested more than {MAX_LEVELS} deep."
            raise NodeError(NODE_FAILED, message, is_transient=False)


def _size(outputs: Mapping[str, Any]) -> tuple[int, int]:
    """Characters of all texts of a node's outputs, with one for anything else; and how deep they are nested.

    No recursion, and no way into what is too deep: a tool's answer may be anything.
    """
    total, levels = sum(len(name) for name in outputs), 0
    pending = list(outputs.values())
    while pending and levels <= MAX_LEVELS:
        levels += 1
        within: list[Any] = []
        for one in pending:
            total += len(one) if isinstance(one, str) else 1
            if isinstance(one, Mapping):
                within.extend(one.values())
                total += sum(len(name) for name in one)
            elif isinstance(one, list):
                within.extend(one)
        pending = within
    return total, levels
