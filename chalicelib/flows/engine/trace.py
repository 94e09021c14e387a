"""What a run tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.call import Exchange

SUCCEEDED, FAILED = "succeeded", "failed"


@dataclass(frozen=True)
class NodeRecord:
    """A node that has ended.

    Parameters
    ----------
    key
        See `call.Call`.
    position
        When it ended, among the nodes of the run: 0 for the first.
    state
        succeeded or failed; a failed one may have been made good by its error strategy.
    error_code, error_message
        0 and "" where nothing failed.
    started_at
        ISO 8601 in UTC; None for a node that only computes.
    """

    key: str
    node_id: str
    node_type: str
    alias_name: str
    position: int
    attempt: int
    state: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    error_code: int
    error_message: str
    started_at: str | None
    duration_ms: float
    usage: Usage


class Trace(Protocol):
    """Where a run is written down."""

    def started(self, key: str, node_id: str) -> None:
        """A node that works outside the interpreter begins."""
        ...

    def ended(self, record: NodeRecord, content: str | None, progress: float) -> None:
        """A node has ended. `content` is what it said, `progress` from 0 to 1."""
        ...

    def remember(self, node_id: str, flow_id: int, exchange: Exchange) -> None:
        """What is to be kept in the history, once the run has succeeded."""
        ...
