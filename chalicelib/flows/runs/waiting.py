"""Waiting for what a run will tell: bounded looks at the database, further and further apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_FIRST_S, _LONGEST_S = 0.05, 0.5


def until(look: Callable[[], T], is_enough: Callable[[T], bool], seconds: float) -> T:
    """Look until there is enough, at most for `seconds`; return what was seen last."""
    end = time.monotonic() + seconds
    for pause in _pauses():
        seen = look()
        left = end - time.monotonic()
        if is_enough(seen) or left <= 0:
            return seen
        time.sleep(min(pause, left))
    raise AssertionError("unreachable")


def _pauses() -> Iterator[float]:
    pause = _FIRST_S
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_S)
