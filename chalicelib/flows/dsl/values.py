"""Values and their declared types: literals, defaults, projections, and whether a value fits.

A declared schema is a small part of JSON Schema: `type`, `properties`, `items`, `required` (a list of names),
`additionalProperties: false` and `default`. Its depth is bounded by that of the flow's data.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from chalicelib.core import errors, strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import escape
from chalicelib.flows.dsl.limits import MAX_DATA_BYTES
from chalicelib.flows.dsl.paths import Path

TYPES: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}
"""The declared types, and the value of each where none is given."""

MAX_MISFITS = 100
"""Violations of one value that are reported."""


class Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""What a path that does not resolve gives; None is a value."""


class LiteralError(ValueError):
    """Content that cannot become a value of its declared type; the message does not repeat it."""


def convert_literal(content: Any, schema: Mapping[str, Any]) -> Any:
    """The value of a literal, by the rules of JSON.

    For a `string`, a text as it is and anything else as compact JSON. For any other type, a value of that type, or a
    text that is JSON of that type: `"42"`, `"[1, 2]"`, `"true"`. None is no value: the default. Nothing is
    evaluated.

    Raises
    ------
    LiteralError
        It is not of the type, or of its `properties` and `items`.
    """
    if content is None:
        return default_of(schema)
    kind = schema["type"]
    if kind == "string":
        return content if isinstance(content, str) else _compact(content)
    value = _parsed(content, kind) if isinstance(content, str) else content
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)  # 4e2 is an integer (JSON Schema 2020-12 §6.1.1), and Python's 400.0 is no index
    misfit = next(_misfits(value, schema, ""), None)
    if misfit is not None:
        raise LiteralError(f"{misfit.message} at {misfit.pointer}" if misfit.pointer else misfit.message)
    return value


def default_of(schema: Mapping[str, Any]) -> Any:
    """The value of what is missing: the declared `default`, else that of the type. Always a copy of its own.

    Raises
    ------
    LiteralError
        The declared default is not of its type; a checked flow has none such.
    """
    declared = schema.get("default")
    if declared is None:
        return copy.copy(TYPES[schema["type"]])
    return copy.deepcopy(convert_literal(declared, schema))


def project(value: Any, path: Path) -> Any:
    """What stands at a path of a value; `MISSING` where a step leads nowhere.

    A name on an array gives the list of what stands under it in each item, with None where an item has none, so that
    it has the length of the array.
    """
    for position, step in enumerate(path):
        if isinstance(step, str) and isinstance(value, list):
            rest = path[position:]
            return [_or_none(project(item, rest)) for item in value]
        value = descend(value, step)
        if value is MISSING:
            break
    return value


def descend(value: Any, step: str | int) -> Any:
    """What a name gives in an object, or an index in an array; `MISSING` otherwise."""
    if isinstance(step, str):
        return value.get(step, MISSING) if isinstance(value, Mapping) else MISSING
    return value[step] if isinstance(value, list) and step < len(value) else MISSING


def conforms(value: Any, schema: Mapping[str, Any]) -> list[Violation]:
    """What of a value is not as declared; nothing is ever converted.

    Returns
    -------
    list
        At most 100, rules `schema.type`, `schema.required`, `schema.additionalProperties`, with pointers into the
        value and messages that do not repeat it.
    """
    return list(islice(_misfits(value, schema, ""), MAX_MISFITS))


def _or_none(value: Any) -> Any:
    return None if value is MISSING else value


def _parsed(text: str, kind: str) -> Any:
    try:
        raw = text.encode("utf-8")
        return strict_json.parse(raw, max_bytes=MAX_DATA_BYTES)
    except (errors.Invalid, UnicodeEncodeError):
        raise LiteralError(f"is no JSON, so no {kind}") from None


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a value is of a declared type, as JSON Schema has it: 3.0 is an integer, true is no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    python: dict[str, Any] = {"string": str, "number": int | float, "object": dict, "array": list}
    return kind in python and isinstance(value, python[kind])


def _misfits(value: Any, schema: Mapping[str, Any], pointer: str) -> Iterator[Violation]:
    kind = schema["type"]
    if not is_of_type(value, kind):
        article = "an" if kind[0] in "aio" else "a"
        yield Violation(pointer, "schema.type", f"is not {article} {kind}")
    elif kind == "object":
        yield from _object_misfits(value, schema, pointer)
    elif kind == "array" and "items" in schema:
        for index, item in enumerate(value):
            yield from _misfits(item, schema["items"], f"{pointer}/{index}")


def _object_misfits(value: dict[str, Any], schema: Mapping[str, Any], pointer: str) -> Iterator[Violation]:
    properties = schema.get("properties", {})
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            yield Violation(f"{pointer}/{escape(name)}", "schema.required", "is required")
    for name, item in value.items():
        place = f"{pointer}/{escape(name)}"
        if name in properties:
            yield from _misfits(item, properties[name], place)
        elif schema.get("additionalProperties") is False:
            yield Violation(place, "schema.additionalProperties", "is not a known name")
