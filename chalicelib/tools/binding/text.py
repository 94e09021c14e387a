"""How a single value becomes text, and text a part of a URL. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote

# RFC 3986, 2.2 without those that would change what the query means: `#` ends it, `&` begins another parameter, `+`
# is read as a blank, and `[` and `]` are not allowed there (OpenAPI 3.1, appendix E).
_RESERVED_KEPT = "/?:@!$'()*,;="
_TRIPLE = re.compile(r"(%[0-9A-Fa-f]{2})")
# RFC 3986, 3.3 pchar, the slash, and escapes that the document's author has written.
_PATH_LITERAL = "/:@!$&'()*+,;=~%"
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# As it is, as any server decodes it, and twice more for those that decode again.
_DOT_SEGMENT_READINGS = 4


def scalar_text(value: Any) -> str:
    """Return a string, number, boolean or null as text (OpenAPI 3.1, appendix B).

    Numbers are written as ECMAScript does (RFC 8785, 3.2.2.3): 1.0 is `1`, which JSON Schema calls an integer, and
    1e20 is `100000000000000000000`. null is the empty string, as in the column "undefined" of the style examples.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return number_text(value) if isinstance(value, int | float) else str(value)


def number_text(value: int | float) -> str:
    """Return the shortest text that reads back as the same number."""
    if isinstance(value, int):
        return str(value)
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    _, figures, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, figures))
    point = len(digits) + int(exponent)  # where the decimal point stands, counted from the first digit
    if len(digits) <= point <= 21:
        return sign + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def encode(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters, as UTF-8."""
    return quote(text, safe="")


def encode_reserved(text: str, delimiter: str = "") -> str:
    """Percent-encode as RFC 6570's reserved expansion does: what is reserved passes, and so do percent-encoded triples.

    Parameters
    ----------
    delimiter
        One that must not appear, because it separates this value from the next.
    """
    safe = _RESERVED_KEPT.replace(delimiter, "") if delimiter else _RESERVED_KEPT
    pieces = _TRIPLE.split(text)
    return "".join(piece if index % 2 else quote(piece, safe=safe) for index, piece in enumerate(pieces))


def form_encode(text: str) -> str:
    """Encode for `application/x-www-form-urlencoded` as the URL standard does (5.2): a blank is `+`, `*` passes, `~`
    does not."""
    return quote(text, safe="* ").replace("~", "%7E").replace(" ", "+")


def encode_path_literal(text: str) -> str:
    """Percent-encode what a path template says between its placeholders, where it is not allowed in a path."""
    return quote(_STRAY_PERCENT.sub("%25", text), safe=_PATH_LITERAL)


def climbs(segment: str) -> bool:
    """Return whether a segment of a path holds a `.` or `..` segment, for any server.

    RFC 3986 removes dot segments, the URL standard also `%2e%2e`; servers that decode `%2F` or `%5C` before they
    resolve see one in `..%2F`, those that decode twice in `%252e`, and some drop `;parameters` first (`..;`).
    """
    for _ in range(_DOT_SEGMENT_READINGS):
        if any(part.split(";")[0] in (".", "..") for part in re.split(r"[/\\]", segment)):
            return True
        decoded = unquote(segment, errors="replace")
        if decoded == segment:
            return False
        segment = decoded
    return False
