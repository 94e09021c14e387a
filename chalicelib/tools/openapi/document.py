"""The text of an OpenAPI document, JSON or YAML, as one plain JSON value or every reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from chalicelib.core import errors, strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import MAX_INTEGER, escape
from chalicelib.tools.openapi.limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    MAX_PATHS,
    MAX_REPORTED,
    too_large,
)

Source = dict[str, Any] | str


def parse_document(source: Source) -> dict[str, Any]:
    """The document as a value that JSON can hold: text keys, finite numbers, no dates.

    YAML is read by the core schema of YAML 1.2 (chapter 10.3), as the OpenAPI Specification asks: `on`, `yes`, `12:30`
    and `2024-01-01` are texts, and a key is the text that stands there (`200:` is "200").

    Parameters
    ----------
    source
        An object that came as JSON, or the text of one in JSON or YAML, at most `MAX_BYTES`. An object is checked and
        returned itself.

    Returns
    -------
    dict
        To be read only: what an alias repeats is one object in several places.

    Raises
    ------
    errors.Invalid
        `tool.invalid_document`, with all violations (at most 100) of the rules `document.size`, `.encoding`, `.syntax`,
        `.depth`, `.duplicate_key`, `.key`, `.number`, `.alias`, `.tag`, `.root`. Those of YAML tell line and column.
    """
    value, found = _read(source) if isinstance(source, str) else (source, [])
    found = found or _check_value(value)
    if not found and not isinstance(value, dict):
        found = [Violation("", "document.root", "is not an object")]
    if found:
        raise refusal(found)
    result: dict[str, Any] = value
    return result


def refusal(found: list[Violation]) -> errors.Invalid:
    """The error for a document with these violations."""
    return errors.Invalid(
        "The OpenAPI document is not acceptable.", code="tool.invalid_document", errors=found[:MAX_REPORTED]
    )


def _read(text: str) -> tuple[Any, list[Violation]]:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError as error:
        return None, [Violation("", "document.encoding", f"holds an unpaired surrogate at {error.start}")]
    if len(raw) > MAX_BYTES:
        message = f"has {len(raw)} bytes; at most {MAX_BYTES} are allowed"
        return None, [Violation("", "document.size", message)]
    if not text.lstrip().startswith("{"):
        return _read_yaml(text)
    value, found = _read_json(raw)
    if any(violation.rule == "document.syntax" for violation in found):
        # `{openapi: 3.1.0}` is YAML; if it is not that either, it was meant as JSON.
        value, in_yaml = _read_yaml(text)
        found = found if any(violation.rule == "document.syntax" for violation in in_yaml) else in_yaml
    return value, found


def _read_json(raw: bytes) -> tuple[Any, list[Violation]]:
    try:
        value = strict_json.parse(raw, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    except errors.Invalid as error:
        return None, [
            Violation(one.pointer, one.rule.replace("json.", "document.", 1), one.message)
            for one in error.errors
        ]
    return value, []


def _read_yaml(text: str) -> tuple[Any, list[Violation]]:
    from chalicelib.tools.openapi.yaml_reader import read

    return read(text)


class _Place(NamedTuple):
    """A value on the way through a document. Its pointer is only written out where it is told of: a name of a megabyte
    would be repeated in the pointer of everything in it."""

    value: Any
    depth: int
    length: int
    step: str | int
    parent: _Place | None

    def pointer(self) -> str:
        steps = []
        place: _Place | None = self
        while place is not None and place.parent is not None:
            steps.append(f"/{escape(place.step)}")
            place = place.parent
        return "".join(reversed(steps))


def _check_value(root: Any) -> list[Violation]:
    """What keeps a parsed value from being a document. Without recursion: it may be nested deeper than the stack."""
    found: list[Violation] = []
    count = size = lengths = 0
    pending = [_Place(root, 1, 0, "", None)]
    while pending and len(found) < MAX_REPORTED:
        place = pending.pop()
        value = place.value
        count += 1
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict | list):
            lengths += place.length
            if place.depth > MAX_DEPTH:
                message = f"is nested deeper than {MAX_DEPTH} levels"
                found.append(Violation(place.pointer(), "document.depth", message))
                continue
            size += _descend(place, pending, found)
        else:
            found.extend(_check_scalar(place))
        if count + len(pending) > MAX_NODES or size > MAX_BYTES:
            return [*found, too_large("", count + len(pending))]
        if lengths > MAX_PATHS:
            message = f"has names that take more than {MAX_PATHS} characters in the paths to what they hold"
            return [*found, Violation("", "document.size", message)]
    return found[:MAX_REPORTED]


def _descend(place: _Place, pending: list[_Place], found: list[Violation]) -> int:
    """Add what stands in an object or a list to `pending`; return the characters of its names."""
    value, depth = place.value, place.depth + 1
    if isinstance(value, list):
        # An index has up to six digits.
        pending.extend(_Place(item, depth, place.length + 7, n, place) for n, item in enumerate(value))
        return 0
    size = 0
    for name, item in value.items():
        if not isinstance(name, str):
            if len(found) < MAX_REPORTED:
                message = "has a member whose name is no text"
                found.append(Violation(place.pointer(), "document.key", message))
            continue
        size += len(name)
        pending.append(_Place(item, depth, place.length + len(name) + 1, name, place))
    return size


def _check_scalar(place: _Place) -> Iterator[Violation]:
    value = place.value
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            yield Violation(place.pointer(), "document.number", "is an integer beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield Violation(place.pointer(), "document.number", "is not a finite number")
    else:
        message = f"is of type {type(value).__name__}, which JSON does not have"
        yield Violation(place.pointer(), "document.value", message)
