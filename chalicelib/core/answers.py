"""How large an answer may be: Lambda returns at most 6 MB, in which a body is a text within JSON.

What is counted is what travels: there a quotation mark takes two bytes, and one within a text of the body four.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from chalicelib.core.settings import ONE_MIB

MAX_ANSWER_BYTES = 5 * ONE_MIB + ONE_MIB // 2
"""Of a body as it travels. What is left of the 6 MB is for headers and the envelope."""

# Lambda's runtime client escapes what is not ASCII before Python 3.12.
_ESCAPES = sys.version_info < (3, 12)
# Bytes of one character: an emoji as two escaped surrogates, and a quotation mark as two bytes is less.
_MOST_A_CHARACTER = 12


def wire_bytes(value: Any) -> int:
    """Return how many bytes a JSON value adds to what Lambda returns."""
    return text_bytes(_compact(value))


def text_bytes(body: str) -> int:
    """Return how many bytes a body adds to what Lambda returns."""
    return len(json.dumps(body, ensure_ascii=_ESCAPES).encode("utf-8", "surrogatepass"))


def fits(body: str) -> bool:
    """Whether Lambda can return a body; one that is plainly short is not looked at."""
    return len(body) * _MOST_A_CHARACTER <= MAX_ANSWER_BYTES or text_bytes(body) <= MAX_ANSWER_BYTES


def fitting(items: Sequence[Any], most: int = MAX_ANSWER_BYTES) -> int:
    """Return how many of the first items fit one answer: all, or as many as take `most` bytes, but at least one.

    Parameters
    ----------
    items
        JSON values.
    """
    if len(_compact(list(items))) * _MOST_A_CHARACTER <= most:
        return len(items)
    totals = accumulate(wire_bytes(item) for item in items)
    return min(len(items), max(1, sum(total <= most for total in totals)))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
