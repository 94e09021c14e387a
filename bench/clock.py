"""Measuring side by side: A B A B in one process, so that whatever the machine does meanwhile falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def seconds(work: Work, times: int = 1) -> float:
    """Return how long one call takes, over `times` calls in a row."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def interleaved(
    measures: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return each measure's readings, taken in turn; every other round in reverse, so that none always follows the
    same one.

    Parameters
    ----------
    measures
        By name, each returns one reading.
    warm_up
        Rounds at the beginning whose readings are dropped.
    """
    readings: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(warm_up + rounds):
        names = list(measures)
        for name in names if number % 2 == 0 else reversed(names):
            reading = measures[name]()
            if number >= warm_up:
                readings[name].append(reading)
    return readings
