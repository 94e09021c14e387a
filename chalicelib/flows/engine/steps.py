"""How an interpreter has work done: what express and durable runs have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.flows.dsl.model import Node
from chalicelib.flows.engine.call import Result, Scope
from chalicelib.flows.engine.errors import Decision
from chalicelib.flows.engine.frame import Frame


@dataclass(frozen=True)
class Work:
    """A node that is to be run outside the interpreter.

    Parameters
    ----------
    key
        See `call.Call`.
    frame, number
        Where the interpreter goes on afterwards.
    """

    key: str
    node: Node
    inputs: Mapping[str, Any]
    scope: Scope
    frame: Frame = field(repr=False)
    number: int


@dataclass(frozen=True)
class Ended:
    """How a work ended.

    Parameters
    ----------
    result
        None where its last attempt failed; then there is a decision.
    attempts
        How many there were.
    started_at
        ISO 8601 in UTC, of the first attempt; of a durable step the last one, since nothing is kept of those before.
    duration_ms
        Of all attempts with what was waited between them; of a durable step the last attempt alone.
    """

    work: Work
    result: Result | None
    decision: Decision | None
    attempts: int
    started_at: str
    duration_ms: float


@dataclass(frozen=True)
class Question:
    """What a user is asked.

    Parameters
    ----------
    kind
        `direct` or `option`.
    options
        `{id, name, content}` of each.
    timeout_s
        Seconds until it expires.
    """

    key: str
    node_id: str
    kind: str
    text: str
    options: tuple[Mapping[str, Any], ...]
    timeout_s: float


@dataclass(frozen=True)
class Answer:
    """What came of a question: `action` is resume, ignore or abort, or expired."""

    action: str
    content: Any = None


Attempt = Callable[[Work, int, float], Result]
"""Makes one attempt of a work: its number from 1, and the deadline by `time.monotonic`."""


class Steps(Protocol):
    """Where works are done. One thread calls it."""

    def start(self, work: Work) -> None:
        """Let a work begin as soon as there is room."""
        ...

    def wait(self) -> list[Ended]:
        """Return the works that ended, at least one.

        Raises
        ------
        Interrupt
            The run was cancelled, or its time is over.
        """
        ...

    def ask(self, question: Question) -> Answer:
        """Ask the user, and return when there is an answer; nothing else is under way.

        Raises
        ------
        Interrupt
        """
        ...

    def check(self) -> None:
        """Raise Interrupt where the run must not go on; called often, so it is cheap."""
        ...
