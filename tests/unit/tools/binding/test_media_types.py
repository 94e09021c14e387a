from __future__ import annotations

import pytest

from chalicelib.tools.binding import media_types
from chalicelib.tools.binding.media_types import MediaType, parse_media_type
from chalicelib.tools.openapi.operation import Content


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/json", MediaType("application/json")),
        (" Text/HTML ;Charset=UTF-8", MediaType("text/html", "utf-8")),
        ('text/plain; charset="iso-8859-1"; q=1', MediaType("text/plain", "iso-8859-1")),
        ("text/plain;charset=windows-1252;", MediaType("text/plain", "cp1252")),
        ("text/plain; charset=latin1", MediaType("text/plain", "latin-1")),
        ("text/plain; charset=idna", MediaType("text/plain", None, unknown_charset=True)),
        ("text/plain; charset=unicode_escape", MediaType("text/plain", None, unknown_charset=True)),
        ("text/plain; charset=utf-7", MediaType("text/plain", None, unknown_charset=True)),
        ('multipart/form-data; boundary="a\\"b;c"', MediaType("multipart/form-data")),
        ("application/vnd.api+json; version=1", MediaType("application/vnd.api+json")),
        ("image/*", MediaType("image/*")),
    ],
)
def test_a_content_type(header: str, expected: MediaType) -> None:
    assert parse_media_type(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "json",
        "a/b/c",
        "text/plain charset=utf-8",
        "text/plain\r\nX-Evil: 1",
        "text/plain\r\n",
        "text/plain; charset=utf-8\n",
        'text/plain; a="b\r\nX: y"',
        'text/plain; a="b',
        "text/plain; a=b c",
        "téxt/plain",
        "text/plain;" + " ;" * 100_000,
    ],
    ids=lambda header: header[:20],
)
def test_no_content_type(header: str) -> None:
    assert parse_media_type(header) is None


def contents(*names: str) -> list[Content]:
    return [Content(name, True) for name in names]


@pytest.mark.parametrize(
    ("offered", "essence", "expected"),
    [
        (["application/json"], "application/json", "application/json"),
        (["*/*", "text/*", "text/plain"], "text/plain", "text/plain"),
        (["*/*", "text/*", "text/plain"], "text/html", "text/*"),
        (["*/*", "text/*"], "image/png", "*/*"),
        (["text/*"], "image/png", None),
        (["application/json"], "application/problem+json", None),
    ],
)
def test_the_most_specific_content_counts(offered: list[str], essence: str, expected: str | None) -> None:
    found = media_types.matching(contents(*offered), essence)
    assert (found.media_type if found else None) == expected


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (["text/plain", "application/json"], "application/json"),
        (["text/plain", "application/merge-patch+json"], "application/merge-patch+json"),
        (["*/*", "application/xml", "text/plain"], "application/xml"),
        (["image/*", "*/*"], None),
        ([], None),
    ],
)
def test_the_content_that_is_sent_where_none_is_named(offered: list[str], expected: str | None) -> None:
    found = media_types.preferred(contents(*offered))
    assert (found.media_type if found else None) == expected
