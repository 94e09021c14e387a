"""The circuit breaker's state machine, apart from storage, clocks and calls.

::

    closed ── too many failures in a row ──▶ open ── cool-down over, one claims the probe ──▶ half_open
       ▲                                      ▲ ▲                                               │ │ │
       │                                      │ └──── the probe fails: another cool-down ───────┘ │ │
       │                                      └────── the probe tells nothing: at once again ─────┘ │
       └───────────────────────────────────────────── the probe succeeds ───────────────────────────┘

A circuit is a value; every change makes a new one, which its store swaps for the one that was seen, or not at
all. So two processes that open at once open once, and one of those that want to probe does.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout


class State(StrEnum):
    """Whether calls are made."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(StrEnum):
    """What may be done with a call now."""

    PASS = "pass"  # noqa: S105 - not a password
    PROBE = "probe"
    REFUSE = "refuse"


class Outcome(StrEnum):
    """What a call told of its server."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


# A server that is there but cannot serve. 500 is one operation's defect, 429 is its word about the caller.
_FAILING_STATUS = frozenset({502, 503, 504})
_FAILING_CODES = frozenset({"http.connect_failed", "http.tls_failed", "http.protocol_error"})


def judge_status(status: int) -> Outcome:
    """Return what an answer's status tells of its server."""
    return Outcome.FAILURE if status in _FAILING_STATUS else Outcome.SUCCESS


def judge_error(error: BaseException) -> Outcome:
    """Return what an error of the outbound client tells of the server.

    Our own refusals (a forbidden address, a bound on the size, a call that was closed) tell nothing.
    """
    if isinstance(error, UpstreamTimeout) or (
        isinstance(error, UpstreamFailed) and error.code in _FAILING_CODES
    ):
        return Outcome.FAILURE
    return Outcome.NOTHING


@dataclass(frozen=True)
class Policy:
    """When a circuit opens, and for how long.

    Parameters
    ----------
    failures
        Consecutive ones, of one process, that open it.
    cool_down_s
        Seconds in which an open circuit refuses every call.
    probe_lease_s
        Seconds after which a probe whose outcome nobody heard of is made again by another.
    """

    failures: int = 5
    cool_down_s: float = 30
    probe_lease_s: float = 60


@dataclass(frozen=True)
class Circuit:
    """One app's way to one host, as all functions know it.

    Parameters
    ----------
    revision
        Raised by every stored change; 0 before the first.
    owner
        Who probes.
    until
        The end of the cool-down where open, of the probe's lease where half open.
    failures
        How many opened it.
    """

    state: State = State.CLOSED
    revision: int = 0
    owner: str | None = None
    until: datetime | None = None
    opened_at: datetime | None = None
    failures: int = 0

    def verdict(self, now: datetime) -> Verdict:
        """Return what may be done with a call."""
        if self.until is None:
            return Verdict.PASS
        return Verdict.PROBE if now >= self.until else Verdict.REFUSE

    def retry_after(self, now: datetime, policy: Policy) -> int:
        """Return after how many whole seconds a refused call may be tried again."""
        left = 0.0 if self.until is None else (self.until - now).total_seconds()
        # While it is probed the lease is only its latest end.
        return max(1, math.ceil(min(left, policy.cool_down_s)))

    def opened(self, failures: int, now: datetime, policy: Policy) -> Circuit:
        """Return it opened by so many failures in a row."""
        return self._next(
            State.OPEN, None, now + timedelta(seconds=policy.cool_down_s), opened_at=now, failures=failures
        )

    def claimed(self, owner: str, now: datetime, policy: Policy) -> Circuit:
        """Return it half open, with the one probe that `owner` may make."""
        return self._next(State.HALF_OPEN, owner, now + timedelta(seconds=policy.probe_lease_s))

    def settled(self, outcome: Outcome, now: datetime, policy: Policy) -> Circuit:
        """Return what becomes of a half-open one by the outcome of its probe."""
        if outcome is Outcome.SUCCESS:
            return self._next(State.CLOSED, None, None, opened_at=None, failures=0)
        wait = timedelta(seconds=policy.cool_down_s if outcome is Outcome.FAILURE else 0)
        return self._next(State.OPEN, None, now + wait)

    def is_same(self, other: Circuit) -> bool:
        """Return whether nothing was stored between the two.

        The owner as well: a row that was pruned begins again with low revisions.
        """
        return (self.revision, self.owner) == (other.revision, other.owner)

    def _next(self, state: State, owner: str | None, until: datetime | None, **changes: object) -> Circuit:
        return replace(
            self,
            state=state,
            owner=owner,
            until=until,
            revision=self.revision + 1,
            **changes,  # type: ignore[arg-type]
        )


class Streaks:
    """Consecutive failures that this process has seen, by circuit; the least recently used are forgotten.

    A streak belongs to one revision of its circuit: what was counted before a recovery counts no more.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counted: dict[tuple[int, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def fail(self, key: tuple[int, str], revision: int) -> int:
        """Count one failure and return how many there are in a row."""
        with self._lock:
            counted_under, count = self._counted.pop(key, (revision, 0))
            count = count + 1 if counted_under == revision else 1
            self._counted[key] = (revision, count)
            if len(self._counted) > self._capacity:
                del self._counted[next(iter(self._counted))]
            return count

    def end(self, key: tuple[int, str]) -> None:
        """Forget what was counted."""
        with self._lock:
            self._counted.pop(key, None)

    def __len__(self) -> int:
        return len(self._counted)
