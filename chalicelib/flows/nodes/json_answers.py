"""JSON in what a model said: alone, in a code fence, or between words. Everything here is linear in the text."""

from __future__ import annotations

import re
from typing import Any

from chalicelib.core import errors, strict_json
from chalicelib.core.llm.answer import MAX_ANSWER_BYTES

MAX_CANDIDATES = 1_000
"""Braces that are looked into, one pair after the other, for an object between words: 25 µs each."""

_FENCE = "```"
_THINK, _THOUGHT = "<think>", "</think>"
# A string swallows the braces in it. Possessive, and its closing quote optional: nothing is read twice.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}]', re.DOTALL)


def unfenced(text: str) -> str:
    """The answer proper: without thoughts before it (some models write them into it) and a code fence around it."""
    text = text.strip()
    if text.startswith(_THINK):
        text = text.partition(_THOUGHT)[2].strip() or text
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    inside = text[len(_FENCE) : -len(_FENCE)]
    language, line_feed, body = inside.partition("\n")
    if line_feed and language.strip().isalnum():
        return body.strip()
    return inside.strip().removeprefix("json").strip()


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError
        It has none, or more than one reading.
    """
    try:
        return strict_json.parse(text.encode(), max_bytes=MAX_ANSWER_BYTES)
    except (errors.Invalid, UnicodeEncodeError) as error:
        raise ValueError("is no JSON") from error


def whole_object(text: str) -> dict[str, Any] | None:
    """The object that a text is, apart from a fence; None where it is none."""
    try:
        value = parse(unfenced(text))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def first_object(text: str) -> dict[str, Any] | None:
    """The object that a text is, else the first one in it that stands in no other brackets of its kind.

    Of a text that is another JSON value, or whose object was cut off, no piece is taken for the whole: None.
    """
    text = unfenced(text)
    try:
        value = parse(text)
    except ValueError:
        return _first_within(text)
    return value if isinstance(value, dict) else None


def _first_within(text: str) -> dict[str, Any] | None:
    start = text.find("{")
    for _ in range(MAX_CANDIDATES):
        end = _closing(text, start) if start >= 0 else None
        if end is None:
            break
        try:
            value = parse(text[start:end])
        except ValueError:
            start = text.find("{", end)
        else:
            return value if isinstance(value, dict) else None
    return None


def _closing(text: str, start: int) -> int | None:
    """Where what opens at `start` has ended; None where it never does."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return None
