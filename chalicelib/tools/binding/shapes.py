"""What all the schemas that apply to one value say together.

A property may be described in several places: beside `$ref`, in each member of `allOf`, in a branch of `anyOf`. A
`Shape` is that set, flattened; it leads to the shapes of its members and items. Shapes are made when a value leads to
them and are kept, so that a walk through a value is linear in it and a cycle of references is a shape met again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from chalicelib.core.errors import Invalid
from chalicelib.core.json_schema.patterns import compile_pattern
from chalicelib.tools.openapi.operation import FROM_MODEL, Schema

# Schemas visited to make the shapes of one plan. A hostile document combines sets of schemas in exponentially many
# ways; an honest one needs a few thousand.
MAX_WORK = 200_000
_REF_PREFIX = "#/$defs/"


class TooComplex(Invalid):
    """A document whose schemas combine in too many ways to be followed."""

    def __init__(self) -> None:
        super().__init__("The schemas of the operation are too complex.", code="tool.schema_too_complex")


class Shapes:
    """The shapes of one operation.

    Parameters
    ----------
    definitions
        What `$ref` means.
    branches
        False: only what certainly applies to a value (`$ref`, `allOf`). True: also what may apply (`anyOf`, `oneOf`,
        `then`, `else`, `dependentSchemas`).
    """

    def __init__(self, definitions: Mapping[str, Schema], *, branches: bool) -> None:
        self._definitions = definitions
        self._branches = branches
        self._kept: dict[tuple[int, ...], Shape] = {}
        self._work = 0

    @property
    def worn(self) -> bool:
        """Whether so much was made already that the next walk should begin with none."""
        return self._work > MAX_WORK // 2

    def of(self, *schemas: Schema) -> Shape:
        """Return the shape of a value that all of these schemas apply to.

        Raises
        ------
        TooComplex
        """
        key = tuple(sorted({id(schema) for schema in schemas if isinstance(schema, dict)}))
        if key not in self._kept:
            self._kept[key] = Shape(self, tuple(self._flattened(schemas)))
        return self._kept[key]

    def spend(self, cost: int) -> None:
        self._work += cost
        if self._work > MAX_WORK:
            raise TooComplex

    def _flattened(self, schemas: tuple[Schema, ...]) -> Iterator[dict[str, Any]]:
        pending, seen = list(reversed(schemas)), set[int]()
        while pending:
            schema = pending.pop()
            if not isinstance(schema, dict) or id(schema) in seen:
                continue
            self.spend(1)
            seen.add(id(schema))
            yield schema
            pending.extend(reversed(list(self._in_place(schema))))

    def _in_place(self, schema: dict[str, Any]) -> Iterator[Schema]:
        if "$ref" in schema:
            yield self._definitions.get(definition_name(schema["$ref"]), True)
        yield from schema.get("allOf", ())
        if self._branches:
            yield from schema.get("anyOf", ())
            yield from schema.get("oneOf", ())
            yield from (schema[keyword] for keyword in ("then", "else") if keyword in schema)
            yield from schema.get("dependentSchemas", {}).values()


class Shape:
    """See the module. Made by `Shapes` only."""

    def __init__(self, shapes: Shapes, parts: tuple[dict[str, Any], ...]) -> None:
        self._shapes = shapes
        self.parts = parts
        self.hidden = any(part.get("x-display") is False for part in parts)
        self.origin = max((_origin(part) for part in parts), default=FROM_MODEL)
        self.read_only = any(part.get("readOnly") is True for part in parts)
        self.write_only = any(part.get("writeOnly") is True for part in parts)
        self.defaults = [part["default"] for part in parts if "default" in part]
        self.required = frozenset(name for part in parts for name in part.get("required", ()))
        self.names = dict.fromkeys(name for part in parts for name in part.get("properties", ()))
        self._has_patterns = any("patternProperties" in part for part in parts)
        self._members: dict[str | None, Shape | None] = {}
        self._items: dict[int, Shape | None] = {}

    @property
    def types(self) -> tuple[str, ...] | None:
        """The types that all parts allow, in the order of the first; None where no part says."""
        allowed: tuple[str, ...] | None = None
        for part in self.parts:
            said = _types(part)
            if said is not None:
                allowed = said if allowed is None else tuple(one for one in allowed if one in said)
        return allowed

    def says(self, keyword: str) -> Any:
        """Return a keyword's argument in the first part that has it; None where none has."""
        return next((part[keyword] for part in self.parts if keyword in part), None)

    def member(self, name: str) -> Shape | None:
        """Return the shape of a member; None where nothing is said about it."""
        key = name if name in self.names else None
        if self._has_patterns and key is None:
            return self._member(name)
        if key not in self._members:
            self._members[key] = self._member(name)
        return self._members[key]

    def item(self, index: int) -> Shape | None:
        """Return the shape of an item; None where nothing is said about it."""
        longest = max((len(part.get("prefixItems", ())) for part in self.parts), default=0)
        key = min(index, longest)
        if key not in self._items:
            found = [schema for part in self.parts for schema in _item_schemas(part, key)]
            self._items[key] = self._shapes.of(*found) if found else None
        return self._items[key]

    def _member(self, name: str) -> Shape | None:
        self._shapes.spend(len(self.parts))
        found = [schema for part in self.parts for schema in self._member_schemas(part, name)]
        return self._shapes.of(*found) if found else None

    def _member_schemas(self, part: dict[str, Any], name: str) -> list[Schema]:
        named = part.get("properties", {})
        found = [named[name]] if name in named else []
        for pattern, schema in part.get("patternProperties", {}).items():
            if compile_pattern(pattern).search(name, self._shapes.spend):
                found.append(schema)
        others = (part.get("additionalProperties"), part.get("unevaluatedProperties"))
        return found or [schema for schema in others if isinstance(schema, dict)]


def definition_name(reference: str) -> str:
    """Return the NAME of `#/$defs/NAME`."""
    return unquote(reference.removeprefix(_REF_PREFIX)).replace("~1", "/").replace("~0", "~")


def _item_schemas(part: dict[str, Any], index: int) -> Iterator[Schema]:
    prefix = part.get("prefixItems", ())
    if index < len(prefix):
        yield prefix[index]
    else:
        yield from (part[name] for name in ("items", "unevaluatedItems") if isinstance(part.get(name), dict))


def _origin(part: dict[str, Any]) -> int:
    said = part.get("x-from", FROM_MODEL)
    return said if type(said) is int else FROM_MODEL


def _types(part: dict[str, Any]) -> tuple[str, ...] | None:
    said = part.get("type")
    if said is None:
        return None
    return tuple(said) if isinstance(said, list) else (said,)
