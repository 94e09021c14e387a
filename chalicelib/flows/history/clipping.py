"""Texts as their columns can hold them, and in pieces that a statement can carry. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator

MEDIUM_TEXT_BYTES = 16_777_215
MAX_VALUE_BYTES = int(0.95 * MEDIUM_TEXT_BYTES)
"""Of a question, and of an answer; what is longer is cut."""
# A lone half of a surrogate pair is no character that a database could keep; a model may well answer with one.
_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def clipped(text: str) -> str:
    """Return a text as it is stored: cut behind the last character that fits `MAX_VALUE_BYTES` as UTF-8."""
    # No more characters than bytes: what is certain to go need not be looked at.
    text = _SURROGATE.sub(REPLACEMENT, text[:MAX_VALUE_BYTES])
    raw = text.encode()
    return text if len(raw) <= MAX_VALUE_BYTES else raw[:MAX_VALUE_BYTES].decode(errors="ignore")


def pieces(text: str, most: int) -> Iterator[str]:
    """Yield a text in pieces of at most `most` bytes as UTF-8, at least four; one empty piece for an empty text."""
    raw = text.encode()
    start = 0
    while len(raw) - start > most:
        end = start + most
        # A byte 10xxxxxx goes on with the character before it.
        while raw[end] & 0xC0 == 0x80:
            end -= 1
        yield raw[start:end].decode()
        start = end
    yield raw[start:].decode()
