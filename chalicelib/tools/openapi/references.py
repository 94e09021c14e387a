"""References within an OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from chalicelib.core.strict_json import escape

MAX_HOPS = 20
"""References that lead to a reference, one after the other. Public documents have two; a longer chain is a circle, or
made to cost."""


def target_of(value: Any) -> str | None:
    """Return the JSON pointer that `value` refers to, None where it is no reference to a place in this document.

    The fragment of a URI reference may be percent-encoded (RFC 6901, section 6).
    """
    ref = value.get("$ref") if isinstance(value, dict) else None
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        return None
    return unquote(ref[1:])


def at(document: Any, pointer: str) -> Any:
    """Return the value at an RFC 6901 pointer.

    Raises
    ------
    LookupError
        Where nothing stands there.
    """
    value = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and escape(int(name[:9])) == name:
            value = value[int(name)]
        else:
            raise LookupError(pointer)
    return value


def resolve(document: Mapping[str, Any], pointer: str, value: Any) -> tuple[str, Any]:
    """Follow the references that begin at `value` to an object, and return its pointer and the object.

    What stands beside a reference follows the version: 3.0 ignores it (4.7.23), in 3.1 `summary` and `description`
    replace those of the target (4.8.23). It is not for schemas, whose siblings apply in 3.1; nor for path items (see
    `resolve_path_item`).

    Raises
    ------
    LookupError
        For a reference out of the document, to nothing, or one that reaches no object in `MAX_HOPS` steps.
    """
    overrides: dict[str, Any] = {}
    for _ in range(MAX_HOPS + 1):
        if not (isinstance(value, dict) and "$ref" in value):
            return pointer, {**value, **overrides} if overrides and isinstance(value, dict) else value
        target = target_of(value)
        if target is None:
            raise LookupError(str(value["$ref"])[:200])
        if not str(document.get("openapi", "")).startswith("3.0"):
            overrides = {
                name: value[name] for name in ("summary", "description") if name in value
            } | overrides
        pointer, value = target, at(document, target)
    raise LookupError(pointer)


def resolve_path_item(document: Mapping[str, Any], pointer: str, value: Any) -> tuple[str, Any]:
    """Like `resolve`, for a path item: what stands beside its `$ref` is added to the target and wins.

    The specification leaves that undefined (3.0 4.7.9, 3.1 4.8.9); merging is what loses nothing. The pointer is that
    of the first item where it has members of its own.
    """
    beside: dict[str, Any] = {}
    first = pointer
    for _ in range(MAX_HOPS + 1):
        if not (isinstance(value, dict) and "$ref" in value):
            return (first, {**value, **beside}) if beside and isinstance(value, dict) else (pointer, value)
        beside = {name: item for name, item in value.items() if name != "$ref"} | beside
        target = target_of(value)
        if target is None:
            raise LookupError(str(value["$ref"])[:200])
        pointer, value = target, at(document, target)
    raise LookupError(pointer)
