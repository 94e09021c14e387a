"""A figure: what was measured, what it was measured against, and the budget that it must keep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Parameters
    ----------
    name, area
        What was measured, and which module measured it.
    value, unit
        The measurement.
    floor
        The same, in the same unit, of the least that could be done; None where there is nothing to compare with.
    ratio
        value / floor, the median of the rounds; None where the budget bounds the value itself.
    budget
        The most that the ratio (the value, without a ratio) may be; None for information only.
    ok
        Whether the budget is kept; True without one.
    exact
        A count, which no noise of the machine excuses: missing its budget fails the run.
    """

    name: str
    area: str
    value: float
    unit: str
    floor: float | None
    ratio: float | None
    budget: float | None
    ok: bool
    exact: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what is written to the report's file."""
        members = asdict(self)
        del members["exact"]
        return members


def compared(
    name: str,
    area: str,
    values: Sequence[float],
    floors: Sequence[float],
    unit: str,
    budget: float | None,
    *,
    scale: float = 1.0,
) -> Figure:
    """Return how much more the one takes than the other, round by round.

    The ratio is the median of the rounds' ratios, not the ratio of the medians: the two readings of a round were
    taken one after the other, so whatever slowed the machine down slowed both.

    Parameters
    ----------
    scale
        What turns a measurement into `unit`.
    """
    value, floor = median(values) * scale, median(floors) * scale
    ratio = median(one / other for one, other in zip(values, floors, strict=True))
    return Figure(
        name,
        area,
        _short(value),
        unit,
        _short(floor),
        _short(ratio),
        budget,
        budget is None or ratio <= budget,
    )


def added(
    name: str,
    area: str,
    values: Sequence[float],
    floors: Sequence[float],
    unit: str,
    budget: float,
    *,
    scale: float = 1.0,
) -> Figure:
    """Return what `values` cost above `floors`: the budget bounds the difference of the medians."""
    floor = median(floors) * scale
    value = median(values) * scale - floor
    return Figure(name, area, _short(value), unit, _short(floor), None, budget, value <= budget)


def plain(name: str, area: str, value: float, unit: str, budget: float | None = None) -> Figure:
    """Return a measurement with nothing beside it."""
    return Figure(name, area, _short(value), unit, None, None, budget, budget is None or value <= budget)


def counted(name: str, area: str, count: int, unit: str, budget: int) -> Figure:
    """Return a count, whose budget is a promise and not a matter of speed."""
    return Figure(name, area, count, unit, None, None, budget, count <= budget, exact=True)


def exit_status(figures: Iterable[Figure]) -> int:
    """Return 1 where a count misses its budget; a slow machine alone fails nothing."""
    return int(any(figure.exact and not figure.ok for figure in figures))


def report(figures: Iterable[Figure]) -> str:
    """Return the figures as the JSON that `.local/bench.json` holds."""
    return json.dumps([figure.as_dict() for figure in figures], indent=2, ensure_ascii=False) + "\n"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures for people."""
    rows = [("", "what", "value", "floor", "ratio", "budget")]
    for figure in figures:
        mark = "" if figure.budget is None else "ok" if figure.ok else "MISSED"
        budget = (
            "" if figure.budget is None else f"<= {figure.budget:g}{' x' if figure.ratio is not None else ''}"
        )
        rows.append(
            (
                mark,
                f"{figure.area}: {figure.name}",
                f"{figure.value:g} {figure.unit}",
                "" if figure.floor is None else f"{figure.floor:g}",
                "" if figure.ratio is None else f"{figure.ratio:.2f} x",
                budget,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _short(value: float) -> float:
    """Four significant digits: more would only claim a precision that was not measured."""
    return float(f"{value:.4g}")
