"""What becomes of answers, by hand: which response of the document counts, how a body is read, what is taken out.

Each row is one operation of a tool whose server gives one answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"


@dataclass(frozen=True)
class Case:
    """One answer to one operation.

    Parameters
    ----------
    responses
        Of the operation, without their descriptions.
    status, headers, body
        What the server sends.
    value
        What the caller is given, in `upstream` where the status is no success.
    rules
        What differs from the document. A successful answer is then refused, unless `strict` is false.
    pointers
        Of what was repaired, where nulls are.
    """

    id: str
    responses: dict[str, Any]
    status: int
    body: bytes
    value: Any
    rules: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    method: str = "get"
    pointers: tuple[str, ...] | None = None


def _json(schema: Any) -> dict[str, Any]:
    return {"content": {JSON: {"schema": schema}}}


def _const(value: Any) -> dict[str, Any]:
    return _json({"enum": [value]})


def _of(media_type: str, schema: Any = None) -> dict[str, Any]:
    return {"200": {"content": {media_type: {} if schema is None else {"schema": schema}}}}


def _typed(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type}


_STATUSES = {
    "201": _const("exact"),
    "2XX": _const("range"),
    "default": _const("default"),
    "4XX": _const("4range"),
}
_HIDING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "shown": {},
        "hidden": {"x-display": False},
        "inside": {"type": "object", "properties": {"hidden": {"x-display": False}, "shown": {}}},
        "list": {
            "type": "array",
            "items": {"type": "object", "properties": {"hidden": {"x-display": False}}},
        },
    },
    "additionalProperties": {"type": "object", "properties": {"hidden": {"x-display": False}}},
}
_BRANCHES: dict[str, Any] = {
    "allOf": [{"type": "object", "properties": {"a": {"x-display": False}}}],
    "oneOf": [
        {"type": "object", "properties": {"b": {"x-display": False}}, "required": ["b"]},
        {"type": "object", "required": ["c"]},
    ],
}
_FULL = (
    b'{"shown":1,"hidden":"secret-1","inside":{"hidden":"secret-2","shown":2},"list":[{"hidden":"secret-3"},{"x":3}],'
    b'"more":{"hidden":"secret-4","y":4}}'
)
_PRUNED = {"shown": 1, "inside": {"shown": 2}, "list": [{}, {"x": 3}], "more": {"y": 4}}
_TEXT = {"type": "string"}
_SIMPLE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "s": _TEXT,
        "i": {"type": "integer"},
        "n": {"type": "number"},
        "b": {"type": "boolean"},
        "a": {"type": "array", "items": _TEXT},
        "o": {"type": "object", "properties": {"s": _TEXT}},
    },
}

CASES: tuple[Case, ...] = (
    # The exact status before its range, the range before `default` (OpenAPI 3.1, 4.8.16).
    Case("exact", _STATUSES, 201, b'"exact"', "exact"),
    Case("exact-not-the-range", _STATUSES, 201, b'"range"', "range", ("schema.enum",)),
    Case("range", _STATUSES, 202, b'"range"', "range"),
    Case("range-not-default", _STATUSES, 299, b'"default"', "default", ("schema.enum",)),
    Case("default", {"default": _const("default")}, 200, b'"default"', "default"),
    Case("default-differs", {"404": _const("x"), "default": _const("default")}, 200, b'"x"', "x", ("schema.enum",)),
    Case("undescribed", {"404": _const("x")}, 200, b'"y"', "y", ("answer.status",)),
    Case("undescribed-error", {"200": _const("x")}, 500, b'{"why":1}', {"why": 1}),
    Case("error-of-a-range", _STATUSES, 404, b'"anything"', "anything"),
    # Media types.
    Case("other-type", _of(JSON, _TEXT), 200, b"<x/>", "<x/>", ("answer.media_type",), _typed("text/html")),
    Case("other-octets", _of(JSON, _TEXT), 200, b"\x00", {"base64": "AA==", "contentType": "image/png"},
         ("answer.media_type",), _typed("image/png")),
    Case("suffix", _of("application/problem+json", _TEXT), 200, b'"x"', "x", (), _typed("application/problem+json")),
    Case("range-of-types", _of("text/*", _TEXT), 200, b"x", "x", (), _typed("text/markdown")),
    Case("any-type", _of("*/*"), 200, b"\xff", {"base64": "/w==", "contentType": "application/zip"}, (),
         _typed("application/zip")),
    Case("type-in-capitals", _of(JSON, _TEXT), 200, b'"x"', "x", (), _typed("Application/JSON; Charset=UTF-8")),
    Case("no-type", _of(JSON, _TEXT), 200, b'"x"', "x", (), {}),
    Case("no-type-of-two", {"200": {"content": {JSON: {}, "text/plain": {}}}}, 200, b"x",
         {"base64": "eA==", "contentType": "application/octet-stream"}, ("answer.media_type",), {}),
    # Texts and their charsets.
    Case("latin-1", _of("text/plain", _TEXT), 200, b"\xfc", "ü", (), _typed("text/plain; charset=ISO-8859-1")),
    Case("utf-16", _of(JSON, _TEXT), 200, '"ü"'.encode("utf-16"), "ü", (),
         _typed('application/json; charset="utf-16"')),
    Case("windows-1252", _of("text/plain", _TEXT), 200, b"\x80", "€", (), _typed("text/plain;charset=windows-1252")),
    Case("unknown-charset", _of("text/plain", _TEXT), 200, "ü".encode(), "ü", ("answer.charset",),
         _typed("text/plain; charset=utf-7")),
    Case("not-utf-8", _of("text/plain", _TEXT), 200, b"a\xff", "a\ufffd", ("answer.encoding",), _typed("text/plain")),
    Case("byte-order-mark", _of(JSON, _TEXT), 200, b'\xef\xbb\xbf"x"', "x"),
    # A text that spells the scalar which its schema declares is that scalar (OpenAPI 3.1, appendix B).
    Case("text-of-a-number", _of("text/plain", {"type": "integer"}), 200, b"7", 7, (), _typed("text/plain")),
    Case("text-of-no-number", _of("text/plain", {"type": "integer"}), 200, b"x", "x", ("schema.type",),
         _typed("text/plain")),
    Case("xml", _of("application/xml", {"type": "object"}), 200, b"<a/>", "<a/>", (), _typed("application/xml")),
    # JSON with one meaning.
    Case("no-json", _of(JSON, {}), 200, b"{", "{", ("json.syntax",)),
    Case("twice", _of(JSON, {}), 200, b'{"a":1,"a":2}', '{"a":1,"a":2}', ("json.duplicate_key",)),
    Case("not-a-number", _of(JSON, {}), 200, b"NaN", "NaN", ("json.number",)),
    Case("too-deep", _of(JSON, {}), 200, b"[" * 65 + b"]" * 65, "[" * 65 + "]" * 65, ("json.depth",)),
    Case("null", _of(JSON, {"enum": [None]}), 200, b"null", None),
    # Octets.
    Case("octets", _of("image/png"), 200, b"\x00\r\n\xff", {"base64": "AA0K/w==", "contentType": "image/png"}, (),
         _typed("image/png")),
    # No body.
    Case("empty", _of(JSON, _TEXT), 200, b"", None, ("answer.empty",)),
    Case("empty-text", _of("text/plain", _TEXT), 200, b"", None, (), _typed("text/plain")),
    Case("empty-as-described", {"204": {}}, 204, b"", None, (), {}),
    Case("empty-though-described", {"204": _json(_TEXT)}, 204, b"", None, (), {}),
    Case("head", _of(JSON, _TEXT), 200, b"", None, (), {"Content-Type": JSON}, "head"),
    # What the document hides.
    Case("hidden", {"200": _json(_HIDING)}, 200, _FULL, _PRUNED),
    Case("hidden-in-a-range", {"2XX": _json(_HIDING)}, 203, _FULL, _PRUNED),
    Case("hidden-in-an-error", {"200": {}, "404": _json(_HIDING)}, 404, _FULL, _PRUNED),
    Case("hidden-in-any-error", {"200": {}, "default": _json(_HIDING)}, 503, _FULL, _PRUNED),
    Case("hidden-in-branches", {"200": _json(_BRANCHES)}, 200, b'{"a":1,"b":2,"d":3}', {"d": 3}),
    Case("hidden-in-another-branch", {"200": _json(_BRANCHES)}, 200, b'{"b":2,"c":4}', {"c": 4}, ("schema.oneOf",)),
    Case("hidden-though-it-differs", {"200": _json({**_HIDING, "required": ["gone"]})}, 200, _FULL, _PRUNED,
         ("schema.required",)),
    # What cannot be read cannot be pruned.
    Case("hidden-in-no-json", {"200": _json(_HIDING)}, 200, b'{"hidden":"secret-1"', None, ("json.syntax",)),
    Case("hidden-in-no-json-of-an-error", {"200": {}, "400": _json(_HIDING)}, 400, b'{"hidden":"secret-1"', None),
    Case("hidden-is-required", {"200": _json({**_HIDING, "required": ["hidden"]})}, 200, b'{"hidden":"secret-1"}', {}),
    # Nulls, where simple types are declared.
    Case("nulls", {"200": _json(_SIMPLE)}, 200, b'{"s":null,"i":null,"n":null,"b":null,"o":{"s":null},"a":[null]}',
         {"s": "", "i": 0, "n": 0, "b": False, "o": {"s": ""}, "a": [""]}, (), pointers=(
             "/body/a/0", "/body/b", "/body/i", "/body/n", "/body/o/s", "/body/s")),
    Case("nulls-of-containers", {"200": _json(_SIMPLE)}, 200, b'{"o":null,"a":null,"z":null}',
         {"o": {}, "a": [], "z": None}, (), pointers=("/body/a", "/body/o")),
    Case("nulls-of-no-type", {"200": _json({"oneOf": [_TEXT, {"type": "integer"}]})}, 200, b"null", None,
         ("schema.oneOf",), pointers=()),
    Case("nulls-that-are-said", {"200": _json({"type": "object", "properties": {"s": {"enum": [None, "x"]}}})}, 200,
         b'{"s":null}', {"s": None}, (), pointers=()),
)  # fmt: skip
