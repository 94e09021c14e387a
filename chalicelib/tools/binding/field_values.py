"""Values of header fields and cookies: what may stand in one line of a request, and nothing that begins another."""

from __future__ import annotations

import json
import re
from typing import Any

from chalicelib.tools.binding import media_types
from chalicelib.tools.binding.serialization import CannotSerialize, simple_text
from chalicelib.tools.openapi.operation import Parameter

# RFC 9110, 5.5: visible characters, blanks and tabs inside. A line end would begin a header of the caller's own making,
# and what is beyond Latin-1 has no octet.
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 6265, 4.1.1 cookie-octet.
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")


def parameter_header(parameter: Parameter, value: Any) -> str:
    """Return a header parameter's value. It is never percent-encoded (OpenAPI 3.1.2, 4.8.12.2.2).

    Raises
    ------
    CannotSerialize
        `argument.header_value`, `argument.nested`.
    """
    if parameter.media_type is None:
        return checked_header(simple_text(value, parameter.explode, "none"))
    if isinstance(value, str) and not media_types.is_json(parameter.media_type):
        return checked_header(value)
    return checked_header(json.dumps(value, allow_nan=False, separators=(",", ":")))  # in ASCII


def checked_header(value: str) -> str:
    """Return a value that may stand in a header as it is."""
    if not _FIELD_VALUE.fullmatch(value):
        raise CannotSerialize(
            "argument.header_value", "has control characters, outer blanks, or what is not Latin-1"
        )
    return value


def checked_cookie(value: str) -> str:
    """Return a value that may stand in a cookie as it is."""
    if not _COOKIE_VALUE.fullmatch(value):
        raise CannotSerialize(
            "argument.cookie_value", "has characters that a cookie must not have (RFC 6265)"
        )
    return value


def is_token(name: str) -> bool:
    """Return whether a text may name a header or a cookie (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(name) is not None
