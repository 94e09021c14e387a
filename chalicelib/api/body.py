"""Request bodies: JSON or multipart, bounded, and checked with every violation reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.api.request import UploadedFile
from chalicelib.core.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType, Violation
from chalicelib.core.settings import ONE_MIB

DEFAULT_LIMIT = 256 * 1024
# What fits through Lambda's 6 MB once base64 has added a third.
UPLOAD_LIMIT = 4 * ONE_MIB + 64 * 1024
MAX_PARTS = 16
MAX_FIELD_BYTES = 300 * 1024


def read(
    content_type: str | None,
    raw: bytes,
    *,
    schema: Mapping[str, Any] | None,
    optional: bool,
    unread: bool = False,
    form: Mapping[str, Any] | None,
    max_bytes: int,
) -> tuple[Any, dict[str, UploadedFile]]:
    """Return (value, files) of a request body.

    Parameters
    ----------
    schema, form
        JSON Schema of a JSON body, of a form's text fields; None where that kind is not accepted.
    optional
        An empty body counts as `{}`.
    unread
        The value is the body's bytes, neither parsed nor checked.
    max_bytes
        Limit of the whole body.

    Raises
    ------
    errors.TooLarge, errors.UnsupportedMediaType, errors.BadRequest, errors.Invalid
        413, 415, 400 for what is not JSON or no form, 422 with every violation of the schema.
    """
    if len(raw) > max_bytes:
        raise TooLarge(f"The body is larger than {max_bytes} bytes.")
    if schema is None and form is None:
        return None, {}
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data" and form is not None:
        value, files = _multipart(content_type or "", raw)
        _check(form, value)
        return value, files
    json_like = media_type == "application/json" or media_type.endswith("+json")
    if schema is None or not (json_like or (optional and not raw)):
        accepted = [*(["application/json"] if schema else []), *(["multipart/form-data"] if form else [])]
        raise UnsupportedMediaType(f"{media_type[:64]} is not accepted here: send {' or '.join(accepted)}.")
    if unread:
        return raw, {}
    if optional and not raw:
        # Allowed by the declaration: no need to import what checks schemas (126 ms).
        return {}, {}
    value = _json(raw, max_bytes)
    _check(schema, value)
    return value, {}


def _json(raw: bytes, max_bytes: int) -> Any:
    from chalicelib.core import strict_json

    try:
        return strict_json.parse(raw, max_bytes=max_bytes)
    except Invalid as error:
        # Not JSON at all is malformed (400); what a schema says against it is 422.
        raise BadRequest(
            "The body is not acceptable JSON.", code="request.json", errors=error.errors
        ) from None


def _check(schema: Mapping[str, Any], value: Any) -> None:
    from chalicelib.core.json_schema.schemas import violations

    found = violations(dict(schema), value, "")
    if found:
        raise Invalid("The body does not hold.", errors=found)


def _multipart(content_type: str, raw: bytes) -> tuple[dict[str, str], dict[str, UploadedFile]]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise BadRequest("The form has no boundary.", code="request.multipart")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(raw)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError):
        raise BadRequest("The body is not a multipart form.", code="request.multipart") from None
    if not parts.ended:
        raise BadRequest("The form is cut off.", code="request.multipart")
    return parts.result()


class _Parts:
    """Collects the parts of a form; its callbacks are what the parser calls."""

    def __init__(self) -> None:
        self.ended = False
        self._fields: dict[str, str] = {}
        self._files: dict[str, UploadedFile] = {}
        self._problems: list[Violation] = []
        self._count = 0
        self._start()

    def _start(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS + 1:
            raise BadRequest(f"More than {MAX_PARTS} parts.", code="request.multipart")
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._data = bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._start,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_end(self) -> None:
        self.ended = True

    def _on_part_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode()
        if not name or name in self._fields or name in self._files:
            self._problems.append(Violation(f"/{name[:64]}", "form.name", "a part needs a name of its own"))
        elif b"filename" in options:
            self._files[name] = UploadedFile(options[b"filename"].decode()[:255], bytes(self._data))
        elif len(self._data) > MAX_FIELD_BYTES:
            self._problems.append(
                Violation(f"/{name[:64]}", "form.size", f"more than {MAX_FIELD_BYTES} bytes")
            )
        else:
            self._fields[name] = self._data.decode()

    def result(self) -> tuple[dict[str, str], dict[str, UploadedFile]]:
        if self._problems:
            raise BadRequest("The form does not hold.", code="request.multipart", errors=self._problems)
        return self._fields, self._files
