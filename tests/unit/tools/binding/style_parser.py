"""A reader of each style, written from the specification's side of the server: it splits first, decodes after."""

from __future__ import annotations

from typing import Literal
from urllib.parse import unquote

Kind = Literal["scalar", "array", "object"]


def _in_twos(pieces: list[str]) -> dict[str, str]:
    return {unquote(name): unquote(value) for name, value in zip(pieces[::2], pieces[1::2], strict=True)}


def _equations(pieces: list[str]) -> dict[str, str]:
    split = [piece.partition("=") for piece in pieces]
    return {unquote(name): unquote(value) for name, _, value in split}


def _joined(text: str, kind: Kind, explode: bool, separator: str) -> object:
    if kind == "scalar":
        return unquote(text)
    pieces = text.split(separator)
    if kind == "array":
        return [unquote(piece) for piece in pieces]
    return _equations(pieces) if explode else _in_twos(pieces)


def parse_path(name: str, text: str, style: str, explode: bool, kind: Kind) -> object:
    """What stands for one placeholder."""
    if style == "simple":
        return _joined(text, kind, explode, ",")
    if style == "label":
        assert text[0] == "."
        return _joined(text[1:], kind, explode, "." if explode else ",")
    assert text[0] == ";"
    pieces = text[1:].split(";")
    if explode and kind == "array":
        assert all(unquote(piece.partition("=")[0]) == name for piece in pieces)
        return [unquote(piece.partition("=")[2]) for piece in pieces]
    if explode and kind == "object":
        return _equations(pieces)
    own, _, value = text[1:].partition("=")
    assert unquote(own) == name
    return _joined(value, kind, explode, ",")


def parse_query(name: str, query: str, style: str, explode: bool, kind: Kind) -> object:
    """A whole query string that holds one parameter."""
    pairs = [(unquote(own), value) for own, _, value in (piece.partition("=") for piece in query.split("&"))]
    if style == "deepObject" and kind != "scalar":
        return _deep(name, pairs)
    if kind == "scalar":
        return unquote(pairs[0][1])
    if explode:
        if kind == "array":
            assert all(own == name for own, _ in pairs)
            return [unquote(value) for _, value in pairs]
        return {own: unquote(value) for own, value in pairs}
    ((own, value),) = pairs
    assert own == name
    separator = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}[style]
    return _joined(value, kind, False, separator)


def _deep(name: str, pairs: list[tuple[str, str]]) -> object:
    root: dict[str, object] = {}
    for own, value in pairs:
        assert own.startswith(f"{name}[") and own.endswith("]")
        steps = own[len(name) + 1 : -1].split("][")
        place = root
        for step in steps[:-1]:
            inner = place.setdefault(step, {})
            assert isinstance(inner, dict)
            place = inner
        place[steps[-1]] = unquote(value)
    return root
