"""Why a node fails, and what follows from it: a chain of four handlers, each of which decides or passes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from chalicelib.core.errors import HotplugError
from chalicelib.flows.dsl.model import Node

# Codes that flows may test, as `errorCode`.
OUTPUT_MISFIT = 20601
CODE_FAILED, CODE_RESULT, CODE_TIME_LIMIT = 21600, 21602, 21603
NODE_FAILED = 22302
PARAMETERS = 22500
SUBFLOW_FAILED = 22801
BRANCH_FAILED = 23100
ITERATION_FAILED = 23200
LLM_FAILED = 23300
TOOL_FAILED = 23400
NO_ANSWER = 23802

MAX_MESSAGE = 2_000
MAX_BACKOFF_S = 30.0
_TRY_AGAIN = frozenset({408, 409, 425, 429})


class NodeError(Exception):
    """A node failed.

    Parameters
    ----------
    code
        One of those above; flows see it as `errorCode`.
    message
        For the flow's author and its users: never a secret, at most 2,000 characters are kept.
    is_transient
        Another attempt may succeed; where it is False, none is made.
    """

    def __init__(self, code: int, message: str, *, is_transient: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message[:MAX_MESSAGE]
        self.is_transient = is_transient


class NodeTimeout(NodeError):
    """An attempt took longer than its node allows."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(NODE_FAILED, f"The node took longer than {timeout_s:g} s.")


class Interrupt(Exception):
    """The run ends, whatever its nodes would do about an error: it was cancelled, an answer was refused, a licence was
    taken away."""

    def __init__(self, code: int, message: str, *, cancelled: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message[:MAX_MESSAGE]
        self.cancelled = cancelled


def node_error(error: HotplugError, code: int) -> NodeError:
    """Return what a service's refusal means to the node that called it.

    A refusal of the request itself (4xx) is final, as long as it does not say to come again.
    """
    final = error.status < 500 and error.status not in _TRY_AGAIN
    return NodeError(code, f"{error.detail} ({error.code})", is_transient=not final)


class Verdict(Enum):
    """What is done about a failed attempt."""

    RETRY = "retry"
    CUSTOM_OUTPUT = "custom_output"
    FAILURE_EDGES = "failure_edges"
    FAIL_RUN = "fail_run"


@dataclass(frozen=True)
class Decision:
    """A verdict.

    Parameters
    ----------
    code, message
        Of the error as the flow and its users see it.
    delay_s
        Seconds before the next attempt, for RETRY.
    interrupts, cancelled
        For FAIL_RUN: whatever the node stands in has no say; the run was cancelled.
    """

    verdict: Verdict
    code: int
    message: str
    delay_s: float = 0.0
    interrupts: bool = False
    cancelled: bool = False


@dataclass(frozen=True)
class ErrorContext:
    """What a decision depends on besides the error.

    Parameters
    ----------
    jitter
        Returns a number from 0 up to 1.
    """

    run_id: str
    jitter: Callable[[], float] = random.random


class Handler(Protocol):
    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision: ...


class ErrorHandler:
    """A link of the chain: decides what it knows, passes everything else on."""

    _next: Handler | None = None

    def set_next(self, following: ErrorHandler) -> ErrorHandler:
        """Let another handler decide what this one does not; return it, so that calls can be chained."""
        self._next = following
        return following

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        """Return what to do about an error.

        Parameters
        ----------
        attempt
            The attempt that failed; the first is 1.
        """
        if self._next is None:
            raise error
        return self._next.handle(error, node, ctx, attempt)


class TimeoutErrorHandler(ErrorHandler):
    """An attempt that took too long is a node error of its own code, whatever the node was doing."""

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        if isinstance(error, TimeoutError):
            error = NodeTimeout(node.retry.timeout_s)
        return super().handle(error, node, ctx, attempt)


class CustomExceptionInterruptHandler(ErrorHandler):
    """An interrupt ends the run."""

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        if isinstance(error, Interrupt):
            return Decision(
                Verdict.FAIL_RUN, error.code, error.message, interrupts=True, cancelled=error.cancelled
            )
        return super().handle(error, node, ctx, attempt)


class RetryableErrorHandler(ErrorHandler):
    """A node error is tried again as long as its node allows; then the node's strategy holds."""

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        if not isinstance(error, NodeError) or not node.retry.should_retry:
            return super().handle(error, node, ctx, attempt)
        if error.is_transient and attempt <= node.retry.max_retries:
            return Decision(Verdict.RETRY, error.code, error.message, backoff(node, ctx, attempt))
        return Decision(_STRATEGIES[node.retry.error_strategy], error.code, error.message)


class GeneralErrorHandler(ErrorHandler):
    """Anything else fails the run. What is not a node's own error tells no more than its kind: its text may hold a
    payload."""

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        if isinstance(error, NodeError):
            return Decision(Verdict.FAIL_RUN, error.code, error.message)
        if not isinstance(error, Exception):
            raise error
        return Decision(Verdict.FAIL_RUN, NODE_FAILED, f"The node failed: {type(error).__name__}.")


_STRATEGIES = {0: Verdict.FAIL_RUN, 1: Verdict.CUSTOM_OUTPUT, 2: Verdict.FAILURE_EDGES}


def backoff(node: Node, ctx: ErrorContext, attempt: int) -> float:
    """Return seconds before the attempt after `attempt`: exponential with full jitter, at most 30."""
    return min(node.retry.backoff_s * 2.0 ** (attempt - 1), MAX_BACKOFF_S) * ctx.jitter()


def chain() -> ErrorHandler:
    """Return the first of the four handlers, each followed by the next."""
    first = TimeoutErrorHandler()
    first.set_next(CustomExceptionInterruptHandler()).set_next(RetryableErrorHandler()).set_next(
        GeneralErrorHandler()
    )
    return first
