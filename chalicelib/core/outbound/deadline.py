"""The one time limit that all steps of an outbound call share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chalicelib.core.errors import UpstreamTimeout


@dataclass(frozen=True)
class Deadline:
    """When the whole must have ended, in seconds of `time.monotonic()`."""

    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that lies `seconds` ahead."""
        return cls(time.monotonic() + seconds)

    def bound(self, limit_s: float | None) -> float:
        """Return how many seconds one step may wait: `limit_s`, or what is left of the whole.

        Raises
        ------
        errors.UpstreamTimeout
            Nothing is left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The server did not answer in time.")
        return left if limit_s is None else min(left, limit_s)
