"""What stands where in an OpenAPI document: every object of it with its kind and its place.

Whether `{"$ref": …}` is a reference, a property named so or an example can only be told by where it stands. This walk
knows the fields of OpenAPI 3.0 and 3.1 that hold further objects, and never looks into data (`example`, `default`,
`enum`, extensions).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from chalicelib.core.strict_json import escape

Kind = Literal[
    "document", "components", "pathItem", "operation", "parameter", "requestBody", "response", "header", "mediaType",
    "encoding", "example", "link", "callback", "securityScheme", "schema",
]  # fmt: skip

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

# How a field holds objects: itself, in a list, under names, or (`dependencies`) under names beside other things.
_ONE, _LIST, _NAMED = "one", "list", "named"
_Fields = Mapping[str, tuple[str, Kind]]

SCHEMA_FIELDS: _Fields = {
    **dict.fromkeys(
        ("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
         "unevaluatedItems", "unevaluatedProperties"), (_ONE, "schema"),
    ),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), (_LIST, "schema")),
    **dict.fromkeys(
        ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"), (_NAMED, "schema"),
    ),
}  # fmt: skip
_PARAMETER: _Fields = {
    "schema": (_ONE, "schema"),
    "content": (_NAMED, "mediaType"),
    "examples": (_NAMED, "example"),
}
_FIELDS: Mapping[Kind, _Fields] = {
    "document": {
        "paths": (_NAMED, "pathItem"),
        "webhooks": (_NAMED, "pathItem"),
        "components": (_ONE, "components"),
    },
    "components": {
        "schemas": (_NAMED, "schema"),
        "responses": (_NAMED, "response"),
        "parameters": (_NAMED, "parameter"),
        "examples": (_NAMED, "example"),
        "requestBodies": (_NAMED, "requestBody"),
        "headers": (_NAMED, "header"),
        "securitySchemes": (_NAMED, "securityScheme"),
        "links": (_NAMED, "link"),
        "callbacks": (_NAMED, "callback"),
        "pathItems": (_NAMED, "pathItem"),
    },
    "pathItem": {
        "parameters": (_LIST, "parameter"),
        **dict.fromkeys(METHODS, (_ONE, "operation")),
    },
    "operation": {
        "parameters": (_LIST, "parameter"),
        "requestBody": (_ONE, "requestBody"),
        "responses": (_NAMED, "response"),
        "callbacks": (_NAMED, "callback"),
    },
    "parameter": _PARAMETER,
    "header": _PARAMETER,
    "requestBody": {"content": (_NAMED, "mediaType")},
    "response": {
        "headers": (_NAMED, "header"),
        "content": (_NAMED, "mediaType"),
        "links": (_NAMED, "link"),
    },
    "mediaType": {
        "schema": (_ONE, "schema"),
        "examples": (_NAMED, "example"),
        "encoding": (_NAMED, "encoding"),
    },
    "encoding": {"headers": (_NAMED, "header")},
    "schema": SCHEMA_FIELDS,
    "example": {},
    "link": {},
    "securityScheme": {},
}


class Place(NamedTuple):
    """An object of a document: its JSON pointer, its kind, and itself (of whatever type a bad document has there)."""

    pointer: str
    kind: Kind
    value: Any


def walk(document: dict[str, Any]) -> Iterator[Place]:
    """Yield every object in the document, in its order, each once: the time is linear in the document.

    References are yielded, not followed: what they lead to is in the document too, or is no object of it.
    """
    pending = [Place("", "document", document)]
    while pending:
        place = pending.pop()
        yield place
        pending.extend(reversed(list(children(place))))


def children(place: Place) -> Iterator[Place]:
    """Yield the objects that stand directly in `place`."""
    pointer, kind, value = place
    if not isinstance(value, dict):
        return
    if kind == "callback":
        # A map from expressions to path items, itself without a name.
        for name, item in value.items():
            if not name.startswith(("x-", "$ref")):
                yield Place(f"{pointer}/{escape(name)}", "pathItem", item)
        return
    fields = _FIELDS[kind]
    for name, held in value.items():
        if name in fields:
            how, child = fields[name]
            yield from _held(f"{pointer}/{name}", how, child, held)


def _held(pointer: str, how: str, kind: Kind, held: Any) -> Iterator[Place]:
    if how == _ONE:
        yield Place(pointer, kind, held)
    elif how == _LIST and isinstance(held, list):
        for index, item in enumerate(held):
            yield Place(f"{pointer}/{index}", kind, item)
    elif how == _NAMED and isinstance(held, dict):
        extensible = kind in (
            "pathItem",
            "response",
        )  # `paths`, `webhooks` and `responses` may have extensions
        for name, item in held.items():
            if not (extensible and name.startswith("x-")):
                yield Place(f"{pointer}/{escape(name)}", kind, item)


def members(value: Any) -> dict[str, Any]:
    """`value` if it is an object, else none: what the metaschema refuses is not looked into again."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[Any]:
    """`value` if it is a list, else none."""
    return value if isinstance(value, list) else []
