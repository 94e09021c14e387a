"""Trying a call again, where that can do no harm: idempotent methods, passing failures, within the deadline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar, cast

from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.deadline import Deadline

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


@dataclass(frozen=True)
class Repeat:
    """The word of a caller who knows that its request does no harm when it arrives twice, whatever its method.

    Parameters
    ----------
    statuses
        Answers after which it is sent again, once their Retry-After has passed.
    """

    statuses: frozenset[int]

    def asked_by(self, answer: Answer) -> bool:
        """Return whether the answer is one of them."""
        return answer.status in self.statuses


def retry(
    attempt: Callable[[], AnAnswer],
    retries: int,
    deadline: Deadline,
    sleep: Callable[[float], None],
    repeat: Repeat | None = None,
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
    repeat
        Other answers to try again after than 502, 503 and 504 without Retry-After.

    Raises
    ------
    errors.HotplugError
        What the last attempt raised.
    """
    import tenacity

    # Full jitter: clients that failed together do not come back together.
    jitter = tenacity.wait_random_exponential(multiplier=RETRY_BASE_S, max=RETRY_CEILING_S)
    again = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1) | tenacity.stop_before_delay(deadline.bound(None)),
        wait=lambda state: max(jitter(state), _asked_pause(cast("Any", state.outcome)) if repeat else 0),
        retry=tenacity.retry_if_exception(is_transient)
        | tenacity.retry_if_result(repeat.asked_by if repeat else _asks_again),
        sleep=sleep,
        retry_error_callback=lambda state: cast("Any", state.outcome).result(),
    )
    return again(attempt)


def is_transient(error: BaseException) -> bool:
    """Return whether the server could not be reached, or did not answer in time or in HTTP."""
    return isinstance(error, UpstreamTimeout) or (
        isinstance(error, UpstreamFailed) and error.code in _TRANSIENT_CODES
    )


def retry_after_s(answer: Answer, now: datetime | None = None) -> float | None:
    """Return after how many seconds an answer asks to come back (RFC 9110, 10.2.3: seconds, or a date); None where it
    does not say, or not so that it can be understood."""
    text = (answer.header("retry-after") or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    # RFC 5322 has dates without a known zone; RFC 9110 has only GMT.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return float(max(0, math.ceil((moment - (now or datetime.now(UTC))).total_seconds())))


def _asked_pause(outcome: Any) -> float:
    return 0.0 if outcome.failed else retry_after_s(outcome.result()) or 0.0


def _asks_again(answer: Answer) -> bool:
    return answer.status in _TRANSIENT_STATUS and answer.header("retry-after") is None
