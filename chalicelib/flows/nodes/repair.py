"""What a model said, made to fit what a node declares; what cannot be is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.core.strict_json import escape
from chalicelib.flows.dsl.values import LiteralError, convert_literal, default_of
from chalicelib.flows.nodes import json_answers


class Misfit(ValueError):
    """A value that cannot be made to fit; the message has its place and never the value."""


def repaired(value: Any, schema: Mapping[str, Any], pointer: str = "") -> Any:
    """Return the value as its declared schema wants it.

    None, and for anything but a string a blank text, is no value: the default. A text of another type's JSON becomes
    that (`"42"`, `"[1]"`), anything becomes a text by being written as JSON. Where `properties` are declared, names
    that are not among them are dropped and missing ones get their defaults. Depth is bounded by the schema's.

    Parameters
    ----------
    pointer
        Of the value in the answer, for the message.

    Raises
    ------
    Misfit
    """
    kind = schema["type"]
    if value is None or (kind != "string" and isinstance(value, str) and not value.strip()):
        return default_of(schema)
    if kind not in ("object", "array"):
        return _scalar(value, schema, pointer)
    if isinstance(value, str):
        value = _parsed(value, kind, pointer)
    if not isinstance(value, dict if kind == "object" else list):
        raise Misfit(f"is not an {kind}{_at(pointer)}")
    if isinstance(value, dict):
        return _object(value, schema, pointer)
    return _array(value, schema, pointer)


def _object(value: dict[str, Any], schema: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    properties = schema.get("properties")
    if not properties:
        return value
    return {
        name: repaired(value.get(name), declared, f"{pointer}/{escape(name)}")
        for name, declared in properties.items()
    }


def _array(value: list[Any], schema: Mapping[str, Any], pointer: str) -> list[Any]:
    items = schema.get("items")
    if items is None:
        return value
    for place, item in enumerate(value):
        if item is None:
            # A default would be an item that nobody named.
            raise Misfit(f"is null{_at(f'{pointer}/{place}')}")
    return [repaired(item, items, f"{pointer}/{place}") for place, item in enumerate(value)]


def _scalar(value: Any, schema: Mapping[str, Any], pointer: str) -> Any:
    try:
        return convert_literal(value, schema)
    except LiteralError as error:
        raise Misfit(f"{error}{_at(pointer)}") from None


def _parsed(text: str, kind: str, pointer: str) -> Any:
    try:
        return json_answers.parse(text)
    except ValueError:
        raise Misfit(f"is no JSON, so no {kind}{_at(pointer)}") from None


def _at(pointer: str) -> str:
    return f" at {pointer}" if pointer else ""
