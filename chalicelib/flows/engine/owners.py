"""Nodes that open frames: iterations, loops, and nodes that run a sub-flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.flows.dsl.model import Node
from chalicelib.flows.engine.attempts import check_outputs
from chalicelib.flows.engine.errors import ITERATION_FAILED, SUBFLOW_FAILED, NodeError
from chalicelib.flows.engine.frame import Frame
from chalicelib.flows.engine.outcome import content_of
from chalicelib.flows.engine.passes import Passes
from chalicelib.flows.engine.records import About

MAX_DEPTH = 32
"""Bodies and sub-flows within one another: flows that were published one after the other may call each other, and the
keys of nodes grow with each."""


@dataclass
class Owner:
    """A node that opened frames: where it stands, and what they are for.

    Parameters
    ----------
    began
        By `time.perf_counter`.
    passes
        Through its body; None for a sub-flow, which is run once.
    open
        Its frames that have not ended, by their numbers.
    """

    frame: Frame
    number: int
    inputs: Mapping[str, Any]
    began: float
    started_at: str
    passes: Passes | None = None
    open: dict[int, Frame] = field(default_factory=dict)

    @property
    def node(self) -> Node:
        return self.frame.body.nodes[self.number]

    @property
    def failure_code(self) -> int:
        return SUBFLOW_FAILED if self.passes is None else ITERATION_FAILED

    @property
    def about(self) -> About:
        return About(self.began, self.started_at)

    @property
    def what(self) -> tuple[Frame, int, Mapping[str, Any]]:
        """Which node it is: its frame, its number, its inputs."""
        return self.frame, self.number, self.inputs


def check_depth(frame: Frame, code: int) -> None:
    """Refuse to open a frame within one that is as deep as any may be.

    Raises
    ------
    NodeError
        `code`
    """
    if frame.depth >= MAX_DEPTH:
        message = f"bodies and sub-flows are nested more than {MAX_DEPTH} deep"
        raise NodeError(code, message, is_transient=False)


def subflow_outputs(node: Node, frame: Frame) -> dict[str, Any]:
    """Return what a sub-flow that has ended gives its node: of its end's inputs those that the node declares.

    Raises
    ------
    NodeError
        22801: it reached no end; 20601: what it gave is not as declared.
    """
    result = frame.result()
    if result is None:
        raise NodeError(SUBFLOW_FAILED, "no branch of the sub-flow led to its end", is_transient=False)
    declared = {output.name for output in node.outputs}
    outputs = {name: value for name, value in result.items() if name in declared}
    if "content" in declared - outputs.keys():
        outputs["content"] = content_of(frame)
    check_outputs(node, outputs)
    return outputs
