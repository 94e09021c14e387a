from __future__ import annotations

import base64
import email.parser
import email.policy
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Invalid
from chalicelib.tools.binding import multipart
from chalicelib.tools.binding.arguments import Arguments
from chalicelib.tools.binding.multipart import Part
from chalicelib.tools.binding.request import bind
from chalicelib.tools.binding.serialization import CannotSerialize
from chalicelib.tools.openapi.operation import PropertyEncoding
from tests.unit.tools.binding.operations import body, found, parameter, plan

FORM = "application/x-www-form-urlencoded"
TEXT_OR_NULL = ["string", "null"]
IS_JSON = "Content-Type: application/json"
MULTIPART = "multipart/form-data"
STRING = {"type": "string"}
PNG = {"base64": "iVBORw==", "filename": "a.png", "contentType": "image/png"}


def sent(
    value: Any, schema: Any, media_type: str, content_type: str | None = None, **encoding: Any
) -> tuple[bytes, str]:
    call = plan(body=body(schema, media_type, **encoding))
    request = bind(call, Arguments(body=value, content_type=content_type), draw=lambda: "B")
    assert request.body is not None
    return request.body, dict(request.headers)["Content-Type"]


def refused(value: Any, schema: Any, media_type: str, **encoding: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        sent(value, schema, media_type, **encoding)
    return found(caught.value)


def parts(*parts: str) -> bytes:
    return ("".join(f"--B\r\n{part}\r\n" for part in parts) + "--B--\r\n").encode()


def named(name: str, content: str, *headers: str, filename: str | None = None) -> str:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    return "\r\n".join((disposition, *headers, "", content))


# -- JSON, texts, octets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "schema", "media_type", "content_type", "expected"),
    [
        ({"a": ["é", 1.5, None]}, True, "application/json", None, ('{"a":["é",1.5,null]}', "application/json")),
        (None, True, "application/json", None, ("null", "application/json")),
        ("x", True, "application/vnd.api+json", None, ('"x"', "application/vnd.api+json")),
        (1, True, "application/*", "application/json; v=1", ("1", "application/json; v=1")),
        ("é", STRING, "text/plain", None, ("é", "text/plain; charset=utf-8")),
        ("é", STRING, "text/plain", "text/plain; charset=UTF-8", ("é", "text/plain; charset=UTF-8")),
        (1.0, {"type": "number"}, "text/plain", None, ("1", "text/plain; charset=utf-8")),
        ("<a/>", {"type": "object"}, "application/xml", None, None),
        ("<a/>", STRING, "application/xml", None, ("<a/>", "application/xml")),
        ("<a/>", True, "text/xml", None, ("<a/>", "text/xml")),
        ("<a/>", True, "image/svg+xml", None, ("<a/>", "image/svg+xml")),
        ("é", True, "application/octet-stream", None, ("é", "application/octet-stream")),
        ({"base64": "YWJj"}, True, "application/octet-stream", None, ("abc", "application/octet-stream")),
        ({"base64": "YWJj"}, STRING, "text/csv", None, ("abc", "text/csv; charset=utf-8")),
        ({"base64": "YWJj"}, {"type": "string", "format": "binary"}, "image/*", "image/png", ("abc", "image/png")),
        ({"base64": "YWJj", "contentType": "image/gif"}, True, "image/*", None, ("abc", "image/gif")),
    ],
)  # fmt: skip
def test_a_body_as_bytes(
    value: Any, schema: Any, media_type: str, content_type: str | None, expected: tuple[str, str] | None
) -> None:
    if expected is None:
        assert refused(value, schema, media_type) == [("/body", "schema.type")]
        return
    assert sent(value, schema, media_type, content_type) == (expected[0].encode(), expected[1])


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ({"a": 1}, "text/plain"),
        ([1], "application/xml"),
        (1, "application/octet-stream"),
        (None, "image/png"),
        ({"base64": "", "more": 1}, "image/png"),
        ({"base64": 1}, "image/png"),
    ],
)
def test_what_is_neither_text_nor_octets(value: Any, media_type: str) -> None:
    assert refused(value, True, media_type) == [("/body", "argument.text")]


@given(st.binary(max_size=50))
def test_octets_arrive_as_they_are(raw: bytes) -> None:
    value = {"base64": base64.b64encode(raw).decode()}
    assert sent(value, True, "application/octet-stream")[0] == raw


# -- forms -----------------------------------------------------------------------------------------------------------

ADDRESS = {"streetAddress": "123 Example Dr.", "city": "Somewhere", "state": "CA", "zip": "99999+1234"}


@pytest.mark.parametrize(
    ("value", "encoding", "expected"),
    [
        # OpenAPI 3.1, 4.8.15.3.1, byte for byte.
        (
            {"id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "address": ADDRESS},
            {},
            "id=f81d4fae-7dec-11d0-a765-00a0c91e6bf6&address=%7B%22streetAddress%22%3A%22123+Example+Dr.%22%2C%22city"
            "%22%3A%22Somewhere%22%2C%22state%22%3A%22CA%22%2C%22zip%22%3A%2299999%2B1234%22%7D",
        ),
        ({"id": "x"}, {"id": PropertyEncoding(content_type="application/json")}, "id=%22x%22"),
        ({"a b": "c d~*", "e": 1.0, "f": True}, {}, "a+b=c+d%7E*&e=1&f=true"),
        ({"a": [1, "x y", {"b": 1}, None]}, {}, "a=1&a=x+y&a=%7B%22b%22%3A1%7D"),
        ({"a": [1, 2]}, {"a": PropertyEncoding(content_type="application/json")}, "a=%5B1%2C2%5D"),
        ({"a": None, "b": ""}, {}, "b="),
        ({"a": None}, {"a": PropertyEncoding(content_type="application/json")}, "a=null"),
        ({}, {}, ""),
        ({"a": ["x y", "z"]}, {"a": PropertyEncoding(style="form")}, "a=x%20y&a=z"),
        ({"a": ["x", "z"]}, {"a": PropertyEncoding(style="form", explode=False)}, "a=x,z"),
        ({"a": ["x", "z"]}, {"a": PropertyEncoding(style="spaceDelimited", explode=False)}, "a=x%20z"),
        ({"a": {"b": {"c": 1}}}, {"a": PropertyEncoding(style="deepObject")}, "a%5Bb%5D%5Bc%5D=1"),
        ({"a": "x/y&z#"}, {"a": PropertyEncoding(style="form", allow_reserved=True)}, "a=x/y%26z%23"),
        ({"a": {"k": 1}, "b": 2}, {"a": PropertyEncoding(style="form")}, "k=1&b=2"),
        ({"a": {"base64": "/+8="}}, {}, "a=%2F%2B8%3D"),
        ({"u": {"base64": "/+8="}}, {}, "u=_-8%3D"),
    ],
)
def test_a_form(value: Any, encoding: Any, expected: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "address": {"type": "object"},
            "u": {"type": "string", "contentEncoding": "base64url"},
        },
    }
    assert sent(value, schema, FORM, **encoding) == (expected.encode(), FORM)


@pytest.mark.parametrize(
    ("value", "encoding", "expected"),
    [
        (["a"], {}, [("/body", "argument.form")]),
        ({"a": {"b": 1}}, {"a": PropertyEncoding(style="form")}, [("/body/a", "argument.name_taken")]),
        (
            {"a": {"c": 1}, "c": 2},
            {"a": PropertyEncoding(style="form")},
            [("/body/a", "argument.name_taken")],
        ),
        ({"a": [["x"]]}, {"a": PropertyEncoding(style="form")}, [("/body/a/0", "argument.nested")]),
        ({"a/b": {"base64": "?"}}, {}, [("/body/a~1b/base64", "argument.base64")]),
        ({"a": [{"base64": "?"}]}, {}, [("/body/a/0/base64", "argument.base64")]),
    ],
)
def test_what_a_form_cannot_say(value: Any, encoding: Any, expected: Any) -> None:
    assert refused(value, {"properties": {"b": True}}, FORM, **encoding) == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(st.dictionaries(TEXTS.filter(bool), TEXTS, min_size=1, max_size=4))
def test_a_form_reads_back(value: dict[str, str]) -> None:
    raw, _ = sent(value, True, FORM)
    assert dict(parse_qsl(raw.decode(), keep_blank_values=True, strict_parsing=True)) == value


# -- multipart -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "properties", "encoding", "expected"),
    [
        ({"id": "é"}, {"id": STRING}, {}, [named("id", "é")]),
        ({"n": 1.0, "b": False}, {}, {}, [named("n", "1"), named("b", "false")]),
        ({"s": "x"}, {}, {}, [named("s", "x")]),
        ({"o": {"a": "é"}}, {"o": {"type": "object"}}, {}, [named("o", '{"a":"é"}', IS_JSON)]),
        (
            {"l": [{"a": 1}, [2]]},
            {},
            {},
            [named("l", '{"a":1}', IS_JSON), named("l", "[2]", IS_JSON)],
        ),
        ({"t": ["a", None, "b"]}, {"t": {"items": {"type": TEXT_OR_NULL}}}, {}, [named("t", "a"), named("t", "b")]),
        ({"t": [], "n": None}, {}, {}, []),
        # Files: by format (3.0), by having no type (3.1), by being octets.
        (
            {"f": "text"},
            {"f": {"type": "string", "format": "binary"}},
            {},
            [named("f", "text", "Content-Type: application/octet-stream", filename="blob")],
        ),
        ({"f": "text"}, {"f": {}}, {}, [named("f", "text", "Content-Type: application/octet-stream", filename="blob")]),
        (
            {"f": {"base64": "YWJj", "filename": "a.txt", "contentType": "text/plain"}},
            {"f": {"type": "string", "format": "binary"}},
            {},
            [named("f", "abc", "Content-Type: text/plain", filename="a.txt")],
        ),
        (
            {"f": [{"base64": "YWJj"}, {"base64": "ZGVm", "filename": "é\"\r\n.png"}]},
            {"f": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            {},
            [
                named("f", "abc", "Content-Type: application/octet-stream", filename="blob"),
                named("f", "def", "Content-Type: application/octet-stream", filename="é%22%0D%0A.png"),
            ],
        ),
        (
            {"f": {"base64": "YWJj"}},
            {"f": {}},
            {"f": PropertyEncoding(content_type="image/png, image/jpeg")},
            [named("f", "abc", "Content-Type: image/png", filename="blob")],
        ),
        (
            {"f": {"base64": "YWJj", "contentType": "image/gif"}},
            {"f": {}},
            {"f": PropertyEncoding(content_type="image/*")},
            [named("f", "abc", "Content-Type: image/gif", filename="blob")],
        ),
        (
            {"f": "YWJj"},
            {"f": {"type": "string", "contentEncoding": "base64"}},
            {},
            [named("f", "YWJj", "Content-Type: application/octet-stream", "Content-Transfer-Encoding: base64")],
        ),
        (
            {"f": {"base64": "/+8="}},
            {"f": {"type": "string", "contentEncoding": "base64"}},
            {"f": PropertyEncoding(content_type="image/png")},
            [named("f", "/+8=", "Content-Type: image/png", "Content-Transfer-Encoding: base64", filename="blob")],
        ),
        (
            {"x": "<a/>"},
            {"x": STRING},
            {"x": PropertyEncoding(content_type="application/xml; charset=utf-8")},
            [named("x", "<a/>", "Content-Type: application/xml; charset=utf-8")],
        ),
        ({"x": "a"}, {}, {"x": PropertyEncoding(content_type="application/json")}, [named("x", '"a"', IS_JSON)]),
        ({"x": ["a b", "c&"]}, {}, {"x": PropertyEncoding(style="form")}, [named("x", "a b"), named("x", "c&")]),
        ({"x": ["a", "b"]}, {}, {"x": PropertyEncoding(style="pipeDelimited", explode=False)}, [named("x", "a|b")]),
        ({"x": {"a": {"b": 1}}}, {}, {"x": PropertyEncoding(style="deepObject")}, [named("x[a][b]", "1")]),
        ({'a"\r\nX: y': "v"}, {}, {}, [named("a%22%0D%0AX: y", "v")]),
        (
            {"h": "v"},
            {"h": STRING},
            {
                "h": PropertyEncoding(
                    headers=(
                        parameter("X-Part", "header", {"type": "array", "default": [1, 2]}),
                        parameter("X-None", "header", STRING),
                        parameter("Content-Type", "header", {"default": "text/evil"}),
                        parameter("content-disposition", "header", {"default": "x"}),
                    )
                )
            },
            [named("h", "v", "X-Part: 1,2")],
        ),
    ],
)  # fmt: skip
def test_a_multipart_body(value: Any, properties: Any, encoding: Any, expected: list[str]) -> None:
    raw, content_type = sent(value, {"type": "object", "properties": properties}, MULTIPART, **encoding)
    assert raw == parts(*expected)
    assert content_type == "multipart/form-data; boundary=B"


def test_octets_in_a_part_arrive_as_they_are() -> None:
    raw, _ = sent({"f": PNG}, {"properties": {"f": {}}}, MULTIPART)
    assert raw == (
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        b"\x89PNG\r\n--B--\r\n"
    )


def test_another_multipart_type_and_a_callers_boundary() -> None:
    assert sent({}, True, "multipart/*", "multipart/mixed; boundary=evil")[1] == "multipart/mixed; boundary=B"


@pytest.mark.parametrize(
    ("value", "encoding", "expected"),
    [
        ("x", {}, ("/body", "argument.form")),
        ({"f": {"base64": "?"}}, {}, ("/body/f/base64", "argument.base64")),
        (
            {"f": {"base64": "", "contentType": "image/*"}},
            {},
            ("/body/f/contentType", "argument.content_type"),
        ),
        (
            {"f": {"base64": "", "contentType": "a/b\r\nX: y"}},
            {},
            ("/body/f/contentType", "argument.content_type"),
        ),
        (
            {"f": [{"base64": "", "contentType": "image/png"}]},
            {"f": PropertyEncoding(content_type="text/plain, image/gif")},
            ("/body/f/0/contentType", "argument.content_type"),
        ),
        ({"f": {"base64": "", "filename": "a\0b"}}, {}, ("/body", "argument.name")),
        ({"a\x1fb": "x"}, {}, ("/body", "argument.name")),
        ({"f": {"a": [1]}}, {"f": PropertyEncoding(style="form")}, ("/body/f/a", "argument.nested")),
        (
            {"f": "x"},
            {"f": PropertyEncoding(headers=(parameter("X", "header", {"default": "a\r\nb"}),))},
            ("/body/f", "argument.header_value"),
        ),
    ],
)
def test_what_a_part_cannot_say(value: Any, encoding: Any, expected: tuple[str, str]) -> None:
    assert refused(value, True, MULTIPART, **encoding) == [expected]


def test_a_boundary_is_drawn_until_it_is_in_no_part() -> None:
    drawn = iter(["B", "name", "Q"])
    raw, boundary = multipart.written([Part("n", b"--B"), Part("m", b"x")], lambda: next(drawn))
    assert boundary == "Q"
    assert raw.startswith(b"--Q\r\n") and raw.endswith(b"\r\n--Q--\r\n")
    with pytest.raises(CannotSerialize):
        multipart.written([Part("n", b"--B")], lambda: "B")


def test_parts_are_not_gathered_beyond_the_limit() -> None:
    def endless() -> Iterator[Part]:
        yield from [Part("n", b"x" * 1024 * 1024)] * 11
        pytest.fail("went on")

    with pytest.raises(CannotSerialize) as caught:
        multipart.written(endless())
    assert caught.value.rule == "argument.too_large"


def test_boundaries_are_random() -> None:
    assert multipart.draw_boundary() != multipart.draw_boundary()


def test_many_small_parts_are_too_large_together() -> None:
    assert refused({"a": ["x"] * 1_000_000}, True, MULTIPART) == [("/body", "argument.too_large")]


@given(
    st.dictionaries(
        TEXTS.filter(lambda name: name.isalnum() and name.isascii()), TEXTS, min_size=1, max_size=4
    )
)
def test_a_multipart_body_reads_back(value: dict[str, str]) -> None:
    call = plan(body=body(True, MULTIPART))
    request = bind(call, Arguments(body=value))
    assert request.body is not None
    head = f"Content-Type: {dict(request.headers)['Content-Type']}\r\n\r\n".encode()
    read = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    got = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in read.iter_parts()
    }
    assert got == {name: text.encode() for name, text in value.items()}


def test_json_reads_back() -> None:
    value = {"a": [1, 2.5, "\u2028</script>", {"é": None}]}
    assert json.loads(sent(value, True, "application/json")[0]) == value
