from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chalicelib.core.errors import Forbidden, HotplugError, Invalid, UpstreamFailed, UpstreamTimeout
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
from chalicelib.core.outbound.connection import StreamClosed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POLICY = Policy(failures=3, cool_down_s=30, probe_lease_s=60)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.FAILURE) for status in (502, 503, 504)),
        *(
            (status, Outcome.SUCCESS)
            for status in (100, 200, 301, 400, 404, 408, 429, 499, 500, 501, 505, 599)
        ),
    ],
)
def test_which_status_is_a_failure_of_the_host(status: int, outcome: Outcome) -> None:
    assert judge_status(status) is outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamTimeout(), Outcome.FAILURE),
        *(
            (UpstreamFailed(code=f"http.{code}"), Outcome.FAILURE)
            for code in ("connect_failed", "tls_failed", "protocol_error")
        ),
        *(
            (UpstreamFailed(code=code), Outcome.NOTHING)
            for code in ("http.response_too_large", "http.redirect_refused", "plugin.failed")
        ),
        (StreamClosed(), Outcome.NOTHING),
        (Forbidden(code="http.forbidden_address"), Outcome.NOTHING),
        (Invalid(code="http.connect_failed"), Outcome.NOTHING),
        (HotplugError(), Outcome.NOTHING),
        (ValueError(), Outcome.NOTHING),
    ],
)
def test_which_error_is_a_failure_of_the_host(error: Exception, outcome: Outcome) -> None:
    assert judge_error(error) is outcome


def test_the_life_of_a_circuit() -> None:
    closed = Circuit()
    assert closed.verdict(NOW) is Verdict.PASS
    opened = closed.opened(3, NOW, POLICY)
    assert opened == Circuit(State.OPEN, 1, None, after(30), NOW, 3)
    assert opened.verdict(after(29.9)) is Verdict.REFUSE
    assert opened.verdict(after(30)) is Verdict.PROBE
    probed = opened.claimed("me", after(30), POLICY)
    assert probed == Circuit(State.HALF_OPEN, 2, "me", after(90), NOW, 3)
    assert probed.verdict(after(89.9)) is Verdict.REFUSE
    assert probed.verdict(after(90)) is Verdict.PROBE
    taken_over = probed.claimed("other", after(90), POLICY)
    assert (taken_over.owner, taken_over.until) == ("other", after(150))
    assert probed.settled(Outcome.SUCCESS, after(31), POLICY) == Circuit(State.CLOSED, 3)
    assert probed.settled(Outcome.FAILURE, after(31), POLICY) == Circuit(
        State.OPEN, 3, None, after(61), NOW, 3
    )
    assert probed.settled(Outcome.NOTHING, after(31), POLICY).verdict(after(31)) is Verdict.PROBE


@pytest.mark.parametrize(
    ("circuit", "seconds", "wait"),
    [
        (Circuit().opened(3, NOW, POLICY), 0, 30),
        (Circuit().opened(3, NOW, POLICY), 0.5, 30),
        (Circuit().opened(3, NOW, POLICY), 29.9, 1),
        (Circuit().opened(3, NOW, POLICY), 31, 1),
        (Circuit().opened(3, NOW, POLICY).claimed("x", NOW, POLICY), 0, 30),
        (Circuit().opened(3, NOW, POLICY).claimed("x", NOW, POLICY), 50, 10),
        (Circuit(), 0, 1),
    ],
)
def test_when_to_try_again(circuit: Circuit, seconds: float, wait: int) -> None:
    assert circuit.retry_after(after(seconds), POLICY) == wait


def test_sameness_needs_the_owner_too() -> None:
    probed = Circuit().opened(3, NOW, POLICY).claimed("a", NOW, POLICY)
    assert probed.is_same(probed)
    assert not probed.is_same(Circuit().opened(3, NOW, POLICY).claimed("b", NOW, POLICY))
    assert not probed.is_same(Circuit())


def test_a_streak_is_of_one_revision_and_ends() -> None:
    streaks = Streaks(10)
    assert [streaks.fail((1, "a"), 0) for _ in range(3)] == [1, 2, 3]
    assert streaks.fail((2, "a"), 0) == 1
    assert streaks.fail((1, "a"), 4) == 1
    streaks.end((1, "a"))
    streaks.end((1, "a"))
    assert streaks.fail((1, "a"), 4) == 1


def test_streaks_are_bounded_and_the_least_recent_goes() -> None:
    streaks = Streaks(2)
    for host in ("a", "b", "a", "c"):
        streaks.fail((1, host), 0)
    assert len(streaks) == 2
    assert streaks.fail((1, "a"), 0) == 3
    assert streaks.fail((1, "b"), 0) == 1


# -- several processes against one store ---------------------------------------------------------------------

PROCESSES = st.sampled_from(["a", "b", "c"])


class Processes(RuleBasedStateMachine):
    """Processes that act on stale knowledge, on one stored circuit that is swapped or not; the model counts who
    is at the host."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.stored = Circuit()
        self.known = {name: Circuit() for name in "abc"}
        self.probing: dict[str, Circuit] = {}

    def swap(self, seen: Circuit, changed: Circuit) -> bool:
        if not self.stored.is_same(seen):
            return False
        assert changed.revision == self.stored.revision + 1
        self.stored = changed
        return True

    @rule(seconds=st.sampled_from([0.1, 1, 29, 30, 59, 60]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(name=PROCESSES)
    def refresh(self, name: str) -> None:
        self.known[name] = self.stored

    @rule(name=PROCESSES)
    def fail_too_often(self, name: str) -> None:
        seen = self.known[name]
        if seen.verdict(self.now) is Verdict.PASS:
            opened = self.swap(seen, seen.opened(3, self.now, POLICY))
            if opened:
                assert self.stored.verdict(self.now) is Verdict.REFUSE
                assert self.stored.verdict(self.now + timedelta(seconds=30)) is Verdict.PROBE

    @rule(name=PROCESSES)
    def claim(self, name: str) -> None:
        seen = self.known[name]
        if name in self.probing or seen.verdict(self.now) is not Verdict.PROBE:
            return
        before = self.stored
        if self.swap(seen, seen.claimed(name, self.now, POLICY)):
            # Nobody's lease is cut short.
            assert before.state is State.OPEN or before.until <= self.now  # type: ignore[operator]
            self.probing[name] = self.stored

    @precondition(lambda self: self.probing)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def probe_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        name = data.draw(st.sampled_from(sorted(self.probing)))
        held = self.probing.pop(name)
        still_ours = self.stored == held
        swapped = self.swap(held, held.settled(outcome, self.now, POLICY))
        # A prober that was replaced decides nothing.
        assert swapped is still_ours
        if swapped:
            expected = State.CLOSED if outcome is Outcome.SUCCESS else State.OPEN
            assert self.stored.state is expected

    @precondition(lambda self: self.probing)
    @rule(data=st.data())
    def prober_dies(self, data: st.DataObject) -> None:
        self.probing.pop(data.draw(st.sampled_from(sorted(self.probing))))

    @invariant()
    def at_most_one_probe_holds_a_lease(self) -> None:
        in_time = [held for held in self.probing.values() if held.until > self.now]  # type: ignore[operator]
        assert len([held for held in in_time if held == self.stored]) <= 1
        if self.stored.state is State.HALF_OPEN and self.stored.until > self.now:  # type: ignore[operator]
            assert self.stored.verdict(self.now) is Verdict.REFUSE

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        late = self.now + timedelta(seconds=60)
        assert self.stored.verdict(late) is not Verdict.REFUSE

    @invariant()
    def state_and_time_agree(self) -> None:
        assert (self.stored.until is None) == (self.stored.state is State.CLOSED)
        assert (self.stored.owner is not None) == (self.stored.state is State.HALF_OPEN)


Processes.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestProcesses = Processes.TestCase
