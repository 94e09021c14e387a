"""A stranger's texts in an SVG: always well-formed, never longer or wider than there is room for."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# XML 1.0 §2.2: what a document may hold. Anything else, lone surrogates included, no reader accepts, however escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Blanks and line ends; the marks that turn the direction of what follows, which would run on into the next text; what
# XML allows and discourages (§2.2); what is not seen at all.
_BLANK = re.compile("[\\s\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc]+")
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
_READ_AHEAD = 2_000
"""Characters that are looked at of a longer text."""


def clean(text: str) -> str:
    """Return a text as one line of what XML may hold; what it may not is U+FFFD. Only its beginning, if it is long."""
    return _BLANK.sub(" ", _NO_XML.sub("\ufffd", text[:_READ_AHEAD])).strip()


def escape(text: str) -> str:
    """Return a cleaned text so that it stands for itself, between tags and in attributes."""
    return text.translate(_ESCAPED)


def cut(text: str, length: int) -> str:
    """Return a cleaned text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


@lru_cache(maxsize=4096)
def _ems(character: str) -> float:
    """About how wide a character is in a sans serif font. What is stacked onto others counts too: it has a height."""
    if unicodedata.east_asian_width(character) in "WF":
        return 1.04
    if character in "MWmw@%—…":
        return 0.9
    if character in "iljtfrI.,:;'|!()[] -":
        return 0.36
    if character.isupper():
        return 0.7
    return 0.57 if ord(character) < 0x2000 else 0.9


def width(text: str, size: float) -> int:
    """Return about how many pixels a text takes at a font size."""
    return round(sum(map(_ems, text)) * size)


def fit(text: str, size: float, most: float) -> str:
    """Return a cleaned text, cut so that it takes at most `most` pixels at a font size."""
    taken, ellipsis = 0.0, _ems("…") * size
    for number, character in enumerate(text):
        if taken + _ems(character) * size > most:
            kept = text[:number]
            while kept and taken + ellipsis > most:
                taken -= _ems(kept[-1]) * size
                kept = kept[:-1]
            return kept.rstrip() + "…"
        taken += _ems(character) * size
    return text
