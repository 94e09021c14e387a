from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.core.errors import UpstreamFailed
from chalicelib.tools.binding.answers import CheckedAnswer, read_answer, response_spec
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.openapi.operation import Content, ResponseSpec
from tests.unit.tools.binding.operations import answer, found, operation, plan

STRING = {"type": "string"}
JSON = (("content-type", "application/json"),)


def read(
    call: CallPlan, body: bytes, status: int = 200, headers: Any = JSON, **options: Any
) -> CheckedAnswer:
    return read_answer(call, status, headers, body, **{"strict": False, **options})


def rules(checked: CheckedAnswer) -> list[tuple[str, str]]:
    return [(each.pointer, each.rule) for each in checked.violations]


@pytest.mark.parametrize(
    ("statuses", "status", "expected"),
    [
        (["200", "2XX", "default"], 200, "200"),
        (["200", "2XX", "default"], 201, "2XX"),
        (["default", "2xx"], 204, "2xx"),
        (["200", "Default"], 404, "Default"),
        (["200", "5XX"], 503, "5XX"),
        (["200"], 201, None),
        ([], 200, None),
    ],
)
def test_the_answer_of_a_status(statuses: list[str], status: int, expected: str | None) -> None:
    spec = response_spec(operation(responses=tuple(ResponseSpec(each, ()) for each in statuses)), status)
    assert (spec.status if spec else None) == expected


@pytest.mark.parametrize(
    ("media_type", "headers", "body", "expected"),
    [
        ("application/json", JSON, b'{"a":1}', {"a": 1}),
        ("application/json", JSON, b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        ("application/json", (("Content-Type", "application/json; charset=latin1"),), b'"\xe9"', "é"),
        (
            "application/json",
            (("content-type", "application/json; charset=utf-16"),),
            '"é"'.encode("utf-16"),
            "é",
        ),
        ("application/json", (), b"1", 1),
        ("application/*", (("content-type", "Application/HAL+JSON"),), b"1", 1),
        ("*/*", JSON, b"null", None),
        ("text/plain", (("content-type", "text/plain; charset=iso-8859-1"),), b"caf\xe9", "café"),
        ("text/plain", (("content-type", "text/plain"),), "é".encode(), "é"),
        ("application/xml", (("content-type", "application/xml"),), b"<a/>", "<a/>"),
        (
            "image/*",
            (("content-type", "image/png"),),
            b"\x89P",
            {"base64": "iVA=", "contentType": "image/png"},
        ),
        ("image/*", (), b"\x89P", {"base64": "iVA=", "contentType": "application/octet-stream"}),
        ("text/html", (("content-type", "text/html"),), b"", None),
    ],
)
def test_a_body_as_a_value(media_type: str, headers: Any, body: bytes, expected: Any) -> None:
    checked = read(plan(responses=(answer(True, media_type=media_type),)), body, headers=headers)
    assert checked.body == expected
    allowed = [] if media_type != "image/*" or headers else [("/body", "answer.media_type")]
    assert rules(checked) == allowed


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(204, "GET", b"x"), (205, "GET", b""), (304, "GET", b""), (200, "HEAD", b"")],
)
def test_no_body(status: int, method: str, body: bytes) -> None:
    call = plan(method=method, responses=(answer(STRING, "default"),))
    assert read(call, body, status) == CheckedAnswer(status, None, None)


def test_a_status_without_content_may_have_a_body() -> None:
    call = plan(responses=(ResponseSpec("200", ()),))
    assert read(call, b"[1]").body == [1]
    assert read(call, b"").violations == ()


@pytest.mark.parametrize(
    ("schema", "body", "headers", "expected"),
    [
        ({"type": "object", "required": ["a"]}, b"{}", JSON, [("/body", "schema.required")]),
        ({"items": STRING}, b"[1]", JSON, [("/body/0", "schema.type")]),
        (True, b"{", JSON, [("/body", "json.syntax")]),
        (True, b'{"a":1,"a":2}', JSON, [("/body/a", "json.duplicate_key")]),
        (True, b"[NaN]", JSON, [("/body/0", "json.number")]),
        (True, b'"\xff"', JSON, [("/body", "answer.encoding")]),
        (True, b'"\\ud800"', JSON, [("/body", "json.encoding")]),
        (True, b"[" * 10_000 + b"]" * 10_000, JSON, [("/body", "json.depth")]),
        (True, b"", JSON, [("/body", "answer.empty")]),
        (True, b"x", (("content-type", "text/plain"),), [("/body", "answer.media_type")]),
        (True, b"x", (("content-type", "???"),), [("/body", "answer.media_type")]),
        (True, b"1", (("content-type", "application/json; charset=idna"),), [("/body", "answer.charset")]),
        (True, b"x" * (5 * 1024 * 1024 + 1), JSON, [("/body", "answer.too_large")]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_differs_is_refused_or_reported(schema: Any, body: bytes, headers: Any, expected: Any) -> None:
    call = plan(responses=(answer(schema), answer(schema, "4XX")))
    assert rules(read(call, body, headers=headers)) == expected
    with pytest.raises(UpstreamFailed) as caught:
        read(call, body, headers=headers, strict=True)
    assert caught.value.code == "tool.invalid_answer"
    assert found(caught.value) == expected
    # An error of the server is one already.
    assert rules(read(call, body, 404, headers=headers, strict=True)) == expected


def test_a_status_that_is_not_described() -> None:
    call = plan(responses=(answer(STRING),))
    assert rules(read(call, b"[1]", 201)) == [("/status", "answer.status")]
    assert read(call, b"[1]", 500, strict=True).body == [1]
    with pytest.raises(UpstreamFailed):
        read(call, b"[1]", 201, strict=True)


def test_what_is_no_json_is_given_as_text_unless_something_in_it_is_hidden() -> None:
    assert read(plan(responses=(answer(True),)), b"{oops").body == "{oops"
    hidden = {"properties": {"a": {"x-display": False}}}
    assert read(plan(responses=(answer(hidden),)), b"{oops").body is None


@pytest.mark.parametrize(
    ("schema", "body", "value", "expected"),
    [
        (STRING, b"5", "5", []),
        ({"type": "integer"}, b" 5\n", 5, []),
        ({"type": "boolean"}, b"true", True, []),
        ({"type": "integer"}, b"x", "x", [("/body", "schema.type")]),
        ({"type": "integer"}, b'"5"', '"5"', [("/body", "schema.type")]),
        ({"type": "integer"}, b"1" * 200, "1" * 200, [("/body", "schema.type")]),
        ({"type": "string", "maxLength": 1}, b"xy", "xy", [("/body", "schema.maxLength")]),
        ({"type": "object"}, b"<a/>", "<a/>", []),
    ],
)
def test_a_text_and_its_schema(schema: Any, body: bytes, value: Any, expected: Any) -> None:
    checked = read(
        plan(responses=(answer(schema, media_type="text/plain"),)),
        body,
        headers=(("content-type", "text/plain"),),
    )
    assert (checked.body, rules(checked)) == (value, expected)


def test_what_only_requests_hold_is_not_required() -> None:
    schema = {
        "properties": {"password": {"writeOnly": True}, "id": {"readOnly": True}},
        "required": ["id", "password"],
    }
    call = plan(responses=(answer(schema),))
    assert rules(read(call, b'{"id":1}')) == []
    assert rules(read(call, b'{"password":1}')) == [("/body", "schema.required")]


def test_the_most_specific_content_judges() -> None:
    contents = (Content("application/*", {"type": "array"}), Content("application/json", {"type": "object"}))
    call = plan(responses=(ResponseSpec("200", contents),))
    assert rules(read(call, b"[]")) == [("/body", "schema.type")]
    assert rules(read(call, b"[]", headers=(("content-type", "application/hal+json"),))) == []


# -- repairing and pruning -------------------------------------------------------------------------------------------

NODE = {"$ref": "#/$defs/Node"}
DEFINITIONS: dict[str, Any] = {
    "Node": {
        "type": "object",
        "properties": {
            "name": STRING,
            "secret": {"x-display": False},
            "next": {"$ref": "#/$defs/Node"},
            "all": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
    },
    "Hidden": {"type": "string", "x-display": False},
}


def through(schema: Any, value: Any, **options: Any) -> CheckedAnswer:
    call = plan(responses=(answer(schema),), definitions=DEFINITIONS)
    return read(call, json.dumps(value).encode(), **options)


@pytest.mark.parametrize(
    ("schema", "value", "expected", "pointers"),
    [
        (STRING, None, "", [""]),
        ({"type": "integer"}, None, 0, [""]),
        ({"type": "number"}, None, 0, [""]),
        ({"type": "boolean"}, None, False, [""]),
        ({"type": "array"}, None, [], [""]),
        ({"type": "object"}, None, {}, [""]),
        ({"type": ["integer", "string"]}, None, 0, [""]),
        ({"type": ["string", "null"]}, None, None, []),
        ({}, None, None, []),
        (True, None, None, []),
        ({"type": "null"}, None, None, []),
        ({"anyOf": [STRING, {"type": "null"}]}, None, None, []),
        ({"allOf": [STRING]}, None, "", [""]),
        (NODE, {"next": {"x": None, "name": None}}, {"next": {"x": None, "name": ""}}, ["/next/name"]),
        (NODE, {"all": [None, {"name": None}]}, {"all": [{}, {"name": ""}]}, ["/all/0", "/all/1/name"]),
        ({"additionalProperties": STRING}, {"a/b": None}, {"a/b": ""}, ["/a~1b"]),
        ({"prefixItems": [STRING], "items": {"type": "integer"}}, [None, None], ["", 0], ["/0", "/1"]),
        (STRING, 5, 5, []),
    ],
)  # fmt: skip
def test_nulls_are_repaired(schema: Any, value: Any, expected: Any, pointers: list[str]) -> None:
    # What is hidden is pruned whether nulls are repaired or not; these have nothing to hide.
    checked = through(schema, value, repair_nulls=True)
    assert (checked.body, list(checked.repaired)) == (expected, pointers)
    assert json.dumps(checked.body) == json.dumps(expected)  # 0 is not False
    assert through(schema, value).body == value


def test_a_repaired_value_is_judged_after() -> None:
    assert rules(through({"type": "string", "minLength": 1}, None, repair_nulls=True)) == [
        ("/body", "schema.minLength")
    ]


@pytest.mark.parametrize(
    ("schema", "value", "expected", "pointers"),
    [
        ({"$ref": "#/$defs/Node"}, {"secret": 1, "name": "a"}, {"name": "a"}, ["/secret"]),
        (
            {"$ref": "#/$defs/Node"},
            {"next": {"secret": 1, "all": [{"secret": 2}]}},
            {"next": {"all": [{}]}},
            ["/next/secret", "/next/all/0/secret"],
        ),
        ({"properties": {"a": {"$ref": "#/$defs/Hidden"}}}, {"a": "x"}, {}, ["/a"]),
        ({"allOf": [{"$ref": "#/$defs/Node"}]}, {"secret": 1}, {}, ["/secret"]),
        ({"anyOf": [STRING, {"$ref": "#/$defs/Node"}]}, {"secret": 1}, {}, ["/secret"]),
        ({"oneOf": [{"properties": {"a": {"x-display": False}}}, {"properties": {"b": True}}]}, {"a": 1}, {}, ["/a"]),
        ({"additionalProperties": {"$ref": "#/$defs/Node"}}, {"k": {"secret": 1}}, {"k": {}}, ["/k/secret"]),
        ({"additionalProperties": {"x-display": False}, "properties": {"a": True}}, {"a": 1, "b": 2}, {"a": 1}, ["/b"]),
        ({"patternProperties": {"^_": {"x-display": False}}}, {"_a": 1, "a": 2}, {"a": 2}, ["/_a"]),
        ({"prefixItems": [NODE]}, [{"secret": 1}, {"secret": 2}], [{}, {"secret": 2}], ["/0/secret"]),
        ({"items": {"x-display": False}}, [1, 2], [], ["/0", "/1"]),
        ({"properties": {"a": {"x-display": True}}}, {"a": 1}, {"a": 1}, []),
        ({"properties": {"a": {"properties": {"b": {"x-display": False}}}}}, {"a": [{"b": 1}]}, {"a": [{"b": 1}]}, []),
    ],
)  # fmt: skip
def test_hidden_members_are_pruned(schema: Any, value: Any, expected: Any, pointers: list[str]) -> None:
    checked = through(schema, value)
    assert (checked.body, list(checked.pruned)) == (expected, pointers)


def test_what_is_hidden_is_judged_before_it_is_pruned() -> None:
    schema = {"properties": {"a": {"type": "integer", "x-display": False}}, "required": ["a"]}
    assert rules(through(schema, {"a": 1})) == []
    assert rules(through(schema, {"a": "x"})) == [("/body/a", "schema.type")]


def test_hidden_members_are_pruned_whatever_else_is_wrong() -> None:
    checked = through({"type": "array", "properties": {"a": {"x-display": False}}}, {"a": 1, "b": 2})
    assert checked.body == {"b": 2}
    assert rules(checked) == [("/body", "schema.type")]


def test_a_large_answer_is_gone_through_in_one_pass() -> None:
    value = [{"secret": index, "name": None} for index in range(100_000)]
    call = plan(responses=(answer({"items": {"$ref": "#/$defs/Node"}}),), definitions=DEFINITIONS)
    checked = read(call, json.dumps(value).encode(), repair_nulls=True)
    assert checked.body == [{"name": ""}] * 100_000
    assert len(checked.pruned) == len(checked.repaired) == 100
    # The validator gives up at its budget; the answer is not refused for its size alone unless it is strict.
    assert rules(checked) == [("/body", "schema.budget")]


def test_the_deepest_answer_is_walked_through() -> None:
    value: Any = {"secret": 1}
    for _ in range(62):
        value = {"next": value}
    checked = through({"$ref": "#/$defs/Node"}, value, repair_nulls=True)
    assert checked.pruned == ("/next" * 62 + "/secret",)
