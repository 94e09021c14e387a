"""The text of an OpenAPI document, JSON or YAML, as one plain JSON value or every reason why it is none."""

from __future__ import annotations

import math
from typing import Any

from chalicelib.core import errors, strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import MAX_INTEGER, escape

MAX_BYTES = 5 * 1024 * 1024
"""UTF-8 of the text; also of what its aliases write out. The largest public documents have 4 MB minified."""

MAX_DEPTH = 64
"""Levels of nesting; public documents have 22. Consumers recurse by it."""

MAX_NODES = 500_000
"""Values, those that aliases repeat counted each time; the largest public documents have 260,000."""

MAX_REPORTED = 100

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
    if isinstance(source, str):
        value, found = _read(source)
    else:
        value, found = source, _check_value(source)
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
    # The parser has seen to everything else.
    return value, [too_large("", MAX_NODES + 1)] if _has_too_many(value) else []


def _has_too_many(value: Any) -> bool:
    count, pending = 1, [value]
    while pending and count <= MAX_NODES:
        item = pending.pop()
        if isinstance(item, dict | list):
            count += len(item)
            pending.extend(item.values() if isinstance(item, dict) else item)
    return count > MAX_NODES


def _read_yaml(text: str) -> tuple[Any, list[Violation]]:
    from chalicelib.tools.openapi.yaml_reader import read

    return read(text)


def _check_value(root: Any) -> list[Violation]:
    """What keeps a parsed value from being a document. Without recursion: it may be nested deeper than the stack."""
    found: list[Violation] = []
    count = size = 0
    pending: list[tuple[str, int, Any]] = [("", 1, root)]
    while pending and len(found) < MAX_REPORTED:
        pointer, depth, value = pending.pop()
        count += 1
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                found.append(
                    Violation(pointer, "document.depth", f"is nested deeper than {MAX_DEPTH} levels")
                )
                continue
            pending.extend(_children(pointer, depth, value, found))
            size += sum(len(name) for name in value if isinstance(name, str))
        else:
            found.extend(_check_scalar(pointer, value))
        if count > MAX_NODES or size > MAX_BYTES:
            return [*found, too_large("", count)]
    return found[:MAX_REPORTED]


def too_large(pointer: str, count: int) -> Violation:
    """The violation of a document that holds more than its text may."""
    if count > MAX_NODES:
        return Violation(pointer, "document.size", f"holds more than {MAX_NODES} values")
    return Violation(pointer, "document.size", f"holds more than {MAX_BYTES} characters, written out")


def _children(
    pointer: str, depth: int, value: dict[Any, Any] | list[Any], found: list[Violation]
) -> list[tuple[str, int, Any]]:
    if isinstance(value, list):
        return [(f"{pointer}/{index}", depth + 1, item) for index, item in enumerate(value)]
    for name in value:
        if not isinstance(name, str) and len(found) < MAX_REPORTED:
            found.append(Violation(pointer, "document.key", "has a member whose name is no text"))
    return [(f"{pointer}/{escape(name)}", depth + 1, item) for name, item in value.items()]


def _check_scalar(pointer: str, value: Any) -> list[Violation]:
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, int):
        good = abs(value) <= MAX_INTEGER
        return [] if good else [Violation(pointer, "document.number", "is an integer beyond 64 bits")]
    if isinstance(value, float):
        good = math.isfinite(value)
        return [] if good else [Violation(pointer, "document.number", "is not a finite number")]
    return [Violation(pointer, "document.value", f"is a {type(value).__name__}, which JSON cannot hold")]
