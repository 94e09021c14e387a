from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.core import guards, telemetry
from chalicelib.core.errors import Forbidden, Invalid, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.breaker import Breaker, CircuitOpen
from chalicelib.core.outbound.circuit import Policy, State
from tests.fakes.circuits import MemoryCircuits

URL = "https://api.example/v1"
KEY = (7, "api.example:443")
POLICY = Policy(failures=3, cool_down_s=30, probe_lease_s=60)


@dataclass(frozen=True)
class Answer:
    status: int = 200


class World:
    """Two processes over one store, one clock and one server."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.circuits = MemoryCircuits()
        self.others = MemoryCircuits(self.circuits.stored)
        self.breaker = Breaker(self.circuits, "me", POLICY, now=lambda: self.now)
        self.other = Breaker(self.others, "other", POLICY, now=lambda: self.now)
        self.answer: Answer | Exception = Answer()
        self.arrived = 0

    def send(self) -> Answer:
        self.arrived += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def call(self, breaker: Breaker | None = None, url: str = URL, app_id: int = 7) -> str:
        """Return what became of a call: its status, or the code of its error."""
        self.circuits.refresh()
        self.others.refresh()
        try:
            return str((breaker or self.breaker).call(app_id, url, self.send).status)
        except (UpstreamFailed, UpstreamTimeout, Forbidden, CircuitOpen) as error:
            return error.code

    def fail(self, times: int) -> list[str]:
        self.answer = UpstreamTimeout()
        return [self.call() for _ in range(times)]

    def open(self) -> None:
        assert self.fail(3) == ["upstream.timeout"] * 3
        self.answer, self.arrived = Answer(), 0

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def state(self) -> State:
        return self.circuits.stored[KEY].state


def counted() -> list[str]:
    """Return the metrics since the last call."""
    found = [name for name, _, _ in telemetry._metrics]
    telemetry._metrics.clear()
    return found


@pytest.fixture
def world() -> Iterator[World]:
    counted()
    yield World()
    counted()


def test_it_opens_after_failures_in_a_row_and_refuses_in_every_process(world: World) -> None:
    assert world.fail(2) == ["upstream.timeout"] * 2
    assert world.circuits.stored == {}
    world.call()
    assert world.circuits.stored[KEY].state is State.OPEN
    assert world.circuits.stored[KEY].failures == 3
    assert [world.call(), world.call(world.other)] == ["http.circuit_open"] * 2
    assert world.arrived == 3
    assert counted() == ["breaker.opened", "breaker.refused", "breaker.refused"]


def test_the_refusal_is_503_with_the_time_to_wait(world: World) -> None:
    world.open()
    world.wait(10.5)
    with pytest.raises(CircuitOpen) as caught:
        world.breaker.call(7, URL, world.send)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (
        503,
        "http.circuit_open",
        20,
    )


def test_it_refuses_in_the_same_request_too(world: World) -> None:
    world.open()
    with pytest.raises(CircuitOpen):
        world.breaker.call(7, URL, world.send)


def test_a_success_between_ends_the_row(world: World) -> None:
    world.fail(2)
    world.answer = Answer(500)
    assert world.call() == "500"
    world.fail(2)
    assert world.circuits.swaps == 0


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_answer_of_a_failing_gateway_is_returned_and_counts(status: int, world: World) -> None:
    world.answer = Answer(status)
    assert [world.call() for _ in range(4)] == [str(status)] * 3 + ["http.circuit_open"]


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
def test_other_answers_never_open_it(status: int, world: World) -> None:
    world.answer = Answer(status)
    assert [world.call() for _ in range(10)] == [str(status)] * 10
    assert world.circuits.swaps == 0


def test_our_own_refusals_neither_count_nor_end_the_row(world: World) -> None:
    world.fail(2)
    world.answer = Forbidden(code="http.forbidden_address")
    assert [world.call() for _ in range(5)] == ["http.forbidden_address"] * 5
    assert world.circuits.swaps == 0
    world.fail(1)
    assert world.state is State.OPEN


def test_other_apps_hosts_and_ports_are_not_affected(world: World) -> None:
    world.open()
    assert world.call(app_id=8) == "200"
    assert world.call(url="https://other.example/") == "200"
    assert world.call(url="http://api.example/") == "200"
    assert world.call(url="HTTPS://API.example:443/else") == "http.circuit_open"


def test_one_probe_after_the_cool_down_closes_it(world: World) -> None:
    world.open()
    world.wait(30)
    seen: list[str] = []

    def send() -> Answer:
        seen.append(world.state)
        seen.append(world.call(world.other))
        return Answer()

    assert world.breaker.call(7, URL, send).status == 200
    assert seen == ["half_open", "http.circuit_open"]
    assert world.state is State.CLOSED
    assert [world.call(), world.call(world.other)] == ["200", "200"]
    assert counted() == ["breaker.opened", "breaker.half_open", "breaker.refused", "breaker.closed"]


def test_a_failing_probe_opens_it_again_at_once(world: World) -> None:
    world.open()
    world.wait(30)
    assert world.fail(1) == ["upstream.timeout"]
    assert world.call(world.other) == "http.circuit_open"
    world.wait(30)
    world.answer = Answer()
    assert world.call(world.other) == "200"
    assert world.state is State.CLOSED
    assert counted().count("breaker.opened") == 2


def test_a_probe_that_told_nothing_leaves_the_next_one_to_try(world: World) -> None:
    world.open()
    world.wait(30)
    world.answer = Forbidden(code="http.forbidden_address")
    assert world.call() == "http.forbidden_address"
    assert world.state is State.OPEN
    assert counted() == ["breaker.opened", "breaker.half_open"]
    world.answer = Answer()
    assert world.call(world.other) == "200"
    assert world.state is State.CLOSED


def test_a_prober_that_died_is_replaced_after_its_lease_and_decides_nothing(world: World) -> None:
    world.open()
    world.wait(30)

    def send() -> Answer:
        world.wait(59)
        assert world.call(world.other) == "http.circuit_open"
        world.wait(1)
        world.answer = UpstreamTimeout()
        assert world.call(world.other) == "upstream.timeout"
        return Answer()

    assert world.breaker.call(7, URL, send).status == 200
    assert world.state is State.OPEN
    assert "breaker.closed" not in counted()


def test_of_two_that_want_to_probe_the_second_is_refused(world: World) -> None:
    world.open()
    world.wait(30)
    world.others.refresh()

    def send() -> Answer:
        # The other process still knows the open circuit whose cool-down is over.
        with pytest.raises(CircuitOpen):
            world.other.call(7, URL, world.send)
        return Answer()

    world.breaker.call(7, URL, send)
    assert world.arrived == 0


def test_one_that_wants_to_probe_what_has_closed_meanwhile_just_calls(world: World) -> None:
    world.open()
    world.wait(30)
    world.others.refresh()
    world.breaker.call(7, URL, world.send)
    assert world.other.call(7, URL, world.send).status == 200
    assert world.state is State.CLOSED


def test_two_that_open_at_once_open_it_once(world: World) -> None:
    world.answer = UpstreamTimeout()
    for breaker in (world.breaker, world.other) * 2:
        world.call(breaker)
    world.circuits.refresh()
    world.others.refresh()
    for breaker in (world.breaker, world.other):
        with pytest.raises(UpstreamTimeout):
            breaker.call(7, URL, world.send)
    assert world.circuits.stored[KEY].revision == 1
    assert counted() == ["breaker.opened"]


def test_failures_from_before_a_recovery_count_no_more(world: World) -> None:
    world.answer = UpstreamTimeout()
    world.call(world.other)
    world.call(world.other)
    world.open()
    world.wait(30)
    assert world.call() == "200"
    world.answer = UpstreamTimeout()
    world.call(world.other)
    assert world.state is State.CLOSED


# -- without the database ------------------------------------------------------------------------------------


def test_a_state_that_cannot_be_read_lets_the_call_through(world: World) -> None:
    world.circuits.away = True
    assert world.call() == "200"
    assert counted() == ["breaker.storage_failed"]


def test_an_opening_that_cannot_be_recorded_keeps_the_calls_own_outcome_and_is_tried_again(
    world: World,
) -> None:
    world.fail(2)

    def send() -> Answer:
        world.circuits.away = True
        raise UpstreamTimeout

    with pytest.raises(UpstreamTimeout):
        world.breaker.call(7, URL, send)
    assert world.circuits.stored == {}
    world.circuits.away = False
    world.fail(1)
    assert world.state is State.OPEN
    assert counted() == ["breaker.storage_failed", "breaker.opened"]


def test_a_closing_that_cannot_be_recorded_does_not_fail_the_call(world: World) -> None:
    world.open()
    world.wait(30)

    def send() -> Answer:
        world.circuits.away = True
        return Answer()

    assert world.breaker.call(7, URL, send).status == 200
    assert world.state is State.HALF_OPEN


def test_a_probe_that_cannot_be_claimed_is_made_all_the_same(world: World) -> None:
    world.open()
    world.wait(30)
    world.circuits.read_only = True
    assert world.call() == "200"
    assert world.state is State.OPEN


# -- watching ------------------------------------------------------------------------------------------------


def test_a_block_without_a_word_is_a_success(world: World) -> None:
    world.fail(2)
    with world.breaker.watch(7, URL):
        pass
    world.fail(2)
    assert world.circuits.swaps == 0


def test_an_answer_that_the_caller_does_not_like_is_no_failure_of_the_host(world: World) -> None:
    world.fail(2)
    with pytest.raises(Invalid), world.breaker.watch(7, URL) as watched:
        watched.answered(200)
        raise Invalid
    world.fail(2)
    assert world.circuits.swaps == 0


def test_a_body_that_breaks_off_after_a_good_status_is_a_failure(world: World) -> None:
    for _ in range(3):
        with pytest.raises(UpstreamFailed), world.breaker.watch(7, URL) as watched:
            watched.answered(200)
            raise UpstreamFailed(code="http.protocol_error")
    assert world.state is State.OPEN


def test_a_failing_status_counts_whatever_the_caller_makes_of_it(world: World) -> None:
    for _ in range(3):
        with pytest.raises(UpstreamFailed), world.breaker.watch(7, URL) as watched:
            watched.answered(503)
            raise UpstreamFailed(code="tool.failed")
    assert world.state is State.OPEN


def test_an_unexpected_error_tells_nothing(world: World) -> None:
    for _ in range(5):
        with pytest.raises(LookupError), world.breaker.watch(7, URL):
            raise LookupError
    assert world.circuits.swaps == 0


def test_a_url_is_checked_and_no_unit_may_be_open(world: World) -> None:
    with pytest.raises(Invalid):
        world.breaker.call(7, "http://127.1/", world.send)
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        world.breaker.call(7, URL, world.send)
    assert world.arrived == 0
