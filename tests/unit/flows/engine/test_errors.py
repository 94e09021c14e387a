"""The chain of handlers, one by one and together; and how long is waited between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Conflict, Forbidden, HotplugError, NotFound, TooManyRequests, Unavailable
from chalicelib.flows.dsl.model import Node, RetryConfig
from chalicelib.flows.engine.errors import (
    MAX_BACKOFF_S,
    MAX_MESSAGE,
    NODE_FAILED,
    CustomExceptionInterruptHandler,
    Decision,
    ErrorContext,
    ErrorHandler,
    GeneralErrorHandler,
    Interrupt,
    NodeError,
    NodeTimeout,
    RetryableErrorHandler,
    TimeoutErrorHandler,
    Verdict,
    backoff,
    chain,
    node_error,
)


class Last(ErrorHandler):
    """Notes what reaches the end of a chain."""

    def __init__(self) -> None:
        self.seen: list[tuple[BaseException, int]] = []

    def handle(self, error: BaseException, node: Node, ctx: ErrorContext, attempt: int) -> Decision:
        self.seen.append((error, attempt))
        return Decision(Verdict.FAIL_RUN, 0, "passed on")


def node(**retry: Any) -> Node:
    return Node("code::1", "code", "", (), (), {}, RetryConfig(**retry))


def context(jitter: Callable[[], float] = lambda: 1.0) -> ErrorContext:
    return ErrorContext("run", jitter)


def passed(handler: ErrorHandler, error: BaseException, one: Node | None = None) -> list[BaseException]:
    """What a handler alone passes on."""
    last = Last()
    handler.set_next(last)
    handler.handle(error, one or node(), context(), 3)
    assert all(attempt == 3 for _, attempt in last.seen)
    return [seen for seen, _ in last.seen]


def test_a_handler_passes_everything_on() -> None:
    error = NodeError(1, "x")
    assert passed(ErrorHandler(), error) == [error]


def test_the_end_of_a_chain_raises() -> None:
    with pytest.raises(KeyError):
        ErrorHandler().handle(KeyError("x"), node(), context(), 1)


def test_set_next_gives_what_follows() -> None:
    first, second = ErrorHandler(), ErrorHandler()
    assert first.set_next(second) is second


def test_the_order_of_the_chain() -> None:
    found, one = [], chain()
    while one is not None:
        found.append(type(one))
        one = one._next  # type: ignore[assignment]
    assert found == [
        TimeoutErrorHandler,
        CustomExceptionInterruptHandler,
        RetryableErrorHandler,
        GeneralErrorHandler,
    ]


# -- timeouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TimeoutError(), TimeoutError("a secret")])
def test_a_timeout_becomes_a_nodes_error(error: TimeoutError) -> None:
    (seen,) = passed(TimeoutErrorHandler(), error, node(timeout_s=1.5))
    assert isinstance(seen, NodeTimeout)
    assert (seen.code, seen.message, seen.is_transient) == (22302, "The node took longer than 1.5 s.", True)


@pytest.mark.parametrize(
    "error", [NodeError(21603, "its own limit"), Interrupt(1, ""), ValueError(), OSError()]
)
def test_the_first_handler_leaves_all_else_alone(error: Exception) -> None:
    assert passed(TimeoutErrorHandler(), error) == [error]


# -- interrupts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("strategy", [0, 1, 2])
def test_an_interrupt_ends_the_run(cancelled: bool, strategy: int) -> None:
    one = node(should_retry=True, max_retries=5, error_strategy=strategy)
    found = CustomExceptionInterruptHandler().handle(
        Interrupt(23802, "refused", cancelled=cancelled), one, context(), 1
    )
    assert found == Decision(Verdict.FAIL_RUN, 23802, "refused", interrupts=True, cancelled=cancelled)


@pytest.mark.parametrize("error", [NodeError(1, "x"), ValueError(), NodeTimeout(1)])
def test_the_second_handler_leaves_all_else_alone(error: Exception) -> None:
    assert passed(CustomExceptionInterruptHandler(), error) == [error]


# -- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize("strategy", [0, 1, 2])
def test_retries_and_then_the_strategy(retries: int, strategy: int) -> None:
    one = node(should_retry=True, max_retries=retries, error_strategy=strategy, backoff_s=1.0)
    found = [
        RetryableErrorHandler().handle(NodeError(21600, "x"), one, context(), attempt)
        for attempt in range(1, 8)
    ]
    end = (Verdict.FAIL_RUN, Verdict.CUSTOM_OUTPUT, Verdict.FAILURE_EDGES)[strategy]
    assert [one.verdict for one in found] == [Verdict.RETRY] * retries + [end] * (7 - retries)
    assert {(one.code, one.message, one.interrupts) for one in found} == {(21600, "x", False)}
    assert all(one.delay_s == 0 for one in found[retries:])


def test_a_final_error_is_not_tried_again() -> None:
    one = node(should_retry=True, max_retries=5, error_strategy=2)
    found = RetryableErrorHandler().handle(NodeError(1, "x", is_transient=False), one, context(), 1)
    assert found == Decision(Verdict.FAILURE_EDGES, 1, "x")


def test_without_should_retry_it_is_passed_on() -> None:
    error = NodeError(1, "x")
    assert passed(RetryableErrorHandler(), error, node(max_retries=5, error_strategy=1)) == [error]


@pytest.mark.parametrize("error", [ValueError(), Interrupt(1, ""), OSError()])
def test_the_third_handler_knows_the_errors_of_nodes_alone(error: Exception) -> None:
    assert passed(RetryableErrorHandler(), error, node(should_retry=True, max_retries=5)) == [error]


# -- everything else ---------------------------------------------------------------------------------------------


def test_a_nodes_error_fails_the_run() -> None:
    assert GeneralErrorHandler().handle(NodeError(21600, "x"), node(), context(), 1) == Decision(
        Verdict.FAIL_RUN, 21600, "x"
    )


@pytest.mark.parametrize(
    "error", [ValueError("a secret"), RecursionError("a secret"), MemoryError("a secret")]
)
def test_an_unknown_error_tells_its_kind_alone(error: Exception) -> None:
    found = chain().handle(error, node(should_retry=True, max_retries=5, error_strategy=1), context(), 1)
    assert found == Decision(Verdict.FAIL_RUN, NODE_FAILED, f"The node failed: {type(error).__name__}.")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_is_no_failure_of_a_node(error: type[BaseException]) -> None:
    with pytest.raises(error):
        chain().handle(error(), node(should_retry=True, max_retries=5), context(), 1)


def test_a_timeout_goes_through_the_whole_chain() -> None:
    one = node(should_retry=True, max_retries=1, error_strategy=2, timeout_s=2)
    found = [chain().handle(TimeoutError(), one, context(), attempt) for attempt in (1, 2)]
    assert [one.verdict for one in found] == [Verdict.RETRY, Verdict.FAILURE_EDGES]
    assert {one.code for one in found} == {22302}


@pytest.mark.parametrize("made", [lambda text: NodeError(1, text), lambda text: Interrupt(1, text)])
def test_messages_are_bounded(made: Any) -> None:
    assert chain().handle(made("x" * 10_000), node(), context(), 1).message == "x" * MAX_MESSAGE


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (NotFound("gone", code="x"), False),
        (Forbidden("no", code="x"), False),
        (Conflict("busy", code="x"), True),
        (TooManyRequests("later", code="x", retry_after=1), True),
        (Unavailable("away", code="x"), True),
    ],
)
def test_a_refusal_is_final_unless_it_says_to_come_again(error: HotplugError, is_transient: bool) -> None:
    found = node_error(error, 23400)
    assert (found.code, found.is_transient) == (23400, is_transient)
    assert found.message == f"{error.detail} (x)"


# -- waiting -----------------------------------------------------------------------------------------------------


def test_backoff_doubles_up_to_its_bound() -> None:
    waits = [backoff(node(backoff_s=1.0), context(), attempt) for attempt in range(1, 8)]
    assert waits == [1, 2, 4, 8, 16, MAX_BACKOFF_S, MAX_BACKOFF_S]
    assert backoff(node(backoff_s=60.0), context(), 1) == MAX_BACKOFF_S


@given(st.floats(0, 60), st.integers(1, 6), st.floats(0, 1, exclude_max=True))
def test_backoff_is_within_its_bounds(base: float, attempt: int, jitter: float) -> None:
    found = backoff(node(backoff_s=base), context(lambda: jitter), attempt)
    assert 0 <= found <= min(MAX_BACKOFF_S, base * 2 ** (attempt - 1))


@pytest.mark.parametrize("seed", range(5))
def test_jitter_is_full(seed: int) -> None:
    """From nothing to the whole: clients that failed together do not come again together."""
    drawn = context(random.Random(seed).random)
    waits = sorted(backoff(node(backoff_s=8.0), drawn, 1) for _ in range(400))
    assert waits[0] < 0.8
    assert waits[-1] > 7.2
    assert 3.2 < sum(waits) / len(waits) < 4.8


def test_no_backoff_is_no_wait() -> None:
    assert backoff(node(backoff_s=0.0), context(), 5) == 0
