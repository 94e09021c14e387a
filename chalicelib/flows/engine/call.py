"""What a node is handed when it works, and what it gives back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.llm.model import ChatMessage, Usage
from chalicelib.flows.dsl.model import Node


@dataclass(frozen=True)
class Scope:
    """What all nodes of a run have in common.

    Parameters
    ----------
    caller
        The app that runs the flow: its variables, its history, its agents' conversations.
    author
        The app that owns the flow, as a caller: its tools, plugins and keys are used, as its own when it runs the flow.
    flow_id
        Of the flow whose nodes these are: in a sub-flow, the sub-flow's.
    uid, chat_id
        The end user and the conversation; "" where the run names none.
    history
        Whether what was said before is given to models and what is said now is kept.
    memory
        By node id: what was said before at the nodes that are told of it, the oldest first.
    """

    run_id: str
    caller: Caller
    author: Caller
    flow_id: int
    uid: str = ""
    chat_id: str = ""
    history: bool = True
    memory: Mapping[str, Sequence[ChatMessage]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One attempt of one node.

    Parameters
    ----------
    key
        The node's id with where it runs: `iteration::1[3]/llm::x` is the node llm::x for the fourth item.
    inputs
        Values by name.
    deadline
        When the attempt must have ended, by `time.monotonic`.
    """

    scope: Scope
    node: Node
    key: str
    inputs: Mapping[str, Any]
    attempt: int
    deadline: float

    def seconds_left(self, most: float = 300.0) -> float:
        """Seconds that a call to the outside may still take, at least 0.05 and at most `most`."""
        return max(0.05, min(most, self.deadline - time.monotonic()))

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this node in this run, and for no other: 64 hex digits."""
        return hashlib.sha256(f"{self.scope.run_id}\0{self.key}".encode()).hexdigest()


NO_USAGE = Usage()


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, for the history of the node."""

    question: str
    answer: str


@dataclass(frozen=True)
class Result:
    """What a node gives; JSON values only, since a durable run stores it.

    Parameters
    ----------
    branch
        Of a node that chooses: the id of the branch that is taken, without the prefix `intent_chain|`.
    content
        What the node adds to the run's content.
    exchange
        What is to be remembered once the run has ended well.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)
    branch: str = ""
    content: str | None = None
    usage: Usage = NO_USAGE
    exchange: Exchange | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON, for a checkpoint."""
        usage = self.usage
        return {
            "outputs": dict(self.outputs),
            "branch": self.branch,
            "content": self.content,
            "usage": [usage.input_tokens, usage.output_tokens, usage.calls],
            "exchange": None if self.exchange is None else [self.exchange.question, self.exchange.answer],
        }

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Result:
        """The result that `as_dict` wrote."""
        exchange = given["exchange"]
        return cls(
            given["outputs"],
            given["branch"],
            given["content"],
            Usage(*given["usage"]),
            None if exchange is None else Exchange(*exchange),
        )


Execute = Callable[[Call], Result]
"""The work of a node type. It raises `errors.NodeError`, `errors.Interrupt`; never `HotplugError`."""
