"""Schemas as one side sees them: without what that side does not give, or must not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.tools.binding.shapes import Shape, Shapes, TooComplex, definition_name
from chalicelib.tools.openapi.operation import Schema

MAX_DEPTH = 100
"""Of one schema; each level takes three frames of the stack, and what a compiler lets through is far below."""

_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
    }
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
# They speak of the same value as the schema that they stand in.
_IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
# OpenAPI's own, which say nothing to who reads a JSON Schema.
_NOTES = frozenset({"discriminator", "externalDocs", "xml"})

Rule = Callable[[Shape], bool]


@dataclass(frozen=True)
class View:
    """What one side sees of the schemas of an operation.

    Parameters
    ----------
    shapes
        With branches: what may apply to a member decides about it.
    unrequired
        Members that need not be there.
    left_out
        Members that are not there at all, nor required.
    notes
        Whether extensions (`x-…`) and other notes are kept.
    """

    shapes: Shapes
    definitions: Mapping[str, Schema]
    unrequired: Rule
    left_out: Rule = lambda shape: False
    notes: bool = True

    def closed(self, schema: Schema) -> Schema:
        """Return a schema as it is seen, with the definitions that it reaches and no others."""
        seen = self.of(schema)
        if not isinstance(seen, dict):
            return seen
        definitions = self.reached((seen,))
        return {**seen, "$defs": definitions} if definitions else seen

    def of(self, schema: Schema) -> Schema:
        """Return a schema as it is seen; its references are left to `reached`."""
        return self._seen(schema, (), 0)

    def reached(self, schemas: tuple[Schema, ...]) -> dict[str, Schema]:
        """Return the definitions that these seen schemas reach, as they are seen."""
        found: dict[str, Schema] = {}
        pending = [name for schema in schemas for name in references(schema)]
        while pending:
            name = pending.pop()
            if name not in found and name in self.definitions:
                found[name] = self.of(self.definitions[name])
                pending.extend(references(found[name]))
        return {name: found[name] for name in self.definitions if name in found}

    def _seen(self, schema: Schema, around: tuple[Schema, ...], depth: int) -> Schema:
        """`around` are the schemas that this one is an `allOf` member or a branch of: they may describe a member that
        this one requires."""
        if not isinstance(schema, dict):
            return schema
        if depth > MAX_DEPTH:
            raise TooComplex
        here = (*around, schema)
        result = {}
        for keyword, argument in schema.items():
            if not self.notes and (keyword.startswith("x-") or keyword in _NOTES):
                continue
            result[keyword] = self._argument(keyword, argument, here, depth)
        if not result.get("required", True):
            del result["required"]
        return result

    def _argument(self, keyword: str, argument: Any, here: tuple[Schema, ...], depth: int) -> Any:
        inside = here if keyword in _IN_PLACE else ()
        if keyword == "required":
            shape = self.shapes.of(*here)
            return [name for name in argument if not self._may_be_absent(name, shape)]
        if keyword in _MANY:
            return [self._seen(schema, inside, depth + 1) for schema in argument]
        if keyword in _NAMED:
            return {
                name: self._seen(schema, inside, depth + 1)
                for name, schema in argument.items()
                if keyword == "dependentSchemas" or not self._is_left_out(schema)
            }
        if keyword in ("additionalProperties", "unevaluatedProperties") and self._is_left_out(argument):
            return False
        return self._seen(argument, inside, depth + 1) if keyword in _ONE else argument

    def _is_left_out(self, schema: Schema) -> bool:
        return isinstance(schema, dict) and self.left_out(self.shapes.of(schema))

    def _may_be_absent(self, name: str, shape: Shape) -> bool:
        member = shape.member(name) if name in shape.names else None
        return member is not None and (self.unrequired(member) or self.left_out(member))


def references(schema: Schema) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to; data (`default`, `const`) is not looked into."""
    yield from (definition_name(each["$ref"]) for each in subschemas(schema) if "$ref" in each)


def subschemas(schema: Schema) -> Iterator[dict[str, Any]]:
    """Yield a schema and every schema in it, references not followed, without recursion."""
    pending: list[Any] = [schema]
    while pending:
        each = pending.pop()
        if not isinstance(each, dict):
            continue
        yield each
        for keyword, argument in each.items():
            if keyword in _ONE:
                pending.append(argument)
            elif keyword in _MANY:
                pending.extend(argument)
            elif keyword in _NAMED:
                pending.extend(argument.values())
