"""Schemas of OpenAPI documents as JSON Schemas of Draft 2020-12, with references into one flat set of definitions.

3.0 has a dialect of its own (4.7.24), 3.1 is Draft 2020-12 with a few keywords more (4.8.24). Only keywords that mean
something to validation, to a form or to a model are carried over. What `core.schemas` cannot enforce is left out and
told of: a public document must not be unusable because of one pattern.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core import errors
from chalicelib.core.json_schema.patterns import compile_pattern
from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.operation import Schema
from chalicelib.tools.openapi.references import at, target_of
from chalicelib.tools.openapi.structure import SCHEMA_FIELDS, entries, members

MAX_WARNINGS = 100

_COMPONENT = re.compile(r"/components/schemas/([A-Za-z0-9._-]+)")
_ANNOTATIONS = (
    "title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples", "x-from", "x-display",
)  # fmt: skip
_COPIED = frozenset({
    *_ANNOTATIONS, "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
    "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains",
    "maxProperties", "minProperties", "required", "dependentRequired", "format", "contentEncoding", "contentMediaType",
})  # fmt: skip
# What they hold is reached by reference, and becomes a definition then.
_CONVERTED = SCHEMA_FIELDS.keys() - {"$defs", "definitions"}
_DYNAMIC = ("$dynamicRef", "$recursiveRef")
# Beside these, "or null" is an alternative to the whole and not one more type.
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else")


@dataclass(frozen=True)
class Converted:
    """A schema of Draft 2020-12, the pointers of the schemas that it refers to, and what was left out of it."""

    schema: Schema
    references: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def definition_name(pointer: str) -> str:
    """Return the name in `$defs` of the schema at `pointer`: that of the component, else one that no component can
    have."""
    component = _COMPONENT.fullmatch(pointer)
    if component:
        return component[1]
    words = re.sub(r"[^A-Za-z0-9]+", "-", pointer).strip("-")[-40:]
    return f"{words}:{hashlib.sha256(pointer.encode()).hexdigest()[:16]}"


class Converter:
    """The conversions of one document. Each schema that others refer to is converted once and shared by all operations;
    threads may share it (at worst, two make the same conversion)."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._definitions: dict[str, Converted] = {}
        self.weight = 0
        """Bytes of the converted definitions, about."""

    def convert(self, schema: Any, pointer: str) -> Converted:
        """Convert the schema at `pointer`, with all that stands in it."""
        conversion = _Conversion(self._is_30, self._has_pattern_properties)
        result = conversion.schema(schema, pointer)
        return Converted(result, tuple(conversion.references), tuple(conversion.warnings[:MAX_WARNINGS]))

    def close(self, schemas: Iterable[Converted]) -> tuple[dict[str, Schema], tuple[str, ...]]:
        """Return every definition that the schemas reach, by name, and what was left out of schemas and definitions."""
        definitions: dict[str, Schema] = {}
        warnings: list[str] = []
        pending = list(schemas)[::-1]
        seen: set[str] = set()
        while pending:
            converted = pending.pop()
            warnings.extend(converted.warnings)
            for pointer in converted.references:
                if pointer not in seen:
                    seen.add(pointer)
                    definition = self._definition(pointer)
                    definitions[definition_name(pointer)] = definition.schema
                    pending.append(definition)
        return definitions, tuple(dict.fromkeys(warnings))[:MAX_WARNINGS]

    def _definition(self, pointer: str) -> Converted:
        known = self._definitions.get(pointer)
        if known is not None:
            return known
        try:
            converted = self.convert(at(self._document, pointer), pointer)
        except LookupError:
            converted = Converted(True, warnings=(f"{pointer}: is not there, so anything is taken",))
        self.weight += weigh(converted.schema)
        return self._definitions.setdefault(pointer, converted)

    @functools.cached_property
    def _is_30(self) -> bool:
        return str(self._document.get("openapi")).startswith("3.0")

    @functools.cached_property
    def _has_pattern_properties(self) -> bool:
        pending: list[Any] = [self._document]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                if "patternProperties" in value:
                    return True
                pending.extend(value.values())
            elif isinstance(value, list):
                pending.extend(value)
        return False


def weigh(value: Any) -> int:
    """Return the bytes of memory that a JSON value takes, about: names, which parsers share, are not counted."""
    size, pending = 0, [value]
    while pending:
        item = pending.pop()
        size += sys.getsizeof(item)
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return size


@dataclass
class _Conversion:
    """One conversion. It recurses: a document has at most `document.MAX_DEPTH` levels."""

    is_30: bool
    has_pattern_properties: bool
    references: dict[str, None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, pointer: str, message: str) -> None:
        self.warnings.append(f"{pointer}: {message}"[-300:])

    def schema(self, schema: Any, pointer: str) -> Schema:
        if not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else True
        result: dict[str, Any] = {}
        if "$ref" in schema:
            self._refer(schema, pointer, result)
        if not (self.is_30 and "$ref" in schema):  # 3.0, 4.7.23: what stands beside a reference is ignored …
            self._copy(schema, pointer, result)
        # … but nobody writes `nullable` there without meaning it, nor in 3.1, which no longer has it.
        return _or_null(result) if schema.get("nullable") is True else result

    def _refer(self, schema: dict[str, Any], pointer: str, result: dict[str, Any]) -> None:
        target = target_of(schema)
        if target is None:
            self.warn(pointer, "refers out of the document, so anything is taken")
            return
        self.references[target] = None
        result["$ref"] = f"#/$defs/{definition_name(target)}"

    def _copy(self, schema: dict[str, Any], pointer: str, result: dict[str, Any]) -> None:
        for name, value in schema.items():
            if name in _COPIED:
                result[name] = value
            elif name in _CONVERTED:
                self._convert(name, value, f"{pointer}/{name}", result)
            elif name in _DYNAMIC:
                self.warn(pointer, f"{name} is not enforced: dynamic references are not supported")
        if "example" in schema and "examples" not in result:
            result["examples"] = [schema["example"]]
        self._mend(pointer, result)

    def _convert(self, name: str, value: Any, pointer: str, result: dict[str, Any]) -> None:
        how = SCHEMA_FIELDS[name][0]
        if how == "one":
            result[name] = self.schema(value, pointer)
        elif how == "list":
            result[name] = [self.schema(one, f"{pointer}/{n}") for n, one in enumerate(entries(value))]
        else:
            result[name] = {
                key: self.schema(one, f"{pointer}/{escape(key)}") for key, one in members(value).items()
            }

    def _mend(self, pointer: str, result: dict[str, Any]) -> None:
        """Make of the keywords what Draft 2020-12 and `core.schemas` take."""
        for name in ("minimum", "maximum"):
            _mend_bound(name, f"exclusive{name.capitalize()}", result)
        for name in ("allOf", "anyOf", "oneOf", "prefixItems", "enum"):
            if result.get(name) == []:
                del result[name]
                self.warn(pointer, f"{name} is not enforced: it is empty")
        if isinstance(result.get("required"), list):
            result["required"] = list(dict.fromkeys(result["required"]))
        if not isinstance(result.get("examples", []), list):
            del result["examples"]
        if "pattern" in result and not self._is_supported(result["pattern"], f"{pointer}/pattern"):
            del result["pattern"]
        if "patternProperties" in result:
            self._mend_pattern_properties(pointer, result)
        if "unevaluatedProperties" in result and self.has_pattern_properties:
            # The validator library would match those patterns itself, with a backtracking engine.
            del result["unevaluatedProperties"]
            self.warn(pointer, "unevaluatedProperties is not enforced: the document has patternProperties")

    def _mend_pattern_properties(self, pointer: str, result: dict[str, Any]) -> None:
        place = f"{pointer}/patternProperties"
        kept = {
            key: one for key, one in result["patternProperties"].items() if self._is_supported(key, place)
        }
        if len(kept) < len(result["patternProperties"]):
            # What is left over would meet the members that the missing pattern is for.
            result.pop("additionalProperties", None)
        result["patternProperties"] = kept

    def _is_supported(self, pattern: Any, pointer: str) -> bool:
        try:
            compile_pattern(pattern)
        except errors.Invalid as error:
            self.warn(pointer, f"the pattern is not enforced: it {error.errors[0].message}")
            return False
        return True


def _mend_bound(bound: str, exclusive: str, result: dict[str, Any]) -> None:
    """In 3.0 `exclusiveMinimum` is a boolean that says how `minimum` is meant."""
    if not isinstance(result.get(exclusive), bool):
        return
    applies = result.pop(exclusive)
    if applies and bound in result:
        result[exclusive] = result.pop(bound)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with null as a further value: the `enum` need not name it, and no other keyword forbids it."""
    if any(name in schema for name in _COMBINING) or ("enum" in schema or "const" in schema) > (
        "type" in schema
    ):
        outside = {name: schema[name] for name in _ANNOTATIONS if name in schema}
        inside = {name: value for name, value in schema.items() if name not in outside}
        return {**outside, "anyOf": [inside, {"type": "null"}]}
    if "type" not in schema:
        return schema  # takes null already: every other keyword is about one type of values
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    result = {**schema, "type": types if "null" in types else [*types, "null"]}
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "enum" in result and None not in result["enum"]:
        result["enum"] = [*result["enum"], None]
    return result
