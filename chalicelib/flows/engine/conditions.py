"""Comparisons of if-else nodes and loops. One that cannot be made is false, its opposite too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.flows.dsl.params import UNARY_OPERATORS


def holds(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Return whether the comparisons of a case or of `until` hold, joined by its `logicalOperator`.

    Parameters
    ----------
    values
        Of the node's inputs, by their ids.
    """
    made = (_compared(one, values) for one in condition.get("conditions", ()))
    return any(made) if condition.get("logicalOperator", "and") == "or" else all(made)


def compare(operator: str, left: Any, right: Any = None) -> bool:
    """Return whether a comparison holds.

    Parameters
    ----------
    operator
        One of `dsl.params.OPERATORS`.
    """
    return _OPERATORS[operator](left, right)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def _compared(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    operator = condition["compareOperator"]
    left = values.get(condition["leftVarIndex"])
    if operator in UNARY_OPERATORS:
        return compare(operator, left)
    return compare(operator, left, values.get(condition.get("rightVarIndex") or ""))


def _contains(left: Any, right: Any) -> bool | None:
    if isinstance(left, str):
        return right in left if isinstance(right, str) else None
    if isinstance(left, list):
        return any(same(item, right) for item in left)
    if isinstance(left, dict):
        return right in left if isinstance(right, str) else None
    return None


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _number(value: Any) -> int | float | None:
    """A finite number, also one that is written in a text; None for anything else: Python reads `Infinity` and `NaN`
    as JSON, which they are not."""
    if isinstance(value, str) and len(value) <= 64:
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # of any length: not to be made a float, which some are too large for
    return value if isinstance(value, float) and math.isfinite(value) else None


def _texts(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: isinstance(left, str) and isinstance(right, str) and test(left, right)


def _numbers(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def made(left: Any, right: Any) -> bool:
        first, second = _number(left), _number(right)
        return first is not None and second is not None and test(first, second)

    return made


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "contains": lambda left, right: _contains(left, right) is True,
    "not_contains": lambda left, right: _contains(left, right) is False,
    "empty": lambda left, _: _is_empty(left),
    "not_empty": lambda left, _: not _is_empty(left),
    "is": same,
    "is_not": lambda left, right: not same(left, right),
    "start_with": _texts(str.startswith),
    "end_with": _texts(str.endswith),
    "eq": _numbers(lambda left, right: left == right),
    "ne": _numbers(lambda left, right: left != right),
    "gt": _numbers(lambda left, right: left > right),
    "ge": _numbers(lambda left, right: left >= right),
    "lt": _numbers(lambda left, right: left < right),
    "le": _numbers(lambda left, right: left <= right),
    "null": lambda left, _: left is None,
    "not_null": lambda left, _: left is not None,
}
