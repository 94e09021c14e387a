from __future__ import annotations

import pytest

from chalicelib.core import rate_limit
from chalicelib.core.errors import TooManyRequests
from chalicelib.core.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limit: RateLimit, app_id: int, attempts: int) -> int:
    count = 0
    for _ in range(attempts):
        try:
            limit.take(app_id)
        except TooManyRequests:
            continue
        count += 1
    return count


def test_a_full_bucket_admits_its_burst_and_then_its_rate(clock: Clock) -> None:
    limit = RateLimit(10, 5, clock)
    assert admitted(limit, 1, 20) == 5
    clock.now += 0.35
    assert admitted(limit, 1, 20) == 3
    clock.now += 3600
    assert admitted(limit, 1, 20) == 5


def test_apps_do_not_share_a_bucket(clock: Clock) -> None:
    limit = RateLimit(1, 2, clock)
    assert admitted(limit, 1, 5) == 2
    assert admitted(limit, 2, 5) == 2


@pytest.mark.parametrize(("rate", "wait"), [(50, 1), (1, 1), (0.1, 10), (0.3, 4)])
def test_a_refusal_says_after_how_many_seconds_a_token_is_there(clock: Clock, rate: float, wait: int) -> None:
    limit = RateLimit(rate, 1, clock)
    limit.take(1)
    with pytest.raises(TooManyRequests) as refused:
        limit.take(1)
    assert refused.value.retry_after == wait
    clock.now += wait
    limit.take(1)


def test_a_refused_request_costs_no_token(clock: Clock) -> None:
    limit = RateLimit(1, 1, clock)
    limit.take(1)
    for _ in range(10):
        clock.now += 0.05
        assert admitted(limit, 1, 1) == 0
    clock.now += 0.6
    assert admitted(limit, 1, 1) == 1


def test_memory_is_bounded_and_who_was_forgotten_starts_full(clock: Clock) -> None:
    limit = RateLimit(1, 1, clock)
    limit.take(0)
    for app_id in range(1, rate_limit.APPS_REMEMBERED + 1):
        limit.take(app_id)
    limit.take(0)
    assert admitted(limit, rate_limit.APPS_REMEMBERED, 1) == 0
