"""The circuit breaker of an app's calls to a host: a server that keeps failing is left alone for a while.

Failures are counted in the process; only when a circuit changes its state is a row written, whose cache scope
tells every warm function. So a call costs no round trip of its own, and a host that opened in one function is
refused by the next request in all others. Only the app whose calls failed is affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from chalicelib.core import guards, telemetry
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.core.outbound.circuit import (
    Circuit,
    Outcome,
    Policy,
    State,
    Streaks,
    Verdict,
    judge_error,
    judge_status,
)

STREAKS_REMEMBERED = 10_000

Clock = Callable[[], datetime]


class Answer(Protocol):
    """What the breaker must know of an answer."""

    @property
    def status(self) -> int: ...


AnAnswer = TypeVar("AnAnswer", bound=Answer)


class Circuits(Protocol):
    """Where circuits are kept; circuit_record.StoredCircuits is the real one."""

    def get(self, app_id: int, host: str) -> Circuit: ...

    def swap(
        self, app_id: int, host: str, seen: Circuit, changed: Circuit, now: datetime
    ) -> tuple[bool, Circuit]: ...


class CircuitOpen(Unavailable):
    """The host failed too often; nothing was sent."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            "The server failed too often; it is left alone for a while.",
            code="http.circuit_open",
            retry_after=retry_after,
        )


class Watched:
    """One call under the breaker's eyes."""

    def __init__(self) -> None:
        self._outcome: Outcome | None = None

    def answered(self, status: int) -> None:
        """Tell the status of the answer: 502, 503 and 504 are failures of the host."""
        self._outcome = judge_status(status)

    def outcome(self, error: BaseException | None) -> Outcome:
        """Return what the call told of its host, all in all."""
        told = Outcome.NOTHING if error is None else judge_error(error)
        if told is Outcome.NOTHING and self._outcome is not None:
            # It answered; that the caller then did not like the answer is no failure of the host.
            return self._outcome
        return Outcome.SUCCESS if error is None else told


class Breaker:
    """Refuses calls to hosts that keep failing. Threads of one invocation may share it.

    Parameters
    ----------
    circuits
        Shared by all functions.
    owner
        Names this process in the row of a circuit that it probes; at most 64 characters, unique.
    """

    def __init__(
        self,
        circuits: Circuits,
        owner: str,
        policy: Policy | None = None,
        *,
        now: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._circuits = circuits
        self._owner = owner
        self._policy = policy or Policy()
        self._now = now
        self._streaks = Streaks(STREAKS_REMEMBERED)

    def call(self, app_id: int, url: str, send: Callable[[], AnAnswer]) -> AnAnswer:
        """Return what `send` returns, unless the circuit to the URL's host is open.

        Retries inside `send` are one call: it failed when the last of them did.

        Raises
        ------
        CircuitOpen
            503 `http.circuit_open` with Retry-After; nothing was sent.
        errors.Invalid
            `http.invalid_url`.
        """
        with self.watch(app_id, url) as watched:
            answer = send()
            watched.answered(answer.status)
        return answer

    @contextmanager
    def watch(self, app_id: int, url: str) -> Iterator[Watched]:
        """Guard what the block sends to the URL's host, and learn from how it ends.

        An error that tells of a failing host counts (no connection, no answer in time, no HTTP), and so does
        the status that the block tells by `answered`. A block that ends without either is a success.

        Raises
        ------
        CircuitOpen, errors.Invalid
            As `call`.
        guards.NetworkInsideUnit
            A unit of work is open.
        """
        guards.forbid_in_unit("http")
        target = parse_url(url)
        key = (app_id, f"{target.host}:{target.port}")
        circuit = self._admit(key)
        watched = Watched()
        try:
            yield watched
        except Exception as error:
            self._settle(key, circuit, watched.outcome(error))
            raise
        self._settle(key, circuit, watched.outcome(None))

    def _admit(self, key: tuple[int, str]) -> Circuit:
        """Return the circuit that the call goes through: a closed one, or one that is ours to probe."""
        now = self._now()
        circuit = self._get(key)
        verdict = circuit.verdict(now)
        if verdict is Verdict.PASS:
            return circuit
        if verdict is Verdict.REFUSE:
            raise self._refused(circuit, now)
        claimed = circuit.claimed(self._owner, now, self._policy)
        swapped = self._swap(key, circuit, claimed, now)
        if swapped is None:
            # Without the database nobody can claim; a breaker that then refused would be an outage itself.
            return replace(circuit, state=State.CLOSED)
        won, current = swapped
        if won:
            _report("breaker.half_open", key)
            return current
        if current.verdict(now) is not Verdict.PASS:
            raise self._refused(current, now)
        return current

    def _refused(self, circuit: Circuit, now: datetime) -> CircuitOpen:
        telemetry.metric("breaker.refused", 1)
        return CircuitOpen(circuit.retry_after(now, self._policy))

    def _settle(self, key: tuple[int, str], circuit: Circuit, outcome: Outcome) -> None:
        now = self._now()
        if circuit.state is State.HALF_OPEN:
            settled = circuit.settled(outcome, now, self._policy)
            swapped = self._swap(key, circuit, settled, now)
            # Where it was not ours any more, whoever took over decides.
            if swapped is not None and swapped[0] and outcome is not Outcome.NOTHING:
                _report("breaker.closed" if settled.state is State.CLOSED else "breaker.opened", key)
        elif outcome is Outcome.SUCCESS:
            self._streaks.end(key)
        elif outcome is Outcome.FAILURE:
            failures = self._streaks.fail(key, circuit.revision)
            if failures >= self._policy.failures:
                self._open(key, circuit, failures, now)

    def _open(self, key: tuple[int, str], circuit: Circuit, failures: int, now: datetime) -> None:
        swapped = self._swap(key, circuit, circuit.opened(failures, now, self._policy), now)
        if swapped is None:
            return  # counted on: the next failure tries to record it again
        self._streaks.end(key)
        if swapped[0]:
            _report("breaker.opened", key)

    def _get(self, key: tuple[int, str]) -> Circuit:
        try:
            return self._circuits.get(*key)
        except (HotplugError, SQLAlchemyError) as error:
            _report_failure(error, key)
            return Circuit()

    def _swap(
        self, key: tuple[int, str], seen: Circuit, changed: Circuit, now: datetime
    ) -> tuple[bool, Circuit] | None:
        """Store a change; None where it could not be: the call's own outcome must not depend on it."""
        try:
            return self._circuits.swap(*key, seen, changed, now)
        except (HotplugError, SQLAlchemyError) as error:
            _report_failure(error, key)
            return None


def _report_failure(error: Exception, key: tuple[int, str]) -> None:
    telemetry.exception("breaker.storage_failed", error, app_id=key[0], host=key[1])
    telemetry.metric("breaker.storage_failed", 1)


def _report(event: str, key: tuple[int, str]) -> None:
    telemetry.event(event, app_id=key[0], host=key[1])
    telemetry.metric(event, 1)
