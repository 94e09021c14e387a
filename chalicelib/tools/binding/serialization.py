"""How the value of a parameter becomes text: the styles of OpenAPI 3.0.4 and 3.1.1 ("Style Values", "Style Examples").

They are RFC 6570's operators, and three of OpenAPI's own. Where the specification says "undefined", this is what is
done:

- An array or object without members is left out, and so is a null in one (RFC 6570, 2.3 and 3.2.1).
- A null by itself is written as the style table's column "undefined": like the empty string.
- A primitive under `spaceDelimited`, `pipeDelimited` or `deepObject` is written as `form`; so is an exploded array
  or object under the first two. `deepObject` ignores `explode`.
- `deepObject` writes nested objects and arrays in further brackets, `a[b][0]=c`, as most frameworks read them; the
  other styles refuse what is nested.
- A value that holds the separator is refused where the reader could not tell them apart (`spaceDelimited`,
  `pipeDelimited`, brackets in `deepObject`, dots in an exploded `label`: a dot is never percent-encoded).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from chalicelib.core.outbound.addresses import MAX_URL_LENGTH
from chalicelib.core.outbound.request import MAX_REQUEST_BYTES, MAX_REQUEST_HEADER_BYTES
from chalicelib.core.strict_json import escape
from chalicelib.tools.binding.text import encode, encode_reserved, scalar_text
from chalicelib.tools.openapi.operation import Style

Pair = tuple[str, str]
"""A name as it is, and its value as it is sent."""
Escaping = Literal["unreserved", "reserved", "none"]
"""Percent-encode all but the unreserved characters, all but the reserved ones too, or nothing at all."""

_DELIMITERS = {"spaceDelimited": " ", "pipeDelimited": "|"}


class CannotSerialize(Exception):
    """A value that a style cannot carry; `pointer` leads to it within the value."""

    def __init__(self, rule: str, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.rule, self.message, self.pointer = rule, message, pointer


def path_text(name: str, value: Any, style: Style, explode: bool) -> str:
    """Return what stands for a placeholder in a path, percent-encoded (`simple`, `label`, `matrix`).

    Raises
    ------
    CannotSerialize
        `argument.nested`, `argument.delimiter`, `argument.too_large`.
    """
    _refuse_many(value, MAX_URL_LENGTH)
    if style == "matrix":
        return _matrix(name, value, explode)
    separator = "." if style == "label" and explode and isinstance(value, dict | list) else ","
    if separator == "." and any("." in each for each in _sequence(value)):
        raise CannotSerialize("argument.delimiter", "holds '.', which separates the values")
    text = simple_text(value, explode, "unreserved", separator)
    # A list without members is undefined, and an undefined one has no dot either (RFC 6570, 3.2.5).
    return f".{text}" if style == "label" and not _is_undefined(value) else text


def simple_text(value: Any, explode: bool, escaping: Escaping, separator: str = ",") -> str:
    """Return a value in the style `simple`: a path's, or with `none` a header's, which is never percent-encoded."""
    _refuse_many(value, MAX_REQUEST_HEADER_BYTES)
    if isinstance(value, list):
        return separator.join(_escape(text, escaping) for text in _items(value))
    if isinstance(value, dict):
        between = "=" if explode else separator
        members = ((_escape(key, escaping), _escape(text, escaping)) for key, text in _members(value))
        return separator.join(key + between + text for key, text in members)
    return _escape(scalar_text(value), escaping)


def query_pairs(
    name: str, value: Any, style: Style, explode: bool, escaping: Escaping, limit: int = MAX_REQUEST_BYTES
) -> list[Pair]:
    """Return the `name=value` pairs of a query, a form or a cookie (`form`, `spaceDelimited`, `pipeDelimited`,
    `deepObject`).

    The names are as they are, the values escaped: `encode(name) + "=" + value` is one pair of a query.

    Parameters
    ----------
    limit
        Characters that all pairs may have together.

    Raises
    ------
    CannotSerialize
        `argument.nested`, `argument.delimiter`, `argument.too_large`.
    """
    _refuse_many(value, limit)
    if style == "deepObject":
        return _bounded(_deep(name, value, escaping, ""), limit)
    if not isinstance(value, dict | list):
        return [(name, _escape(scalar_text(value), escaping))]
    if explode:
        return _bounded(_exploded(name, value, escaping), limit)
    delimiter = _DELIMITERS.get(style, ",")
    texts = list(_sequence(value))
    if style in _DELIMITERS and any(delimiter in text for text in texts):
        raise CannotSerialize("argument.delimiter", f"holds {delimiter!r}, which separates the values")
    # A comma is a delimiter that a URL may show (RFC 6570, 3.2.1); the others have to be encoded like data.
    between = "," if delimiter == "," else _escape(delimiter, escaping)
    joined = between.join(_escape(text, escaping, delimiter) for text in texts)
    return [(name, joined)] if texts else []


def _matrix(name: str, value: Any, explode: bool) -> str:
    if _is_undefined(value):
        return ""
    if isinstance(value, dict | list) and explode:
        pairs = _bounded(_exploded(name, value, "unreserved"), MAX_URL_LENGTH)
    else:
        pairs = [(name, simple_text(value, explode, "unreserved"))]
    # RFC 6570, 3.2.7: the equals sign stands only before a value.
    return "".join(f";{encode(key)}={text}" if text else f";{encode(key)}" for key, text in pairs)


def _exploded(name: str, value: dict[str, Any] | list[Any], escaping: Escaping) -> Iterator[Pair]:
    if isinstance(value, dict):
        yield from ((key, _escape(text, escaping)) for key, text in _members(value))
    else:
        yield from ((name, _escape(text, escaping)) for text in _items(value))


def _deep(name: str, value: Any, escaping: Escaping, pointer: str) -> Iterator[Pair]:
    members: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        yield name, _escape(scalar_text(value), escaping)
        return
    for key, member in members:
        place = f"{pointer}/{escape(key)}"
        if "[" in str(key) or "]" in str(key):
            raise CannotSerialize("argument.delimiter", "has a bracket in its name", place)
        if member is not None:
            yield from _deep(f"{name}[{key}]", member, escaping, place)


def _bounded(pairs: Iterable[Pair], limit: int) -> list[Pair]:
    """Return the pairs, if they fit: each repeats a name, which may be as long as the value."""
    kept, size = [], 0
    for name, text in pairs:
        size += len(name) + len(text) + 2
        if size > limit:
            raise _too_large(limit)
        kept.append((name, text))
    return kept


def _refuse_many(value: Any, limit: int) -> None:
    """Refuse at once what has more members than there is room for: a million take seconds to be written."""
    if isinstance(value, dict | list) and len(value) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> CannotSerialize:
    return CannotSerialize("argument.too_large", f"takes more than {limit} characters")


def _sequence(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(value, list):
        yield from _items(value)
    else:
        for pair in _members(value):
            yield from pair


def _items(value: list[Any]) -> Iterator[str]:
    for index, item in enumerate(value):
        if item is not None:
            yield _scalar(item, str(index))


def _members(value: dict[str, Any]) -> Iterator[Pair]:
    for name, item in value.items():
        if item is not None:
            yield name, _scalar(item, name)


def _scalar(value: Any, step: str) -> str:
    if isinstance(value, dict | list):
        raise CannotSerialize(
            "argument.nested", "is nested, which its style cannot carry", f"/{escape(step)}"
        )
    return scalar_text(value)


def _is_undefined(value: Any) -> bool:
    """RFC 6570, 2.3."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and all(item is None for item in value)


def _escape(text: str, escaping: Escaping, delimiter: str = "") -> str:
    if escaping == "none":
        return text
    return encode_reserved(text, delimiter) if escaping == "reserved" else encode(text)
