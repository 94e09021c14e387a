"""Parameters, and the media types of bodies and answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.operation import (
    FIXED,
    FROM_MODEL,
    Content,
    Location,
    Parameter,
    PropertyEncoding,
    Schema,
    Style,
)
from chalicelib.tools.openapi.references import resolve
from chalicelib.tools.openapi.structure import members

_DEFAULT_STYLES: dict[Location, Style] = {
    "path": "simple",
    "query": "form",
    "header": "simple",
    "cookie": "form",
}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 -- RFC 9110, 5.6.2
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*(;[ -~]*)?")
_HEADER = re.compile(_TOKEN)

Convert = Callable[[Any, str], Schema]
Warn = Callable[[str, str], None]


def compile_parameter(parameter: dict[str, Any], pointer: str, convert: Convert) -> Parameter:
    """Compile a parameter whose references were followed."""
    location: Location = parameter["in"]
    return _parameter(parameter["name"], location, parameter, pointer, convert)


def fixed_parameters(query: str) -> list[Parameter]:
    """Compile the query that some documents write into a path (`/messages?beta=true`): values that nobody chooses."""
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, []).append(value)
    return [
        Parameter(
            name=name,
            location="query",
            required=True,
            schema=_constant(given[0] if len(given) == 1 else given),
            style="form",
            explode=True,
            origin=FIXED,
            displayed=False,
        )
        for name, given in values.items()
    ]


def media_types(pointer: str, content: Any, warn: Warn) -> Iterator[tuple[str, Any, str]]:
    """Yield the media types of a `content` object as name (lower case, without parameters), value and pointer.

    One that is none is left out: as a header it could end the line and begin the next.
    """
    seen: set[str] = set()
    for text, value in members(content).items():
        place = f"{pointer}/{escape(text)}"
        name = media_type(text)
        if name is None:
            warn(place, "is not a media type")
        elif name in seen:
            warn(place, "differs from another media type in its parameters only")
        else:
            seen.add(name)
            yield name, value, place


def media_type(text: str) -> str | None:
    """Return a media type (RFC 9110, 8.3.1) in lower case without its parameters, None for what is none."""
    match = _MEDIA_TYPE.fullmatch(text.strip())
    return match[1].lower() if match else None


def compile_content(
    document: dict[str, Any], name: str, value: Any, pointer: str, convert: Convert
) -> Content:
    """Compile a media type object."""
    value = members(value)
    encoding = {
        key: _encoding(document, members(one), f"{pointer}/encoding/{escape(key)}", convert)
        for key, one in members(value.get("encoding")).items()
    }
    # Without a schema anything may be sent.
    schema = convert(value["schema"], f"{pointer}/schema") if "schema" in value else True
    return Content(name, schema, encoding)


def _encoding(
    document: dict[str, Any], value: dict[str, Any], pointer: str, convert: Convert
) -> PropertyEncoding:
    styled = any(name in value for name in ("style", "explode", "allowReserved"))
    style: Style | None = value.get("style", "form") if styled else None
    content_type = value.get("contentType")
    headers = []
    for name, header in members(value.get("headers")).items():
        try:
            place, resolved = resolve(document, f"{pointer}/headers/{escape(name)}", header)
        except LookupError:
            continue
        # The content type has a field of its own (OpenAPI 3.1, 4.8.15).
        if isinstance(resolved, dict) and name.lower() != "content-type" and _HEADER.fullmatch(name):
            headers.append(_parameter(name, "header", resolved, place, convert))
    return PropertyEncoding(
        content_type=_encoding_types(content_type),
        style=style,
        explode=value.get("explode", style in (None, "form")) is True,
        allow_reserved=value.get("allowReserved") is True,
        headers=tuple(headers),
    )


def _encoding_types(text: Any) -> str | None:
    """One media type or several after commas, as written but for what could not stand in a header."""
    if not isinstance(text, str):
        return None
    good = [one.strip() for one in text.split(",") if media_type(one) is not None]
    return ", ".join(good) or None


def _parameter(
    name: str, location: Location, value: dict[str, Any], pointer: str, convert: Convert
) -> Parameter:
    schema, place, type_name = value.get("schema", True), f"{pointer}/schema", None
    for text, held in members(value.get("content")).items():  # exactly one
        type_name = media_type(text) or "text/plain"
        schema, place = members(held).get("schema", True), f"{pointer}/content/{escape(text)}/schema"
    style: Style = value.get("style", _DEFAULT_STYLES[location])
    own = members(schema)
    return Parameter(
        name=name,
        location=location,
        required=value.get("required") is True,
        schema=convert(schema, place),
        style=style,
        explode=value.get("explode", style == "form") is True,
        allow_reserved=value.get("allowReserved") is True,
        media_type=type_name,
        origin=int(value.get("x-from", own.get("x-from", FROM_MODEL))),
        displayed=value.get("x-display", own.get("x-display", True)) is not False,
        description=value["description"] if isinstance(value.get("description"), str) else "",
        deprecated=value.get("deprecated") is True,
    )


def _constant(value: str | list[str]) -> Schema:
    kind = "string" if isinstance(value, str) else "array"
    return {"type": kind, "const": value, "default": value}
