"""Requests per app: a token bucket in each function instance. The gateway's throttling bounds the whole."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from chalicelib.core.errors import TooManyRequests

APPS_REMEMBERED = 10_000


class RateLimit:
    """Token buckets by app.

    Parameters
    ----------
    rate_per_s
        Tokens that a bucket gains each second.
    burst
        Tokens that a full bucket holds.
    """

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def take(self, app_id: int) -> None:
        """Take one token, or refuse.

        Raises
        ------
        errors.TooManyRequests
            With the whole seconds until a token is there.
        """
        now = self._clock()
        tokens, at = self._buckets.pop(app_id, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        allowed = tokens >= 1
        self._buckets[app_id] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > APPS_REMEMBERED:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = max(1, math.ceil((1 - tokens) / self._rate))
            raise TooManyRequests("This app sends more requests than it may.", retry_after=wait)
