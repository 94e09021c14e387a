"""Sixteen threads at once: as many as the nodes of a flow may run in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
THREADS = 16


def at_once(work: Callable[[int], T], threads: int = THREADS) -> list[T]:
    """Return what `work(0)`, `work(1)`, … give when all of them begin at the same moment; raises what one raises.

    The interpreter changes threads as often as it can meanwhile.
    """
    gate = threading.Barrier(threads)

    def begin(number: int) -> T:
        gate.wait(10)
        return work(number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(begin, range(threads)))
    finally:
        sys.setswitchinterval(before)
