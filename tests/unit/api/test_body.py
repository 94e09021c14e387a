from __future__ import annotations

from typing import Any

import pytest

from chalicelib.api import body
from chalicelib.api.request import UploadedFile
from chalicelib.core.errors import BadRequest, Invalid, TooLarge, UnsupportedMediaType

SCHEMA = {
    "type": "object",
    "required": ["a", "b"],
    "additionalProperties": False,
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
}
FORM = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"source": {"enum": ["local"]}, "manifest": {"type": "string"}},
}
MULTIPART = "multipart/form-data; boundary=XX"


def read(raw: bytes, content_type: str | None = "application/json", **options: Any) -> Any:
    settings: dict[str, Any] = {"schema": SCHEMA, "optional": False, "form": None, "max_bytes": 1_000_000}
    return body.read(content_type, raw, **(settings | options))


def part(name: str, content: str, more: str = "") -> str:
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'


def read_form(*parts: str, end: str = "--XX--\r\n", content_type: str = MULTIPART) -> Any:
    return read(("".join(parts) + end).encode(), content_type, form=FORM)


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "Application/JSON; charset=utf-8", "a/b+json"]
)
def test_json_is_read(content_type: str | None) -> None:
    assert read(b'{"a": 1, "b": "x"}', content_type) == ({"a": 1, "b": "x"}, {})


def test_an_endpoint_without_a_body_ignores_one_within_the_limit() -> None:
    assert read(b"anything", "text/plain", schema=None) == (None, {})
    with pytest.raises(TooLarge):
        read(b"x" * 11, schema=None, max_bytes=10)


def test_an_unread_body_is_bounded_and_typed_and_nothing_else() -> None:
    assert read(b"{not json", unread=True) == (b"{not json", {})
    with pytest.raises(UnsupportedMediaType):
        read(b"{}", "text/plain", unread=True)
    with pytest.raises(TooLarge):
        read(b"x" * 11, unread=True, max_bytes=10)


def test_an_optional_body_may_be_absent_but_not_wrong() -> None:
    assert read(b"", optional=True) == ({}, {})
    assert read(b"", "text/plain", optional=True) == ({}, {})
    with pytest.raises(Invalid):
        read(b"{}", optional=True)
    with pytest.raises(UnsupportedMediaType):
        read(b"{}", "text/plain", optional=True)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xef\xbb\xbf{}", b"[" * 100_000]
)
def test_what_is_no_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read(raw)
    assert (refused.value.code, len(refused.value.errors) > 0) == ("request.json", True)


def test_all_violations_of_the_schema_are_reported() -> None:
    with pytest.raises(Invalid) as refused:
        read(b'{"a": "x", "c": 1}')
    assert len(refused.value.errors) == 3


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", MULTIPART, "json", ";"]
)
def test_other_media_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"is not accepted here: send application/json\.$"):
        read(b"{}", content_type)


# -- forms ---------------------------------------------------------------------------------------------------


def test_a_form_gives_its_fields_and_files() -> None:
    value, files = read_form(
        part("source", "local"), part("file", "PK\0\1", '; filename="x.zip"'), part("manifest", "{}")
    )
    assert value == {"source": "local", "manifest": "{}"}
    assert files == {"file": UploadedFile("x.zip", b"PK\0\1")}


def test_the_fields_of_a_form_are_checked() -> None:
    with pytest.raises(Invalid) as refused:
        read_form(part("source", "elsewhere"), part("other", "1"))
    assert len(refused.value.errors) == 2


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (part("source", "local"), MULTIPART),
        (part("source", "local")[:-10], MULTIPART),
        ("", MULTIPART),
        ("--YY--\r\n", MULTIPART),
        (part("source", "local") + "--XX--\r\n", "multipart/form-data"),
        (part("source", "local") + "--XX--\r\n", "multipart/form-data; boundary="),
        (part("source", "local") + "--XX--\r\n", f"multipart/form-data; boundary={'X' * 71}"),
        ("--XX\r\nno header\r\n\r\nx\r\n--XX--\r\n", MULTIPART),
        ("--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XX--\r\n", MULTIPART),
        (part("source", "local") * 2 + "--XX--\r\n", MULTIPART),
        (part("file", "1", '; filename="a"') + part("file", "2") + "--XX--\r\n", MULTIPART),
        ("".join(part(f"f{n}", "") for n in range(17)) + "--XX--\r\n", MULTIPART),
        (part("manifest", "x" * (body.MAX_FIELD_BYTES + 1)) + "--XX--\r\n", MULTIPART),
    ],
)
def test_a_broken_form_is_malformed(raw: str, content_type: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(raw.encode(), content_type, form=FORM)
    assert refused.value.code == "request.multipart"


def test_a_field_that_is_no_text_is_malformed() -> None:
    raw = part("source", "local").encode().replace(b"local", b"\xff\xfe") + b"--XX--\r\n"
    with pytest.raises(BadRequest):
        read(raw, MULTIPART, form=FORM)


def test_sixteen_parts_are_admitted() -> None:
    value, files = read_form(*[part(f"f{n}", "", f'; filename="{n}"') for n in range(16)])
    assert (value, len(files)) == ({}, 16)
