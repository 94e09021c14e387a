"""A flow as its readers see it: parsed, in one spelling, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALIASES = {"spark-llm": "llm", "ifly-code": "code"}
"""Types by the names of the system that flows are brought over from, and ours."""

START, END = "node-start", "node-end"
ITERATION, LOOP = "iteration", "loop"
BODY_STARTS = {"iteration-node-start": ITERATION, "loop-node-start": LOOP}
"""The types that begin a body, and the type of the node that owns it."""
BODY_ENDS = {"iteration-node-end": ITERATION, "loop-node-end": LOOP}
START_PARAMETERS = {ITERATION: "IterationStartNodeId", LOOP: "LoopStartNodeId"}
"""The types that have a body, and the parameter that names its start node."""

FAILURE_MARK = "fail_one_of"
"""What the handle of a failure edge contains."""
_BRANCH_PREFIX = "intent_chain|"

STANDARD_OUTPUTS: dict[str, dict[str, Any]] = {
    "errorCode": {"type": "integer"},
    "errorMessage": {"type": "string"},
}
"""What every node has besides its own outputs, and the schemas of these."""
IMPLIED_OUTPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "llm": {"REASONING_CONTENT": {"type": "string"}},
    "question-answer": {name: {"type": "string"} for name in ("id", "query", "content")},
}
"""By type: outputs that are there without being declared."""
WITHOUT_OUTPUTS = frozenset({"if-else", "message", END, *BODY_ENDS})
"""Types whose declared outputs nothing fills: they are left out of the model."""


@dataclass(frozen=True)
class Ref:
    """A value of another node's outputs: `path` begins with the output's name, further steps descend into it."""

    node_id: str
    path: tuple[str | int, ...]


@dataclass(frozen=True)
class Literal:
    """A value given in the flow, already converted to its declared type."""

    value: Any


@dataclass(frozen=True)
class Input:
    """One input of a node.

    Parameters
    ----------
    id
        What conditions call it by; '' where none is given.
    schema
        Declared type, `properties`, `items` and `default`, without the value.
    value
        None where none is given: the default of the schema holds.
    """

    id: str
    name: str
    schema: Mapping[str, Any]
    value: Ref | Literal | None


@dataclass(frozen=True)
class Output:
    """One output of a node; of a start node, one parameter of the run, which `required` is about."""

    id: str
    name: str
    schema: Mapping[str, Any]
    required: bool = False


@dataclass(frozen=True)
class RetryConfig:
    """What happens when a node fails.

    Parameters
    ----------
    max_retries
        Attempts after the first, 0 to 5.
    error_strategy
        Afterwards: 0 the run fails, 1 the node succeeds with `custom_output`, 2 the failure edges run.
    timeout_s
        Seconds for one attempt.
    backoff_s
        Seconds before the first retry, doubled for each further one.
    """

    should_retry: bool = False
    max_retries: int = 0
    error_strategy: int = 0
    custom_output: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    backoff_s: float = 1.0

    @property
    def has_failure_edge(self) -> bool:
        """Whether the node may have edges that run when it has failed."""
        return self.should_retry and self.error_strategy == 2


@dataclass(frozen=True)
class Node:
    """One node.

    Parameters
    ----------
    type
        The prefix of the id, by our name.
    params
        `nodeParam` with its keys in camelCase; a `domain` stands under `model`.
    """

    id: str
    type: str
    alias_name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    params: Mapping[str, Any]
    retry: RetryConfig


@dataclass(frozen=True)
class Edge:
    """One edge; `handle` is a branch id without the prefix `intent_chain|`, '' or that of a failure edge."""

    source: str
    target: str
    handle: str

    @property
    def failure(self) -> bool:
        """Whether it is followed only when its source has failed."""
        return FAILURE_MARK in self.handle


@dataclass(frozen=True)
class Flow:
    """A flow without violations.

    Parameters
    ----------
    nodes
        By id, in the order of the document.
    bodies
        Ids of the owner's body in an order in which every node follows those that it waits for; '' is the flow
        itself, without what belongs to iterations and loops.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    start: Node | None
    bodies: Mapping[str, tuple[str, ...]]


def plain_handle(handle: str) -> str:
    """A handle or a branch id in the one spelling that they are compared in."""
    return handle.removeprefix(_BRANCH_PREFIX)
