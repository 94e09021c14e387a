from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.plugins.metrics import BOUNDS_MS, WINDOW_PATTERN, bucket, percentile, window_minutes


@pytest.mark.parametrize(
    ("duration_ms", "index"), [(0, 0), (1, 0), (1.001, 1), (500, 8), (25_000, 13), (30_000, 14), (9e9, 14)]
)
def test_bucket(duration_ms: float, index: int) -> None:
    assert bucket(duration_ms) == index


@pytest.mark.parametrize(
    ("histogram", "quantile", "expected"),
    [
        ({}, 0.5, None),
        ({0: 0}, 0.5, None),
        ({0: 1}, 0.5, 0.5),
        ({4: 4}, 0.5, 15.0),
        ({4: 4}, 1.0, 20.0),
        ({0: 50, 8: 50}, 0.5, 1.0),
        ({0: 90, 8: 10}, 0.95, 350.0),
        ({14: 1}, 0.95, 29_750.0),
    ],
)
def test_percentile(histogram: dict[int, int], quantile: float, expected: float | None) -> None:
    assert percentile(histogram, quantile) == expected


@given(st.lists(st.floats(0, 30_000), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(durations: list[float], quantile: float) -> None:
    histogram: dict[int, int] = {}
    for duration in durations:
        histogram[bucket(duration)] = histogram.get(bucket(duration), 0) + 1
    found = percentile(histogram, quantile)
    rank = -(-len(durations) * round(quantile * 100) // 100)
    true = sorted(durations)[max(rank - 1, 0)]
    lower = BOUNDS_MS[bucket(true) - 1] if bucket(true) else 0
    assert found is not None
    assert lower <= found <= BOUNDS_MS[bucket(true)]


@pytest.mark.parametrize(
    ("text", "minutes"), [("1m", 1), ("15m", 15), ("24h", 1440), ("7d", 10_080), ("30d", 43_200)]
)
def test_window(text: str, minutes: int) -> None:
    assert re.search(WINDOW_PATTERN, text)
    assert window_minutes(text) == minutes
