from __future__ import annotations

import json
from typing import Any

import pytest

from bench.figure import Figure, added, compared, counted, exit_status, plain, report, table


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_readings() -> None:
    # GIVEN a machine that was ten times slower during two of three rounds
    figure = compared("a", "area", [0.2, 3.0, 2.0], [0.1, 1.0, 2.0], "ms", 2, scale=1000)
    assert figure == Figure("a", "area", 2000, "ms", 1000, 2, 2, ok=True)


@pytest.mark.parametrize(("budget", "ok"), [(2.0, True), (1.99, False), (None, True)])
def test_a_budget_bounds_the_ratio(budget: float | None, ok: bool) -> None:
    assert compared("a", "area", [2], [1], "ms", budget).ok is ok


def test_readings_without_their_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compared("a", "area", [1, 2], [1], "ms", None)


@pytest.mark.parametrize(("budget", "ok"), [(3, True), (2.9, False)])
def test_what_is_added_to_a_floor_is_bounded_itself(budget: float, ok: bool) -> None:
    figure = added("a", "area", [0.004, 0.005, 0.009], [0.001, 0.002, 0.003], "ms", budget, scale=1000)
    assert figure == Figure("a", "area", 3, "ms", 2, None, budget, ok)


@pytest.mark.parametrize(("budget", "ok"), [(250, True), (249, False), (None, True)])
def test_a_plain_value_is_bounded_itself(budget: float | None, ok: bool) -> None:
    assert plain("a", "area", 250, "ms", budget) == Figure("a", "area", 250, "ms", None, None, budget, ok)


def test_four_digits_are_kept() -> None:
    assert plain("a", "area", 12345.678, "ms").value == 12350


SLOW = compared("slow", "area", [9], [1], "ms", 2)
STALE = counted("stale", "area", 1, "answers", 0)
FRESH = counted("fresh", "area", 0, "answers", 0)


@pytest.mark.parametrize(
    ("figures", "status"),
    [([], 0), ([FRESH], 0), ([SLOW, FRESH], 0), ([STALE], 1), ([SLOW, STALE, FRESH], 1)],
)
def test_only_a_count_over_its_budget_fails_the_run(figures: list[Figure], status: int) -> None:
    assert exit_status(figures) == status


def test_the_report_holds_what_readers_rely_on() -> None:
    [slow, fresh] = json.loads(report([SLOW, FRESH]))
    expected: dict[str, Any] = {
        "name": "slow", "area": "area", "value": 9, "unit": "ms", "floor": 1, "ratio": 9, "budget": 2, "ok": False,
    }  # fmt: skip
    assert slow == expected
    assert (fresh["floor"], fresh["ratio"], fresh["budget"], fresh["ok"]) == (None, None, 0, True)


def test_the_table_says_which_budget_was_missed() -> None:
    head, slow, fresh, free = table([SLOW, FRESH, plain("free", "area", 1, "s")]).splitlines()
    assert head.split() == ["what", "value", "floor", "ratio", "budget"]
    assert slow.split() == ["MISSED", "area:", "slow", "9", "ms", "1", "9.00", "x", "<=", "2", "x"]
    assert fresh.split() == ["ok", "area:", "fresh", "0", "answers", "<=", "0"]
    assert free.split() == ["area:", "free", "1", "s"]
