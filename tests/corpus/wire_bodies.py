"""What bodies look like on the wire, written by hand: RFC 8259, the URL standard's form encoding (5.2), RFC 7578, and
OpenAPI's Encoding Object.

`{boundary}` stands for the boundary of a multipart body, which nobody can foresee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
BOTH, ONLY_3_1, ONLY_3_0 = ("3.0.3", "3.1.0"), ("3.1.0",), ("3.0.3",)
STRING = {"type": "string"}
OCTETS_3_0 = {"type": "string", "format": "binary"}
# Every octet that a text would not survive.
RAW, RAW_BASE64 = b"\x00\r\n--\xff\x89PNG", "AA0KLS3/iVBORw=="


@dataclass(frozen=True)
class Case:
    """One operation with one body.

    Parameters
    ----------
    content
        The `content` of its request body.
    content_type
        `contentType` of the call; None where it is left out.
    sent_type, sent
        The Content-Type and the body that arrive; a sent_type of None means that the rule `sent` refuses the call.
    """

    id: str
    content: dict[str, Any]
    value: Any
    sent_type: str | None
    sent: bytes | str
    content_type: str | None = None
    versions: tuple[str, ...] = BOTH


def _object(properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"schema": {"type": "object", **({"properties": properties} if properties else {})}, **more}


def _form(name: str, value: Any, sent: str, properties: Any = None, **encoding: Any) -> Case:
    more = {"encoding": encoding} if encoding else {}
    return Case(f"form-{name}", {FORM: _object(properties, **more)}, value, FORM, sent.encode())


def _parts(*parts: tuple[str, bytes]) -> bytes:
    """Return a multipart body of (the lines of a part's head, its content)."""
    written = b"".join(
        b"--{boundary}\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts
    )
    return written + b"--{boundary}--\r\n"


def _multipart(
    name: str, value: Any, sent: bytes, properties: Any = None, versions: Any = BOTH, **encoding: Any
) -> Case:
    more = {"encoding": encoding} if encoding else {}
    content = {MULTIPART: _object(properties, **more)}
    return Case(
        f"multipart-{name}", content, value, f"{MULTIPART}; boundary={{boundary}}", sent, None, versions
    )


def _named(name: str, *lines: str, filename: str | None = None) -> str:
    said = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return "\r\n".join([said, *lines])


_ANY: dict[str, Any] = {"schema": {}}
_PNG = {"base64": RAW_BASE64, "filename": "a.png", "contentType": "image/png"}

_JSON = (
    Case("json-object", {JSON: _ANY}, {"b": 1, "a": "ü\u2028\"\\\n", "c": [None, True, 1.5]}, JSON,
         '{"b":1,"a":"ü\u2028\\"\\\\\\n","c":[null,true,1.5]}'.encode()),
    Case("json-null", {JSON: _ANY}, None, JSON, b"null"),
    Case("json-string", {JSON: _ANY}, "x", JSON, b'"x"'),
    Case("json-false", {JSON: _ANY}, False, JSON, b"false"),
    Case("json-empty", {JSON: _ANY}, {}, JSON, b"{}"),
    Case("json-binary-is-an-object", {JSON: _ANY}, {"base64": "AA=="}, JSON, b'{"base64":"AA=="}'),
    Case("json-suffix", {"application/vnd.api+json": _ANY}, [1], "application/vnd.api+json", b"[1]"),
    Case("json-first", {"text/plain": _ANY, JSON: _ANY}, "x", JSON, b'"x"'),
    Case("json-chosen", {JSON: _ANY, "application/merge-patch+json": _ANY}, {"a": None},
         "application/merge-patch+json", b'{"a":null}', "application/merge-patch+json"),
    Case("json-charset", {JSON: _ANY}, "ü", "application/json; charset=utf-8", '"ü"'.encode(),
         "application/json; charset=utf-8"),
    Case("json-range", {"application/*": _ANY}, {"a": 1}, "application/ld+json", b'{"a":1}', "application/ld+json"),
)  # fmt: skip

_FORMS = (
    _form("primitives", {"s": "x y", "n": 1.0, "t": True, "z": None}, "s=x+y&n=1&t=true"),
    _form("urlencoded", {"a~*-._": "~*-._ü&=+%\r\n"}, "a%7E*-._=%7E*-._%C3%BC%26%3D%2B%25%0D%0A"),
    _form("empty", {}, ""),
    _form("empty-string", {"a": ""}, "a="),
    _form("array", {"a": ["p q", "r"]}, "a=p+q&a=r"),
    _form("object-is-json", {"o": {"k": "v w"}}, "o=%7B%22k%22%3A%22v+w%22%7D"),
    _form("array-of-objects", {"o": [{"k": 1}]}, "o=%7B%22k%22%3A1%7D"),
    # The specification's own example ("Encoding x-www-form-urlencoded Content").
    _form(
        "of-the-specification",
        {
            "id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "address": {"streetAddress": "123 Example Dr.", "city": "Somewhere", "state": "CA", "zip": "99999+1234"},
        },
        "id=f81d4fae-7dec-11d0-a765-00a0c91e6bf6&address=%7B%22streetAddress%22%3A%22123+Example+Dr.%22%2C%22city"
        "%22%3A%22Somewhere%22%2C%22state%22%3A%22CA%22%2C%22zip%22%3A%2299999%2B1234%22%7D",
    ),
    _form("content-type-json", {"a": ["p", "q"]}, "a=%5B%22p%22%2C%22q%22%5D", a={"contentType": JSON}),
    _form("octets", {"f": {"base64": "/+8="}}, "f=%2F%2B8%3D"),
    # A style: percent-encoded as in a query, a blank is %20.
    _form("style-form", {"a": ["p q", "r~"]}, "a=p%20q&a=r~", a={"style": "form"}),
    _form("style-commas", {"a": ["p,q", "r"]}, "a=p%2Cq,r", a={"style": "form", "explode": False}),
    _form("style-object", {"a": {"R": 1, "G": 2}}, "R=1&G=2", a={"style": "form"}),
    _form("style-object-flat", {"a": {"R": 1, "G": 2}}, "a=R,1,G,2", a={"explode": False}),
    _form("style-spaces", {"a": ["p", "q"]}, "a=p%20q", a={"style": "spaceDelimited", "explode": False}),
    _form("style-pipes", {"a": ["p", "q"]}, "a=p%7Cq", a={"style": "pipeDelimited", "explode": False}),
    _form("style-deep", {"a": {"R": 1, "n": {"x": "y z"}}}, "a%5BR%5D=1&a%5Bn%5D%5Bx%5D=y%20z",
          a={"style": "deepObject", "explode": True}),
    _form("style-reserved", {"a": "p/q?&=é"}, "a=p/q?%26=%C3%A9", a={"allowReserved": True}),
    _form("style-plain", {"a": "p/q?&=é"}, "a=p%2Fq%3F%26%3D%C3%A9", a={"style": "form"}),
    _form("order-of-the-caller", {"b": 1, "a": 2}, "b=1&a=2", {"a": {}, "b": {}}),
    Case("form-style-name-taken", {FORM: _object({"a": {}, "b": {}}, encoding={"a": {"style": "form"}})},
         {"a": {"b": 1}}, None, "argument.name_taken"),
    Case("form-no-object", {FORM: _ANY}, ["a"], None, "argument.form"),
)  # fmt: skip

_MULTIPARTS = (
    _multipart("text", {"a": "x ü\r\n", "n": 1.0, "z": None},
               _parts((_named("a"), "x ü\r\n".encode()), (_named("n"), b"1")),
               {"a": STRING, "n": {"type": "number"}}),
    _multipart("empty", {}, b"--{boundary}--\r\n"),
    _multipart("json", {"o": {"k": "ü"}},
               _parts((_named("o", "Content-Type: application/json"), '{"k":"ü"}'.encode()))),
    _multipart("octets", {"f": _PNG}, _parts((_named("f", "Content-Type: image/png", filename="a.png"), RAW)),
               {"f": {}}, ONLY_3_1),
    _multipart("octets-3-0", {"f": _PNG}, _parts((_named("f", "Content-Type: image/png", filename="a.png"), RAW)),
               {"f": OCTETS_3_0}, ONLY_3_0),
    # A file without a name is called as browsers do; without a type it is octets.
    _multipart("octets-bare", {"f": {"base64": RAW_BASE64}},
               _parts((_named("f", "Content-Type: application/octet-stream", filename="blob"), RAW)), {"f": {}}),
    _multipart("octets-of-a-string", {"f": "text ü"},
               _parts((_named("f", "Content-Type: application/octet-stream", filename="blob"), "text ü".encode())),
               {"f": OCTETS_3_0}, ONLY_3_0),
    _multipart("files", {"f": [{"base64": "AA==", "filename": "1"}, {"base64": "AQ==", "filename": "2"}]},
               _parts((_named("f", "Content-Type: application/octet-stream", filename="1"), b"\x00"),
                      (_named("f", "Content-Type: application/octet-stream", filename="2"), b"\x01")),
               {"f": {"type": "array", "items": {}}}),
    _multipart("array", {"a": ["p", "q"]}, _parts((_named("a"), b"p"), (_named("a"), b"q")),
               {"a": {"type": "array", "items": STRING}}),
    _multipart("content-type", {"a": "x;y"}, _parts((_named("a", "Content-Type: text/csv"), b"x;y")),
               {"a": STRING}, a={"contentType": "text/csv"}),
    _multipart("content-type-json", {"a": "x"}, _parts((_named("a", "Content-Type: application/vnd.x+json"), b'"x"')),
               {"a": STRING}, a={"contentType": "application/vnd.x+json"}),
    _multipart("content-types", {"f": _PNG}, _parts((_named("f", "Content-Type: image/png", filename="a.png"), RAW)),
               {"f": {}}, a={"contentType": "image/jpeg, image/png"}, f={"contentType": "image/jpeg, image/*"}),
    _multipart("headers", {"a": "x"},
               _parts((_named("a", "X-Rate: 7", "X-List: p,q"), b"x")), {"a": STRING},
               a={"headers": {"X-Rate": {"schema": {"type": "integer", "default": 7}},
                              "X-List": {"schema": {"type": "array", "items": {}, "default": ["p", "q"]}},
                              "X-Unsaid": {"schema": STRING},
                              "Content-Type": {"schema": {"default": "text/evil"}},
                              "Content-Disposition": {"schema": {"default": "attachment"}}}}),
    _multipart("coded", {"a": "AA=="},
               _parts((_named("a", "Content-Type: application/octet-stream",
                              "Content-Transfer-Encoding: base64"), b"AA==")),
               {"a": {"type": "string", "contentEncoding": "base64"}}, ONLY_3_1),
    # Percent-encoding must not be applied here.
    _multipart("style", {"a": ["p q", "r,s"]}, _parts((_named("a"), b"p q,r,s")), None, BOTH,
               a={"style": "form", "explode": False}),
    _multipart("style-exploded", {"a": {"R": 1, "G": "ü"}}, _parts((_named("R"), b"1"), (_named("G"), "ü".encode())),
               None, BOTH, a={"style": "form"}),
    _multipart("style-deep", {"a": {"R": 1}}, _parts((_named("a[R]"), b"1")), None, BOTH, a={"style": "deepObject"}),
    _multipart("names", {'a"\r\nX: y': "x"}, _parts((_named("a%22%0D%0AX: y"), b"x"))),
    _multipart("file-names", {"f": {"base64": "AA==", "filename": 'ü"\r\nX: y'}},
               _parts((_named("f", "Content-Type: application/octet-stream", filename="ü%22%0D%0AX: y"), b"\x00")),
               {"f": {}}),
    Case("multipart-type-not-allowed", {MULTIPART: _object({"f": {}}, encoding={"f": {"contentType": "image/jpeg"}})},
         {"f": _PNG}, None, "argument.content_type"),
    Case("multipart-type-with-a-line", {MULTIPART: _object({"f": {}})},
         {"f": {"base64": "AA==", "contentType": "a/b\r\nX: y"}}, None, "argument.content_type"),
    Case("multipart-bad-base64", {MULTIPART: _object({"f": {}})}, {"f": {"base64": "A"}}, None, "argument.base64"),
    Case("multipart-control-in-name", {MULTIPART: _object()}, {"a\x00": "x"}, None, "argument.name"),
)  # fmt: skip

_OPAQUE = (
    Case("text", {"text/plain": {"schema": STRING}}, "ü\r\n", "text/plain; charset=utf-8", "ü\r\n".encode()),
    Case("text-number", {"text/plain": {"schema": {"type": "number"}}}, 1e20, "text/plain; charset=utf-8",
         b"100000000000000000000"),
    Case("text-csv", {"text/csv": {"schema": STRING}}, "a;b", "text/csv; charset=utf-8", b"a;b"),
    Case("text-said", {"text/plain": {"schema": STRING}}, "x", "text/plain;charset=UTF-8", b"x",
         "text/plain;charset=UTF-8"),
    Case("text-empty", {"text/plain": {"schema": STRING}}, "", "text/plain; charset=utf-8", b""),
    Case("xml", {"application/xml": {"schema": STRING}}, "<a/>", "application/xml", b"<a/>"),
    Case("octets", {"application/octet-stream": {}}, {"base64": RAW_BASE64}, "application/octet-stream", RAW),
    Case("octets-3-0", {"application/octet-stream": {"schema": OCTETS_3_0}}, {"base64": RAW_BASE64},
         "application/octet-stream", RAW, None, ONLY_3_0),
    Case("octets-of-a-string", {"application/octet-stream": {"schema": STRING}}, "ü", "application/octet-stream",
         "ü".encode()),
    Case("image", {"image/png": {}}, {"base64": RAW_BASE64}, "image/png", RAW),
    Case("range-named", {"image/*": {}}, {"base64": RAW_BASE64}, "image/webp", RAW, "image/webp"),
    Case("range-of-the-value", {"image/*": {}}, {"base64": RAW_BASE64, "contentType": "image/gif"}, "image/gif", RAW),
    Case("any-range", {"*/*": {}}, "x", "text/markdown; charset=utf-8", b"x", "text/markdown"),
    Case("range-unnamed", {"image/*": {}}, {"base64": "AA=="}, None, "argument.content_type"),
    Case("range-named-by-a-range", {"image/*": {}}, {"base64": "AA=="}, None, "argument.content_type", "image/*"),
    Case("outside-the-range", {"image/*": {}}, {"base64": "AA=="}, None, "argument.content_type", "text/html"),
    Case("type-with-a-line", {"*/*": {}}, "x", None, "argument.content_type", "a/b\r\nX: y"),
    Case("other-charset", {"text/plain": {}}, "x", None, "argument.charset", "text/plain; charset=latin-1"),
    Case("text-of-an-object", {"text/plain": {}}, {"a": 1}, None, "argument.text"),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_JSON, *_FORMS, *_MULTIPARTS, *_OPAQUE)
