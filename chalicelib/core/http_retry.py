"""Trying a call again, where that can do no harm: idempotent methods, passing failures, within the deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout
from chalicelib.core.http_deadline import Deadline

MAX_RETRIES = 5
RETRY_BASE_S = 0.2
RETRY_CEILING_S = 5.0

_TRANSIENT_STATUS = frozenset({502, 503, 504})
_TRANSIENT_CODES = frozenset({"http.connect_failed", "http.protocol_error"})


class Answer(Protocol):
    """What is known of an answer."""

    @property
    def status(self) -> int: ...

    def header(self, name: str) -> str | None: ...


AnAnswer = TypeVar("AnAnswer", bound=Answer)


def retry(
    attempt: Callable[[], AnAnswer], retries: int, deadline: Deadline, sleep: Callable[[float], None]
) -> AnAnswer:
    """Return the first answer that is worth keeping, else the last one.

    Parameters
    ----------
    attempt
        An idempotent call.
    retries
        How often it may be made again.
    deadline
        No pause ends after it.
    sleep
        How to wait, in seconds.

    Raises
    ------
    errors.HotplugError
        What the last attempt raised.
    """
    import tenacity

    again = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1) | tenacity.stop_before_delay(deadline.bound(None)),
        # Full jitter: clients that failed together do not come back together.
        wait=tenacity.wait_random_exponential(multiplier=RETRY_BASE_S, max=RETRY_CEILING_S),
        retry=tenacity.retry_if_exception(is_transient) | tenacity.retry_if_result(_asks_again),
        sleep=sleep,
        retry_error_callback=lambda state: cast("Any", state.outcome).result(),
    )
    return again(attempt)


def is_transient(error: BaseException) -> bool:
    """Return whether the server could not be reached, or did not answer in time or in HTTP."""
    return isinstance(error, UpstreamTimeout) or (
        isinstance(error, UpstreamFailed) and error.code in _TRANSIENT_CODES
    )


def _asks_again(answer: Answer) -> bool:
    return answer.status in _TRANSIENT_STATUS and answer.header("retry-after") is None
