"""How octets stand in JSON arguments and answers.

A binary value is an object `{"base64": "…", "filename"?: "…", "contentType"?: "…"}` (RFC 4648, 4, with padding), or a
plain string, which means its UTF-8 octets. The object is understood where the body is neither JSON nor described by a
schema that takes objects: as a whole body, and as a member, or an item of a member, of a form or multipart body.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from chalicelib.core.strict_json import escape
from chalicelib.tools.binding.findings import Findings
from chalicelib.tools.binding.serialization import CannotSerialize
from chalicelib.tools.binding.shapes import Shape

_MEMBERS = frozenset({"base64", "contentType", "filename"})
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "base64": {"type": "string", "contentEncoding": "base64"},
        "filename": {"type": "string"},
        "contentType": {"type": "string"},
    },
    "required": ["base64"],
    "additionalProperties": False,
}
"""The object, for who has to write one."""


def is_binary(value: Any, shape: Shape | None) -> bool:
    """Return whether a value is the object, where the schema of its place takes no objects of its own."""
    if not isinstance(value, dict) or "base64" not in value or not value.keys() <= _MEMBERS:
        return False
    types = shape.types if shape is not None else None
    return (types is None or "object" not in types) and all(isinstance(item, str) for item in value.values())


def octets(value: Any) -> bytes:
    """Return what a string or the object stands for.

    Raises
    ------
    CannotSerialize
        `argument.base64`.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    text = value["base64"]
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # the latter: not ASCII
        raise _not_base64() from None
    if base64.b64encode(raw).decode() != text:
        # Too much padding, or bits after the end: two readers would see different octets (RFC 4648, 3.5).
        raise _not_base64()
    return raw


def _not_base64() -> CannotSerialize:
    return CannotSerialize("argument.base64", "is not base64 with padding (RFC 4648, 4)", "/base64")


def coded(value: Any, encoding: str) -> str:
    """Return octets as the text that a schema's `contentEncoding` asks for: base64, or base64url."""
    raw = octets(value)
    return (
        base64.urlsafe_b64encode(raw) if encoding.lower() == "base64url" else base64.b64encode(raw)
    ).decode()


def described(raw: bytes, media_type: str) -> dict[str, str]:
    """Return octets as they stand in an answer."""
    return {"base64": base64.b64encode(raw).decode(), "contentType": media_type}


def stand_in(value: Any, shape: Shape | None, pointer: str, found: Findings) -> Any:
    """Return what a schema that speaks of strings is to judge instead of the object: as many characters as there are
    octets (OpenAPI 3.1, 4.8.24: `maxLength` limits them), or the coded text where it says `contentEncoding`."""
    if not is_binary(value, shape):
        return value
    try:
        encoding = shape.says("contentEncoding") if shape is not None else None
        return coded(value, encoding) if isinstance(encoding, str) else octets(value).decode("latin-1")
    except CannotSerialize as error:
        found.add(pointer + error.pointer, error.rule, error.message)
        return ""


def members_stand_in(value: dict[str, Any], shape: Shape, pointer: str, found: Findings) -> dict[str, Any]:
    """Return a form or multipart body for its schema to judge."""
    result = {}
    for name, item in value.items():
        place, member = f"{pointer}/{escape(name)}", shape.member(name)
        if isinstance(item, list):
            inner = member.item(0) if member is not None else None
            result[name] = [stand_in(each, inner, f"{place}/{i}", found) for i, each in enumerate(item)]
        else:
            result[name] = stand_in(item, member, place, found)
    return result
