"""Identifiers: time-ordered, made by any function at once, never by the database.

Keys are not AUTO_INCREMENT because MySQL has no RETURNING (one round trip a row otherwise) and because an id
that leaves the service must not tell how many rows there are.
"""

from __future__ import annotations

import secrets
import threading
import time
from datetime import datetime

# 2024-01-01T00:00:00Z in milliseconds: 42 bits of milliseconds from here last until 2163.
_EPOCH_MS = 1_704_067_200_000
_RANDOM_BITS = 21
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

ULID_PATTERN = "^[0-9A-HJKMNP-TV-Z]{26}$"

_lock = threading.Lock()
_last = 0


def new_id() -> int:
    """Return a 63-bit integer id, greater than every earlier one of this process.

    42 bits of milliseconds, then 21 random bits: two functions that make an id in the same millisecond
    collide once in two million pairs, and the primary key refuses that.
    """
    global _last
    candidate = (int(time.time() * 1000) - _EPOCH_MS) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    with _lock:
        _last = max(candidate, _last + 1)
        return _last


def id_at(moment: datetime) -> int:
    """Return the smallest id that `new_id` makes at a moment: what was made before it has a smaller one.

    Parameters
    ----------
    moment
        Aware; one before 2024 gives 0, which no id is below.

    Raises
    ------
    ValueError
        For a naive datetime: Python would take it for the machine's local time.
    """
    if moment.tzinfo is None:
        raise ValueError("a naive datetime is no moment")
    return max(0, int(moment.timestamp() * 1000) - _EPOCH_MS) << _RANDOM_BITS


def new_ulid() -> str:
    """Return a ULID: 26 Crockford characters, 48 bits of milliseconds and 80 random bits."""
    return _ulid(int(time.time() * 1000) << 80 | secrets.randbits(80))


def ulid_at(moment: datetime) -> str:
    """Return the smallest ULID of a moment: what was made before it sorts before it."""
    return _ulid(int(moment.timestamp() * 1000) << 80)


def _ulid(value: int) -> str:
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def new_suffix(length: int = 6) -> str:
    """Return `length` random base-36 characters, the tail of a plugin id."""
    return "".join(secrets.choice(_BASE36) for _ in range(length))
