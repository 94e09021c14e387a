"""The schema of a tool's arguments, made from a schema of params that may be anything.

MCP's arguments are always an object, and a client sends along as headers what a schema marks with `x-mcp-header`; a
plugin's params are any JSON, and its author's marks are not for us to honour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WRAPPED = "params"
"""The one argument that carries params which are no object."""

HEADER_MARK = "x-mcp-header"
_ONE = frozenset(
    {
        "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
        "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_REFERENCES = frozenset({"$ref", "$dynamicRef"})


@dataclass(frozen=True)
class Arguments:
    """How a tool takes its params.

    Parameters
    ----------
    schema
        Of the arguments, with type object at its root.
    wrapped
        The params are the argument `params`, not the arguments themselves.
    """

    schema: dict[str, Any]
    wrapped: bool

    def params(self, arguments: dict[str, Any]) -> Any:
        """Return the params in a call's arguments."""
        return arguments.get(WRAPPED) if self.wrapped else arguments


def arguments_of(schema: Any) -> Arguments:
    """Return the arguments for params of a JSON Schema; None is any object."""
    if schema is None or schema is True:
        return Arguments({"type": "object"}, wrapped=False)
    if schema is False:
        return Arguments({"type": "object", "not": {}}, wrapped=False)
    kinds = schema.get("type", "object")
    if kinds == "object" or (isinstance(kinds, list) and "object" in kinds):
        return Arguments({**cleaned(schema), "type": "object"}, wrapped=False)
    inner = _moved(schema, f"#/properties/{WRAPPED}")
    # The dialect belongs to the document's root.
    dialect = {"$schema": inner.pop("$schema")} if "$schema" in inner else {}
    wrapper = {"type": "object", "properties": {WRAPPED: inner}, "required": [WRAPPED]}
    return Arguments({**dialect, **wrapper, "additionalProperties": False}, wrapped=True)


def cleaned(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without header marks: honouring them would be ours to check, and a wrong one makes clients drop
    the tool (2026-07-28, Tools, "x-mcp-header")."""
    moved: dict[str, Any] = _moved(schema, "#")
    return moved


def _moved(schema: Any, root: str) -> Any:
    """Return a schema without marks, its references pointing below `root`. Data in it (`default`) is left alone, and
    the depth was bounded when the schema was stored."""
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == HEADER_MARK:
            continue
        if keyword in _REFERENCES and isinstance(value, str) and value.startswith("#/"):
            value = root + value[1:]
        elif keyword in _REFERENCES and value == "#":
            value = root
        elif keyword in _ONE:
            value = _moved(value, root)
        elif keyword in _MANY and isinstance(value, list):
            value = [_moved(item, root) for item in value]
        elif keyword in _NAMED and isinstance(value, dict):
            value = {name: _moved(item, root) for name, item in value.items()}
        moved[keyword] = value
    return moved
