"""What is wrong with a call, collected until there is enough to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.strict_json import MAX_DEPTH, MAX_INTEGER, MAX_REPORTED, escape


class Findings:
    """Violations in the order they are found, at most 100."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, pointer: str, rule: str, message: str) -> None:
        violation = Violation(pointer, rule, message)
        # The check of a value and the attempt to write it may find the same.
        if not self.full and violation not in self._found:
            self._found.append(violation)

    def extend(self, violations: Iterable[Violation]) -> None:
        for violation in violations:
            self.add(violation.pointer, violation.rule, violation.message)

    @property
    def full(self) -> bool:
        return len(self._found) >= MAX_REPORTED

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def as_tuple(self) -> tuple[Violation, ...]:
        return tuple(self._found)

    def refuse(self) -> None:
        """Raise `tool.invalid_arguments` with all of them, if there are any."""
        if self._found:
            raise Invalid("The arguments are refused.", code="tool.invalid_arguments", errors=self._found)


def check_json(value: Any, pointer: str, found: Findings) -> bool:
    """Return whether a value is JSON that can be written and walked through: everything after it may recurse.

    Without recursion itself, because a value of another source than `strict_json` may be nested 10,000 levels deep.
    """
    before = len(found)
    pending: list[tuple[Any, str, int]] = [(value, pointer, 0)]
    while pending and not found.full:
        item, place, depth = pending.pop()
        problem = _problem(item, depth)
        if problem:
            found.add(place, *problem)
        elif isinstance(item, dict):
            names = [name for name in item if isinstance(name, str) and _is_text(name)]
            if len(names) < len(item):
                found.add(place, "argument.encoding", "has a member whose name is no text")
            pending.extend(_suspicious(((name, item[name]) for name in names), place, depth))
        elif isinstance(item, list):
            pending.extend(_suspicious(enumerate(item), place, depth))
    return len(found) == before


def _suspicious(
    members: Iterable[tuple[str | int, Any]], place: str, depth: int
) -> Iterator[tuple[Any, str, int]]:
    """Yield the members that must be looked at; a million numbers need no million pointers."""
    for step, member in members:
        if isinstance(member, dict | list) or _problem(member, depth):
            yield member, f"{place}/{escape(step)}", depth + 1


def _problem(value: Any, depth: int) -> tuple[str, str] | None:
    """Return rule and message."""
    if isinstance(value, str):
        return None if _is_text(value) else ("argument.encoding", "holds an unpaired surrogate")
    if isinstance(value, bool | None):
        return None
    if isinstance(value, int):
        in_range = abs(value) <= MAX_INTEGER
        return None if in_range else ("argument.number", "is an integer beyond 64 bits")
    if isinstance(value, float):
        return None if math.isfinite(value) else ("argument.number", "is no finite number")
    if not isinstance(value, dict | list):
        return "argument.json", "is not JSON"
    if depth >= MAX_DEPTH:
        return "argument.depth", f"is nested deeper than {MAX_DEPTH} levels"
    return None


def _is_text(text: str) -> bool:
    # A lone surrogate has no UTF-8: the writer would fail in the middle of a request.
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
