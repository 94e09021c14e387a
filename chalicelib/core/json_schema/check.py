"""Whether a stranger's JSON Schema may be stored: valid, closed in itself, and of bounded cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from chalicelib.core import errors, strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.json_schema.patterns import compile_pattern
from chalicelib.core.strict_json import escape

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 128 * 1024
MAX_DEPTH = 32
"""Levels of JSON; each costs the validator several stack frames per level of the value."""
MAX_SCHEMAS = 2_000
"""Subschemas."""
MAX_IN_PLACE = 1_000
"""Subschemas that one value meets without descending into it: `allOf` of `$ref`s doubles with every level."""
MAX_OBJECTS = 2 * MAX_SCHEMAS
"""Objects and booleans, counted before the metaschema is asked, which takes about 0.3 ms for each subschema."""
MAX_PATTERN_NODES = 5_000
"""Nodes of all patterns together: building one takes about 4 µs."""
MAX_REFUSED_PATTERNS = 20
"""Told of at once: finding out that one is too large takes up to 20 ms."""
MAX_REPORTED = 100

_ONE = (
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "dependentSchemas", "dependencies", "patternProperties", "properties")
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
_REFUSED = {
    "$anchor": "name a subschema by its place (#/$defs/…)",
    "$dynamicAnchor": "dynamic references are not supported",
    "$dynamicRef": "dynamic references are not supported",
    "$recursiveRef": "it is of an older draft",
    "$vocabulary": "other vocabularies are not supported",
}

Schema = dict[str, Any] | bool


def check_schema(schema: Any, pointer: str = "") -> list[Violation]:
    """Everything that keeps `schema` from being stored and later used on values of strangers.

    It must be Draft 2020-12, refer only to subschemas of its own (`#`, `#/…`), use patterns that
    `core.patterns` matches in linear time, and have no loop that a value would never leave.

    Parameters
    ----------
    schema
        As parsed by `strict_json`.
    pointer
        RFC 6901 pointer of the schema in its document; prefixed to those of the violations.

    Returns
    -------
    list
        At most 100, with rules `schema.<rule>`; empty for a good schema.
    """
    if not isinstance(schema, dict | bool):
        return [Violation(pointer, "schema.invalid", "is neither an object nor true or false")]
    if _depth(schema) > MAX_DEPTH:
        return [Violation(pointer, "schema.too_large", f"is nested deeper than {MAX_DEPTH} levels")]
    if count_objects(schema) > MAX_OBJECTS:
        return [Violation(pointer, "schema.too_large", f"has more than {MAX_OBJECTS} objects")]
    if len(strict_json.canonical(schema)) > MAX_BYTES:
        return [Violation(pointer, "schema.too_large", f"is larger than {MAX_BYTES} bytes")]
    found = [
        Violation(pointer + _pointer(error.absolute_path), "schema.invalid", _brief(error))
        for error in _metaschema().iter_errors(schema)
    ]
    if found:
        # What follows relies on keywords having the types that the metaschema gives them.
        return found[:MAX_REPORTED]
    places = dict(_subschemas(schema))
    if len(places) > MAX_SCHEMAS:
        return [Violation(pointer, "schema.too_large", f"has more than {MAX_SCHEMAS} subschemas")]
    for place, subschema in places.items():
        found.extend(_check_place(subschema, pointer + place, place == "", places))
    found.extend(_check_patterns(places, pointer))
    if _uses("patternProperties", places) and _uses("unevaluatedProperties", places):
        # The validator library would match these patterns itself, with a backtracking engine.
        message = "is not supported together with patternProperties"
        found.append(Violation(pointer, "schema.unsupported", f"unevaluatedProperties {message}"))
    if not found:
        found.extend(_check_cost(places, pointer))
    return found[:MAX_REPORTED]


def count_objects(value: Any) -> int:
    """Objects and booleans in a JSON value: at least as many as it has subschemas."""
    count, pending = 0, [value]
    while pending:
        item = pending.pop()
        count += isinstance(item, dict | bool)
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return count


def _depth(value: Any) -> int:
    """Nesting without recursion: the value may come from elsewhere than `strict_json`."""
    deepest, pending = 0, [(value, 1)]
    while pending and deepest <= MAX_DEPTH:
        item, depth = pending.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict):
            pending.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            pending.extend((child, depth + 1) for child in item)
    return deepest


@functools.cache
def _metaschema() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(Draft202012Validator.META_SCHEMA)


def _brief(error: Any) -> str:
    return f"is not a Draft 2020-12 schema: {error.message}"[:300]


def _pointer(path: Any) -> str:
    return "".join(f"/{escape(step)}" for step in path)


def _subschemas(root: Schema) -> Iterator[tuple[str, Schema]]:
    """Every schema in the schema by its pointer; data (`const`, `default`, `examples`) is not looked into."""
    pending: list[tuple[str, Any]] = [("", root)]
    while pending:
        place, schema = pending.pop()
        if not isinstance(schema, dict | bool):
            continue  # `dependencies` may also hold lists of names
        yield place, schema
        if isinstance(schema, dict):
            pending.extend((child, subschema) for _, child, subschema in _children(place, schema))


def _children(place: str, schema: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Keyword, pointer and subschema of each direct child."""
    for keyword in _ONE:
        if keyword in schema:
            yield keyword, f"{place}/{keyword}", schema[keyword]
    for keyword in _MANY:
        for index, subschema in enumerate(schema.get(keyword, ())):
            yield keyword, f"{place}/{keyword}/{index}", subschema
    for keyword in _NAMED:
        for name, subschema in schema.get(keyword, {}).items():
            yield keyword, f"{place}/{keyword}/{escape(name)}", subschema


def _check_place(
    schema: Schema, pointer: str, is_root: bool, places: dict[str, Schema]
) -> Iterator[Violation]:
    if isinstance(schema, bool):
        return
    if "$schema" in schema and (not is_root or schema["$schema"].rstrip("#") != DIALECT):
        # A subschema of another draft would be judged by other rules than the ones checked here.
        yield Violation(f"{pointer}/$schema", "schema.dialect", f"is not {DIALECT} at the root of the schema")
    if "$id" in schema and not is_root:
        # It would move the base that `#/…` counts from.
        yield Violation(f"{pointer}/$id", "schema.id", "is only allowed at the root of a schema")
    for keyword, reason in _REFUSED.items():
        if keyword in schema:
            yield Violation(f"{pointer}/{keyword}", "schema.unsupported", f"is not supported: {reason}")
    if "$ref" in schema and _target(schema["$ref"]) is None:
        # Fetching a schema from a stranger's address is a request forged on the server's behalf.
        yield Violation(f"{pointer}/$ref", "schema.remote_ref", "does not refer into this schema by #/…")
    elif "$ref" in schema and _target(schema["$ref"]) not in places:
        yield Violation(f"{pointer}/$ref", "schema.dangling_ref", "refers to no subschema of this schema")


def _check_patterns(places: dict[str, Schema], pointer: str) -> Iterator[Violation]:
    size = refused = 0
    for place, pattern in _patterns(places):
        try:
            size += compile_pattern(pattern).size
        except errors.Invalid as error:
            yield Violation(pointer + place, "schema.pattern", error.errors[0].message)
            refused += 1
            if refused == MAX_REFUSED_PATTERNS:
                return
        if size > MAX_PATTERN_NODES:
            # Thousands of patterns of the largest size would keep the checker busy for a minute.
            yield Violation(pointer + place, "schema.too_large", "has patterns that are too large together")
            return


def _patterns(places: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    for place, schema in places.items():
        if isinstance(schema, dict):
            if "pattern" in schema:
                yield f"{place}/pattern", schema["pattern"]
            for name in schema.get("patternProperties", ()):
                yield f"{place}/patternProperties/{escape(name)}", name


def _uses(keyword: str, places: dict[str, Schema]) -> bool:
    return any(isinstance(schema, dict) and keyword in schema for schema in places.values())


def _target(ref: str) -> str | None:
    """The pointer that a local `$ref` names."""
    if ref != "#" and not ref.startswith("#/"):
        return None
    return unquote(ref[1:])


def _check_cost(places: dict[str, Schema], pointer: str) -> Iterator[Violation]:
    """Refuse references that a value never leaves, and those that multiply."""
    costs: dict[str, int] = {}
    for start in places:
        loop = _weigh(start, places, costs)
        if loop is not None:
            # {"$ref": "#"}: the validator would follow it until its stack is full.
            yield Violation(pointer + loop, "schema.ref_loop", "leads back to itself without descending")
            return
    heaviest = max(costs, key=lambda place: costs[place])
    if costs[heaviest] > MAX_IN_PLACE:
        message = f"applies {costs[heaviest]} subschemas to one value; {MAX_IN_PLACE} are allowed"
        yield Violation(pointer + heaviest, "schema.cost", message[:300])


def _weigh(start: str, places: dict[str, Schema], costs: dict[str, int]) -> str | None:
    """Set the in-place cost of `start` and all that it applies; return a place on a loop, if there is one.

    Depth first without recursion: a chain of `$ref`s may be as long as the schema.
    """
    pending, open_places = [start], set[str]()
    while pending:
        place = pending[-1]
        if place in costs:
            open_places.discard(place)
            pending.pop()
            continue
        following = list(_in_place(place, places[place]))
        unknown = [child for child in following if child not in costs]
        if not unknown:
            costs[place] = min(1 + sum(costs[child] for child in following), 1_000_000)
        elif place in open_places:
            return place
        else:
            open_places.add(place)
            pending.extend(unknown)
    return None


def _in_place(place: str, schema: Schema) -> Iterator[str]:
    if isinstance(schema, bool):
        return
    for keyword, child, _ in _children(place, schema):
        if keyword in _IN_PLACE:
            yield child
    if "$ref" in schema:
        yield unquote(schema["$ref"][1:])
