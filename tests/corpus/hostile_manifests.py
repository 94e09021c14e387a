"""Packages whose manifest is no JSON or breaks a rule."""

from __future__ import annotations

from tests.corpus.cases import (
    MANIFEST,
    Case,
    with_manifest,
)


def json_case(name: str, rule: str, content: bytes) -> Case:
    return Case(f"manifest: {name}", with_manifest(content), f"json.{rule}")


_TEXT = MANIFEST.data.decode()
JSON = [
    json_case("10 MB", "size", _TEXT.encode() + b" " * 10_000_000),
    json_case("100,000 deep", "depth", b'{"a":' * 30_000 + b"1"),
    json_case("100,000 arrays deep", "depth", b"[" * 100_000),
    json_case("65 deep", "depth", b"[" * 65 + b"]" * 65),
    json_case("duplicate key", "duplicate_key", _TEXT[:-1].encode() + b', "name": "other-name"}'),
    json_case(
        "duplicate key by escape", "duplicate_key", _TEXT[:-1].encode() + b', "n\\u0061me": "other-name"}'
    ),
    json_case("NaN", "number", _TEXT[:-1].encode() + b', "x": NaN}'),
    json_case("infinity", "number", _TEXT[:-1].encode() + b', "x": [-Infinity]}'),
    json_case("number beyond a double", "number", _TEXT[:-1].encode() + b', "x": 1e999}'),
    json_case(
        "integer of 200,000 digits", "number", _TEXT[:-1].encode() + b', "x": ' + b"9" * 200_000 + b"}"
    ),
    json_case("byte order mark", "encoding", b"\xef\xbb\xbf" + _TEXT.encode()),
    json_case("UTF-16", "encoding", _TEXT.encode("utf-16")),
    json_case("Latin-1", "encoding", _TEXT[:-1].encode() + b', "x": "\xe9"}'),
    json_case("overlong UTF-8", "encoding", _TEXT[:-1].encode() + b', "x": "\xc0\xaf"}'),
    json_case("lone surrogate", "encoding", _TEXT[:-1].encode() + b', "x": "\\ud800"}'),
    json_case("empty", "syntax", b""),
    json_case("trailing comma", "syntax", _TEXT[:-1].encode() + b",}"),
    json_case("comment", "syntax", b"// hi\n" + _TEXT.encode()),
    json_case("two documents", "syntax", _TEXT.encode() * 2),
    json_case("raw control character", "syntax", _TEXT[:-1].encode() + b', "x": "\x01"}'),
]
