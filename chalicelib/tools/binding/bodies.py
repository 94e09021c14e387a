"""A checked body as the bytes that are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chalicelib.core.strict_json import escape
from chalicelib.tools.binding import media_types, multipart
from chalicelib.tools.binding.arguments import ResolvedBody
from chalicelib.tools.binding.binary import coded, is_binary, octets
from chalicelib.tools.binding.field_values import parameter_header
from chalicelib.tools.binding.multipart import DrawBoundary, Part
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.serialization import CannotSerialize, Pair, query_pairs
from chalicelib.tools.binding.shapes import Shape
from chalicelib.tools.binding.text import encode, form_encode, scalar_text
from chalicelib.tools.openapi.operation import PropertyEncoding

# What a browser calls a file that has no name (XMLHttpRequest, FormData): some servers take a part for a file only by
# its having one.
UNNAMED_FILE = "blob"
_OCTETS = "application/octet-stream"
_PLAIN = PropertyEncoding()
# A part's own header fields (RFC 7578, 4.8), which are said otherwise.
_PART_HEADERS = frozenset({"content-type", "content-disposition", "content-transfer-encoding"})


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))


def body_bytes(plan: CallPlan, body: ResolvedBody, draw: DrawBoundary) -> tuple[bytes, str]:
    """Return the bytes of a body and its Content-Type.

    Raises
    ------
    CannotSerialize
        Its pointer leads to the place within the body.
    """
    essence = body.media_type.split(";")[0].strip().lower()
    if media_types.is_json(essence):
        return json_text(body.value).encode("utf-8"), body.media_type
    shape = plan.certain(body.content.schema)
    if media_types.is_form(essence):
        return "&".join(_form(body, shape)).encode("ascii"), body.media_type
    if media_types.is_multipart(essence):
        content, boundary = multipart.written(_parts(plan, body, shape), draw)
        return content, f"{essence}; boundary={boundary}"
    return _opaque(body.value, shape, essence), _opaque_type(body.media_type, essence)


def _opaque(value: Any, shape: Shape, essence: str) -> bytes:
    if isinstance(value, str) or is_binary(value, shape):
        return octets(value)
    if media_types.is_text(essence) and not isinstance(value, dict | list):
        return scalar_text(value).encode("utf-8")
    raise CannotSerialize("argument.text", f"is neither a string nor a binary value, which {essence} needs")


def _opaque_type(media_type: str, essence: str) -> str:
    # RFC 9110, 8.3.2: a text's coding is guessed where it is not said. XML says its own.
    is_silent = essence.startswith("text/") and essence != "text/xml" and "charset" not in media_type.lower()
    return f"{media_type}; charset=utf-8" if is_silent else media_type


def _form(body: ResolvedBody, shape: Shape) -> Iterator[str]:
    """OpenAPI 3.1, 4.8.15.3: pairs by a style are percent-encoded, those by a content type as the URL standard says."""
    for name, value in _object(body.value).items():
        encoding = body.content.encoding.get(name, _PLAIN)
        if encoding.style is not None:
            escaping = "reserved" if encoding.allow_reserved else "unreserved"
            for key, text in _styled(name, value, encoding, shape, body.value, escaping):
                yield f"{encode(key)}={text}"
        else:
            for text in _form_texts(name, value, encoding, shape):
                yield f"{form_encode(name)}={form_encode(text)}"


def _form_texts(name: str, value: Any, encoding: PropertyEncoding, shape: Shape) -> Iterator[str]:
    member = shape.member(name)
    if media_types.is_json(_first_type(encoding)):
        yield json_text(value)
    elif isinstance(value, list):
        inner = member.item(0) if member is not None else None
        for index, item in enumerate(value):
            if item is not None:
                yield _form_text(item, inner, f"/{escape(name)}/{index}")
    elif value is not None:
        yield _form_text(value, member, f"/{escape(name)}")


def _form_text(value: Any, shape: Shape | None, pointer: str) -> str:
    if is_binary(value, shape):
        # A form is text: octets need a coding, base64 if the document asks for no other.
        said = shape.says("contentEncoding") if shape is not None else None
        with _Within(pointer):
            return coded(value, said if isinstance(said, str) else "base64")
    return json_text(value) if isinstance(value, dict | list) else scalar_text(value)


def _parts(plan: CallPlan, body: ResolvedBody, shape: Shape) -> Iterator[Part]:
    for name, value in _object(body.value).items():
        encoding = body.content.encoding.get(name, _PLAIN)
        pointer, member = f"/{escape(name)}", shape.member(name)
        with _Within(pointer):
            headers = tuple(_part_headers(plan, encoding))
        if encoding.style is not None:
            # OpenAPI 3.1, 4.8.15.1.2: percent-encoding must not be applied in multipart/form-data.
            for key, text in _styled(name, value, encoding, shape, body.value, "none"):
                yield Part(key, text.encode("utf-8"), headers=headers)
        elif isinstance(value, list):
            inner = member.item(0) if member is not None else None
            for index, item in enumerate(value):
                if item is not None:
                    yield _part(name, item, inner, encoding, headers, f"{pointer}/{index}")
        elif value is not None:
            yield _part(name, value, member, encoding, headers, pointer)


def _part(
    name: str,
    value: Any,
    shape: Shape | None,
    encoding: PropertyEncoding,
    headers: tuple[Pair, ...],
    pointer: str,
) -> Part:
    said = _first_type(encoding)
    content_encoding = shape.says("contentEncoding") if shape is not None else None
    if is_binary(value, shape):
        with _Within(pointer):
            return _file(name, value, content_encoding, encoding, headers)
    if isinstance(value, str) and isinstance(content_encoding, str):
        # The caller has encoded it already: that is what the schema describes.
        return Part(
            name, value.encode("utf-8"), said or _OCTETS, None, (*headers, _transfer(content_encoding))
        )
    if isinstance(value, str) and shape is not None and _is_file(shape):
        return Part(name, value.encode("utf-8"), said or _OCTETS, UNNAMED_FILE, headers)
    if isinstance(value, dict | list) or media_types.is_json(said):
        return Part(name, json_text(value).encode("utf-8"), said or "application/json", None, headers)
    return Part(name, scalar_text(value).encode("utf-8"), said or None, None, headers)


def _file(
    name: str,
    value: dict[str, str],
    content_encoding: Any,
    encoding: PropertyEncoding,
    headers: tuple[Pair, ...],
) -> Part:
    content_type = value.get("contentType") or _first_type(encoding) or _OCTETS
    parsed = media_types.parse_media_type(content_type)
    if parsed is None or media_types.is_range(parsed.essence):
        raise CannotSerialize("argument.content_type", "is no media type (RFC 9110, 8.3.1)", "/contentType")
    if not _allows(encoding, parsed.essence):
        raise CannotSerialize("argument.content_type", f"is none of {encoding.content_type}", "/contentType")
    filename = value.get("filename", UNNAMED_FILE)
    if isinstance(content_encoding, str):
        content = coded(value, content_encoding).encode("ascii")
        return Part(name, content, content_type, filename, (*headers, _transfer(content_encoding)))
    return Part(name, octets(value), content_type, filename, headers)


def _is_file(shape: Shape) -> bool:
    """OpenAPI 3.1, 4.8.15.1.1: without a type it is octets; 3.0 says `format: binary`."""
    return shape.types is None or shape.says("format") == "binary"


def _transfer(content_encoding: str) -> Pair:
    """OpenAPI 3.1, 4.8.15.4: `contentEncoding` of a part is its Content-Transfer-Encoding."""
    return ("Content-Transfer-Encoding", "base64" if content_encoding.lower() == "base64" else "8bit")


def _part_headers(plan: CallPlan, encoding: PropertyEncoding) -> Iterator[Pair]:
    """Yield the headers whose values the document gives; no argument reaches a part's headers."""
    for header in encoding.headers:
        defaults = plan.certain(header.schema).defaults
        if defaults and header.name.lower() not in _PART_HEADERS:
            yield header.name, parameter_header(header, defaults[0])


def _styled(
    name: str, value: Any, encoding: PropertyEncoding, shape: Shape, body: dict[str, Any], escaping: Any
) -> list[Pair]:
    with _Within(f"/{escape(name)}"):
        pairs = query_pairs(name, value, encoding.style or "form", encoding.explode, escaping)
        for key, _ in pairs:
            # The members of an exploded object stand beside the body's own: one could speak for another.
            if key != name and (key in shape.names or key in body):
                raise CannotSerialize("argument.name_taken", "has a member named like one of the body's own")
    return pairs


def _first_type(encoding: PropertyEncoding) -> str:
    """Return the media type to use by itself, or "" where the document leaves it open."""
    said = [each.strip() for each in (encoding.content_type or "").split(",")]
    return next((each for each in said if not media_types.is_range(each)), "")


def _allows(encoding: PropertyEncoding, essence: str) -> bool:
    said = [each.split(";")[0].strip().lower() for each in (encoding.content_type or "*/*").split(",")]
    return any(each in (essence, essence.split("/")[0] + "/*", "*/*") for each in said)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CannotSerialize("argument.form", "is no object, which a form needs")
    return value


class _Within:
    """Puts a place before the pointer of what cannot be serialised there."""

    def __init__(self, pointer: str) -> None:
        self._pointer = pointer

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CannotSerialize):
            error.pointer = self._pointer + error.pointer
