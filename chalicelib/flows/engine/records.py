"""The record of a node that has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.errors import Decision
from chalicelib.flows.engine.frame import Frame
from chalicelib.flows.engine.trace import NodeRecord


@dataclass(frozen=True)
class About:
    """When and how often a node was at work.

    Parameters
    ----------
    began
        By `time.perf_counter`; what it took ends with the record, unless `duration_ms` says it.
    started_at
        ISO 8601 in UTC; None for a node that only computes.
    duration_ms
        Milliseconds.
    """

    began: float = 0.0
    started_at: str | None = None
    attempts: int = 1
    duration_ms: float | None = None


def record_of(
    frame: Frame,
    number: int,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    state: str,
    *,
    position: int,
    decision: Decision | None,
    usage: Usage,
    about: About,
) -> NodeRecord:
    """Return the record of a node.

    Parameters
    ----------
    decision
        None where it succeeded.
    """
    node = frame.body.nodes[number]
    duration_ms = about.duration_ms
    if duration_ms is None:
        duration_ms = (time.perf_counter() - about.began) * 1000
    return NodeRecord(
        key=frame.key(number),
        node_id=node.id,
        node_type=node.type,
        alias_name=node.alias_name,
        position=position,
        attempt=about.attempts,
        state=state,
        inputs=inputs,
        outputs=outputs,
        error_code=0 if decision is None else decision.code,
        error_message="" if decision is None else decision.message,
        started_at=about.started_at,
        duration_ms=round(duration_ms, 3),
        usage=usage,
    )
