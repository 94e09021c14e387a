"""Rules on references and on schemas, for every object of a document wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.core import errors
from chalicelib.core.errors import Violation
from chalicelib.core.json_schema.pattern_syntax import Parser
from chalicelib.core.json_schema.patterns import MAX_LENGTH, node_count
from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.references import MAX_HOPS, at, target_of
from chalicelib.tools.openapi.structure import Kind, Place, entries, members, walk

MAX_OBJECTS = 150_000
"""Objects of a document; the largest public ones have 65,000."""
MAX_PATTERN_NODES = 50_000
"""Nodes of all patterns of a document together: building one takes about 4 µs, on every call that needs it."""

DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://spec.openapis.org/oas/3.1/dialect/base",
)
_REFERABLE = frozenset({
    "pathItem", "parameter", "requestBody", "response", "header", "example", "link", "callback", "securityScheme",
    "schema",
})  # fmt: skip
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
_ORIGINS = (0, 1, 2)


def check_references(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with the references and the schemas of a document, in time linear in it."""
    places: dict[str, Place] = {}
    for place in walk(document):
        places[place.pointer] = place
        if len(places) > MAX_OBJECTS:
            yield Violation("", "openapi.too_large", f"has more than {MAX_OBJECTS} objects")
            return
    yield from _check_dialect("/jsonSchemaDialect", document.get("jsonSchemaDialect", DIALECTS[0]))
    yield from _check_pattern_size(places)
    loops = _Loops(places)
    for pointer, kind, value in places.values():
        if not isinstance(value, dict):
            continue
        if kind in _REFERABLE and isinstance(value.get("$ref"), str):
            yield from _check_reference(document, pointer, kind, value, places)
        if kind in ("schema", "parameter"):
            yield from _check_extensions(pointer, value)
        if kind == "schema":
            if "$schema" in value:
                yield from _check_dialect(f"{pointer}/$schema", value["$schema"])
            if loops.begins_at(pointer):
                message = "applies itself to the same value, without end"
                yield Violation(pointer, "openapi.reference_loop", message)


def _check_dialect(pointer: str, dialect: Any) -> Iterator[Violation]:
    # Another draft would give the same keywords another meaning.
    if not isinstance(dialect, str) or dialect.rstrip("#") not in DIALECTS:
        yield Violation(pointer, "openapi.dialect", f"is neither {DIALECTS[0]} nor {DIALECTS[1]}")


def _check_reference(
    document: dict[str, Any], pointer: str, kind: Kind, value: dict[str, Any], places: dict[str, Place]
) -> Iterator[Violation]:
    place = f"{pointer}/$ref"
    ref, target = value["$ref"], target_of(value)
    if target is None and not ref.startswith("#"):
        # Fetching it would be a request forged on the server's behalf.
        yield Violation(place, "openapi.remote_reference", "does not refer into this document by #/…")
    elif target is None:
        yield Violation(
            place, "openapi.reference_anchor", "refers by a name; only places, #/…, are supported"
        )
    elif target not in places:
        try:
            at(document, target)
        except LookupError:
            yield Violation(place, "openapi.dangling_reference", "refers to nothing in this document")
        else:
            yield Violation(place, "openapi.reference_kind", f"refers to what is no {kind}")
    elif places[target].kind != kind:
        message = f"refers to a {places[target].kind}, where a {kind} belongs"
        yield Violation(place, "openapi.reference_kind", message)
    elif kind != "schema" and not _arrives(target, places):
        yield Violation(place, "openapi.reference_loop", f"reaches no object within {MAX_HOPS} references")


def _arrives(target: str, places: dict[str, Place]) -> bool:
    """Whether a chain of references ends. A broken one does: what breaks it is told where it is."""
    for _ in range(MAX_HOPS):
        following = target_of(places[target].value)
        if following is None or following not in places:
            return True
        target = following
    return False


def _check_extensions(pointer: str, value: dict[str, Any]) -> Iterator[Violation]:
    origin = value.get("x-from", 0)
    if isinstance(origin, bool) or not isinstance(origin, int) or origin not in _ORIGINS:
        yield Violation(
            f"{pointer}/x-from", "openapi.x_from", "is none of 0 (model), 1 (business), 2 (fixed)"
        )
    if not isinstance(value.get("x-display", True), bool):
        yield Violation(f"{pointer}/x-display", "openapi.x_display", "is neither true nor false")


def _check_pattern_size(places: dict[str, Place]) -> Iterator[Violation]:
    size = 0
    seen: set[str] = set()
    for pointer, kind, value in places.values():
        if kind != "schema" or not isinstance(value, dict):
            continue
        own = value.get("pattern")
        for pattern in [*([own] if isinstance(own, str) else ()), *members(value.get("patternProperties"))]:
            if pattern not in seen:
                seen.add(pattern)
                size += _pattern_size(pattern)
        if size > MAX_PATTERN_NODES:
            yield Violation(pointer, "openapi.too_large", "has patterns that are too large together")
            return


def _pattern_size(pattern: str) -> int:
    """What a pattern costs; one that is not supported costs only its reading, since it will be left out."""
    if len(pattern) > MAX_LENGTH:
        return 1
    try:
        return node_count(Parser(pattern).parse())
    except errors.Invalid:
        return len(pattern) // 10 + 1


class _Loops:
    """Schemas that come back to themselves without descending into the value: {"allOf": [{"$ref": <itself>}]}.

    One pass, depth first without recursion: a chain of references may be as long as the document.
    """

    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places
        self._done: set[str] = set()

    def begins_at(self, start: str) -> bool:
        """Whether a circle not told of before is met from `start`."""
        found = False
        pending: list[tuple[str, bool]] = [(start, False)]
        on_path: set[str] = set()
        while pending:
            pointer, leaving = pending.pop()
            if leaving:
                on_path.discard(pointer)
                self._done.add(pointer)
            elif pointer in on_path:
                found = True
            elif pointer not in self._done:
                on_path.add(pointer)
                pending.append((pointer, True))
                pending.extend((child, False) for child in self._applied(self._places[pointer]))
        return found

    def _applied(self, place: Place) -> Iterator[str]:
        value = place.value
        target = target_of(value)
        if target in self._places and self._places[target].kind == "schema":
            yield target
        if not isinstance(value, dict):
            return
        for name in _IN_PLACE & value.keys():
            held = value[name]
            if isinstance(held, list):
                yield from (f"{place.pointer}/{name}/{index}" for index in range(len(entries(held))))
            elif name == "dependentSchemas":
                yield from (f"{place.pointer}/{name}/{escape(key)}" for key in members(held))
            else:
                yield f"{place.pointer}/{name}"
