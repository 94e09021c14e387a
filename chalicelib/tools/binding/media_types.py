"""Media types of bodies (RFC 9110, 8.3): which content of a document one means, and how its text is coded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.tools.openapi.operation import Content

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 — the grammar's name
# Blanks and tabs only: a line end would begin a header of the caller's own making.
_TYPE = re.compile(rf"[ \t]*+({_TOKEN}/{_TOKEN})[ \t]*+")
# Possessive: the text comes from a stranger, and nothing here may be tried twice.
_PARAMETER = re.compile(
    rf';[ \t]*+(?:({_TOKEN})=({_TOKEN}|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*+"))?[ \t]*+'
)
_MAX_LENGTH = 256
_TEXTS = frozenset({"application/xml", "application/javascript", "application/yaml", "application/x-yaml"})
_TEXTS |= {
    "application/graphql",
    "application/sql",
    "application/x-www-form-urlencoded",
    "application/x-ndjson",
}
# Python's names of what the Encoding Standard calls them, and only those: its other codecs are no charsets (`idna`
# is quadratic, `unicode_escape` and `utf-7` read markup where nobody else does).
_CHARSETS = {
    name: name for name in ("utf-8", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u", "macintosh")
}
_CHARSETS |= {f"iso-8859-{part}": f"iso-8859-{part}" for part in range(1, 17) if part != 12}
_CHARSETS |= {f"windows-{page}": f"cp{page}" for page in (874, *range(1250, 1259))}
_CHARSETS |= {
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "latin1": "latin-1",
    "macintosh": "mac-roman",
}
_CHARSETS |= {name: name for name in ("gbk", "gb2312", "gb18030", "big5", "euc-jp", "iso-2022-jp", "euc-kr")}
_CHARSETS |= {"shift_jis": "cp932", "shift-jis": "cp932"}


@dataclass(frozen=True)
class MediaType:
    """`essence` is lower case, without parameters; `charset` the Python name of the codec.

    `charset` is None where none is given, `unknown_charset` True where one is given that is not known.
    """

    essence: str
    charset: str | None = None
    unknown_charset: bool = False


def parse_media_type(text: str) -> MediaType | None:
    """Return a Content-Type as it is understood; None where it is none."""
    match = _TYPE.match(text)
    if match is None or len(text) > _MAX_LENGTH:
        return None
    essence, place = match[1].lower(), match.end()
    charset = None
    while place < len(text):
        parameter = _PARAMETER.match(text, place)
        if parameter is None:
            return None
        if (parameter[1] or "").lower() == "charset" and charset is None:
            charset = parameter[2].strip('"').lower()
        place = parameter.end()
    codec = _CHARSETS.get(charset) if charset else None
    return MediaType(essence, codec, unknown_charset=charset is not None and codec is None)


def is_range(media_type: str) -> bool:
    return "*" in media_type


def is_json(media_type: str) -> bool:
    """Return whether a media type is JSON (RFC 8259, or RFC 6839's suffix)."""
    return media_type == "application/json" or media_type.endswith("+json")


def is_text(media_type: str) -> bool:
    """Return whether a body of the type is a string, by itself; JSON is more."""
    return media_type.startswith("text/") or media_type.endswith("+xml") or media_type in _TEXTS


def is_form(media_type: str) -> bool:
    return media_type == "application/x-www-form-urlencoded"


def is_multipart(media_type: str) -> bool:
    return media_type.startswith("multipart/")


def is_structured(media_type: str) -> bool:
    """Return whether a body of the type is built from a JSON value: JSON, a form or multipart."""
    return is_json(media_type) or is_form(media_type) or is_multipart(media_type)


def matching(contents: Sequence[Content], essence: str) -> Content | None:
    """Return the most specific content that a media type falls under: itself, `type/*`, `*/*`."""
    for wanted in (essence, essence.split("/")[0] + "/*", "*/*"):
        for content in contents:
            if content.media_type == wanted:
                return content
    return None


def preferred(contents: Sequence[Content]) -> Content | None:
    """Return the content to send where the caller names none: the first JSON, else the first that is no range."""
    exact = [content for content in contents if not is_range(content.media_type)]
    return next((content for content in exact if is_json(content.media_type)), exact[0] if exact else None)
