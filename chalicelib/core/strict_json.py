"""JSON from strangers: one meaning or a refusal.

Two parsers that read the same bytes must see the same document (RFC 8259 leaves duplicate keys, NaN, lone
surrogates and huge numbers to the parser), and no document may cost more than its size: everything here is
linear in the input.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from chalicelib.core import errors
from chalicelib.core.errors import Violation

MAX_DEPTH = 64
"""Levels of nesting; far beyond what a person writes, far below what makes a recursive consumer fail."""

MAX_REPORTED = 100
"""Violations in one answer: a document of 100,000 duplicate keys must not be answered with 100,000 lines."""

MAX_NUMBER_LENGTH = 100
"""Characters of one number. `int()` is quadratic in its digits; a double needs 17."""

MAX_INTEGER = 2**64 - 1
"""Largest magnitude of an integer: what MySQL's JSON and most languages hold exactly."""

# A string swallows the brackets in it. The closing quote is optional, so an unterminated string is consumed
# once and not tried again from each quote in it (quadratic); possessive repeats cannot backtrack.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class _Duplicated(dict[str, Any]):
    """An object that named some member twice; only marks the place until the pointers are known."""

    names: list[str]


class _BadNumber:
    """A number that has no exact or no finite value; only marks the place."""

    def __init__(self, message: str) -> None:
        self.message = message


def parse(raw: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON document (RFC 8259), or every reason why it has none.

    Parameters
    ----------
    raw
        UTF-8 without a byte order mark.
    max_bytes
        Largest size, in bytes.
    max_depth
        Deepest nesting of arrays and objects, at most a few hundred (the parser recurses).

    Raises
    ------
    errors.Invalid
        `json.size`, `json.encoding`, `json.depth`, `json.syntax`, `json.duplicate_key`, `json.number`.
    """
    if len(raw) > max_bytes:
        raise _refusal([Violation("", "json.size", f"has {len(raw)} bytes; at most {max_bytes} are allowed")])
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _refusal([Violation("", "json.encoding", "starts with a byte order mark")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal([Violation("", "json.encoding", f"is not UTF-8 at byte {error.start}")]) from None
    # Depth is measured before parsing: 100,000 brackets would overflow the parser's stack.
    if _deeper_than(raw, max_depth):
        raise _refusal([Violation("", "json.depth", f"is nested deeper than {max_depth} levels")])
    value, suspicious = _load(text)
    if suspicious or re.search(rb"\\u[dD][89a-fA-F]", raw):
        found: list[Violation] = []
        _walk(value, "", found)
        if found:
            raise _refusal(found)
    return value


def canonical(value: Any) -> bytes:
    """One spelling of a value: members sorted by code point, no blanks, UTF-8.

    For digests and cache keys inside the service. It is not RFC 8785 (other number format, other sort order).

    Raises
    ------
    ValueError
        For NaN, infinities and lone surrogates, which `parse` never lets in.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def escape(name: str | int) -> str:
    """A member name or index as one token of an RFC 6901 pointer."""
    return str(name).replace("~", "~0").replace("/", "~1")


def _refusal(found: list[Violation]) -> errors.Invalid:
    return errors.Invalid("The document is not acceptable JSON.", code="json.invalid", errors=found)


def _deeper_than(raw: bytes, max_depth: int) -> bool:
    depth = 0
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def _load(text: str) -> tuple[Any, bool]:
    """The parsed value, and whether it holds markers that `_walk` must turn into violations."""
    marks: list[bool] = []

    def bad(message: str) -> _BadNumber:
        marks.append(True)
        return _BadNumber(message)

    def integer(digits: str) -> int | _BadNumber:
        if len(digits) > MAX_NUMBER_LENGTH or abs(int(digits)) > MAX_INTEGER:
            return bad("is an integer beyond 64 bits")
        return int(digits)

    def real(digits: str) -> float | _BadNumber:
        if len(digits) > MAX_NUMBER_LENGTH:
            return bad(f"is a number of more than {MAX_NUMBER_LENGTH} characters")
        number = float(digits)
        return number if math.isfinite(number) else bad("is a number beyond the range of a double")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        marks.append(True)
        marked = _Duplicated(value)
        marked.names = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        return marked

    try:
        value = json.loads(
            text,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda name: bad(f"is {name}, which is not JSON"),
            object_pairs_hook=members,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _refusal([Violation("", "json.syntax", f"{error.msg} at {where}")]) from None
    return value, bool(marks)


def _walk(value: Any, pointer: str, found: list[Violation]) -> None:
    """Collect the marked places under `value`; the depth is already bounded."""
    if len(found) >= MAX_REPORTED:
        return
    if isinstance(value, _BadNumber):
        found.append(Violation(pointer, "json.number", value.message))
    elif isinstance(value, str):
        _check_text(value, pointer, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _walk(item, f"{pointer}/{index}", found)
    elif isinstance(value, dict):
        if isinstance(value, _Duplicated):
            for name in value.names:
                found.append(Violation(f"{pointer}/{escape(name)}", "json.duplicate_key", "is given twice"))
        for name, item in value.items():
            _check_text(name, pointer, found)
            _walk(item, f"{pointer}/{escape(name)}", found)
    del found[MAX_REPORTED:]


def _check_text(text: str, pointer: str, found: list[Violation]) -> None:
    # "\ud800" alone parses, but no UTF-8 can carry it: the next writer would fail in the middle of a request.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        found.append(Violation(pointer, "json.encoding", "holds an unpaired surrogate"))
