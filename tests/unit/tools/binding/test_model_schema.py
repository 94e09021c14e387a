from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from chalicelib.core.json_schema.schemas import check_schema, violations
from chalicelib.tools.binding import binary
from chalicelib.tools.binding.model_schema import model_schema, output_schema
from chalicelib.tools.binding.shapes import Shapes, TooComplex
from chalicelib.tools.binding.views import View, references
from chalicelib.tools.openapi.operation import FIXED, FROM_BUSINESS, Content, RequestBody, ResponseSpec
from tests.unit.tools.binding.operations import answer, body, operation, parameter

STRING = {"type": "string"}


def closed(properties: Any, *required: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {**schema, **({"required": list(required)} if required else {}), "additionalProperties": False}


def test_nothing_to_give() -> None:
    assert model_schema(operation()) == closed({})


def test_the_parameters_of_each_location() -> None:
    schema = model_schema(
        operation(
            parameter("id", "path", STRING),
            parameter("q", schema=STRING, required=True, description="What to look for"),
            parameter("limit", schema={"type": "integer", "default": 10}, required=True),
            parameter("tenant", schema=STRING, required=True, origin=FROM_BUSINESS),
            parameter("v", schema={"default": 1}, origin=FIXED),
            parameter("secret", schema=STRING, displayed=False),
            parameter("Authorization", "header", STRING, required=True),
            parameter(
                "X-Trace",
                "header",
                {"type": "string", "description": "its own", "x-note": 1},
                description="no",
            ),
            parameter("theme", "cookie", True, description="lost"),
            path="/{id}",
        )
    )
    assert schema == closed(
        {
            "path": closed({"id": STRING}, "id"),
            "query": closed(
                {
                    "q": {**STRING, "description": "What to look for"},
                    "limit": {"type": "integer", "default": 10},
                },
                "q",
            ),
            "header": closed({"X-Trace": {"type": "string", "description": "its own"}}),
            "cookie": closed({"theme": True}),
        },
        "path",
        "query",
    )


DEFINITIONS: dict[str, Any] = {
    "Node": {
        "type": "object",
        "required": ["id", "name", "owner", "secret"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "name": STRING,
            "owner": {"type": "string", "x-from": 1},
            "secret": {"$ref": "#/$defs/Hidden"},
            "next": {"$ref": "#/$defs/Node"},
            "kind": {"x-from": 2, "default": "n"},
            "pw": {"type": "string", "writeOnly": True},
        },
        "xml": {"name": "node"},
        "x-extra": True,
    },
    "Hidden": {"type": "string", "x-display": False},
    "Unreached": {"$ref": "#/$defs/Hidden"},
}
SEEN_NODE = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": STRING,
        "next": {"$ref": "#/$defs/Node"},
        "pw": {"type": "string", "writeOnly": True},
    },
}


def body_schema(
    schema: Any, media_type: str = "application/json", *, required: bool = True
) -> dict[str, Any]:
    return model_schema(operation(body=body(schema, media_type, required=required), definitions=DEFINITIONS))


def test_a_body_is_pruned_to_any_depth_with_what_it_reaches() -> None:
    assert body_schema({"$ref": "#/$defs/Node"}) == {
        **closed({"body": {"$ref": "#/$defs/Node"}}, "body"),
        "$defs": {"Node": SEEN_NODE},
    }


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"items": {"properties": {"a": {"x-from": 1}, "b": True}}}, {"items": {"properties": {"b": True}}}),
        (
            {"allOf": [{"properties": {"a": {"x-from": 1}, "b": True}}, {"required": ["a", "b"]}]},
            {"allOf": [{"properties": {"b": True}}, {"required": ["b"]}]},
        ),
        (
            {"properties": {"a": {"x-from": 1}, "c": True}, "allOf": [{"required": ["a", "b"]}]},
            {"properties": {"c": True}, "allOf": [{"required": ["b"]}]},
        ),
        (
            {"oneOf": [{"properties": {"a": {"x-display": False}}, "required": ["a"]}, {"properties": {"b": True}}]},
            {"oneOf": [{"properties": {}}, {"properties": {"b": True}}]},
        ),
        (
            {"additionalProperties": {"$ref": "#/$defs/Hidden"}, "patternProperties": {"a": {"x-from": 1}, "b": True}},
            {"additionalProperties": False, "patternProperties": {"b": True}},
        ),
        ({"const": {"x-from": 1}, "default": {"x-a": 1}}, {"const": {"x-from": 1}, "default": {"x-a": 1}}),
        ({"properties": {"required": STRING, "x-a": STRING}}, {"properties": {"required": STRING, "x-a": STRING}}),
        (
            {"properties": {"a": {"default": 1}, "b": True}, "required": ["a", "b"]},
            {"properties": {"a": {"default": 1}, "b": True}, "required": ["b"]},
        ),
        (True, True),
    ],
)  # fmt: skip
def test_what_is_left_of_a_body(schema: Any, expected: Any) -> None:
    assert body_schema(schema)["properties"]["body"] == expected


@pytest.mark.parametrize(
    ("schema", "required", "expected"),
    [
        ({"properties": {"a": {"x-from": 1}}}, True, None),
        ({"properties": {"a": {"readOnly": True}}}, True, None),
        ({"x-from": 1, "type": "object"}, True, None),
        ({"properties": {"a": {"x-from": 1}, "b": True}}, True, False),
        ({"properties": {"a": {"x-from": 1}, "b": True}, "required": ["b"]}, True, True),
        ({"properties": {"a": {"x-from": 1}, "b": {"default": 1}}, "required": ["b"]}, True, False),
        ({"properties": {"a": {"x-from": 1}, "b": True}, "required": ["b"]}, False, False),
        ({"properties": {"b": True}}, True, True),
        (STRING, True, True),
        (STRING, False, False),
    ],
)
def test_whether_the_model_gives_a_body(schema: Any, required: bool, expected: bool | None) -> None:
    told = body_schema(schema, required=required)
    assert ("body" in told.get("required", [])) is bool(expected)
    assert ("body" in told["properties"]) is (expected is not None)


def test_octets_are_told_of_as_they_are_given() -> None:
    octets = {"anyOf": [STRING, binary.SCHEMA]}
    assert body_schema({"type": "string", "description": "A file"}, "image/png")["properties"]["body"] == {
        "anyOf": [{**STRING, "description": "A file"}, binary.SCHEMA]
    }
    assert body_schema(True, "text/plain")["properties"]["body"] == STRING
    assert body_schema(True, "image/*")["properties"]["body"] == octets
    file = {"type": "string", "format": "binary"}
    schema = {"type": "object", "properties": {"f": file, "l": {"type": "array", "items": file}, "s": STRING}}
    told = {
        "type": "object",
        "properties": {
            "f": {"anyOf": [file, binary.SCHEMA]},
            "l": {"type": "array", "items": {"anyOf": [file, binary.SCHEMA]}},
            "s": STRING,
        },
    }
    assert body_schema(schema, "multipart/form-data")["properties"]["body"] == told
    referred = operation(body=body({"$ref": "#/$defs/Up"}, "multipart/form-data"), definitions={"Up": schema})
    assert model_schema(referred)["properties"]["body"] == told
    assert body_schema(True, "multipart/form-data")["properties"]["body"] is True


def test_the_body_that_is_sent_where_none_is_named() -> None:
    contents = (Content("text/plain", True), Content("application/json", {"type": "array"}))
    assert model_schema(operation(body=RequestBody(True, contents)))["properties"]["body"] == {
        "type": "array"
    }
    assert model_schema(operation(body=RequestBody(True, ()))) == closed({})


def test_what_a_model_is_told_is_a_schema_that_stands_alone() -> None:
    told = body_schema({"$ref": "#/$defs/Node"})
    Draft202012Validator.check_schema(told)
    assert check_schema(told) == []
    assert violations(told, {"body": {"name": "a", "next": {"name": "b"}}}) == []
    assert [each.rule for each in violations(told, {"body": {"next": {}}})] == ["schema.required"] * 2


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ((), None),
        ((answer(True),), None),
        ((answer(STRING),), None),
        ((answer({"type": ["object", "null"]}),), None),
        ((answer({"type": "object"}, media_type="text/plain"),), None),
        ((answer({"type": "object"}, "404"),), None),
        ((answer({"type": "object"}, "default"),), None),
        (
            (ResponseSpec("204", ()), answer({"type": "object", "title": "t"}, "201")),
            {"type": "object", "title": "t"},
        ),
        (
            (answer({"type": "object", "title": "x"}, "2XX"), answer({"type": "object"}, "200")),
            {"type": "object"},
        ),
        ((answer({"allOf": [{"type": "object"}]}),), {"type": "object", "allOf": [{"type": "object"}]}),
    ],
)
def test_the_schema_of_an_answer(responses: Any, expected: Any) -> None:
    assert output_schema(operation(responses=responses)) == expected


def test_an_answer_is_told_without_what_is_hidden() -> None:
    told = output_schema(operation(responses=(answer({"$ref": "#/$defs/Node"}),), definitions=DEFINITIONS))
    assert told == {
        "$ref": "#/$defs/Node",
        "type": "object",
        "$defs": {
            "Node": {
                "type": "object",
                "required": ["id", "name", "owner"],
                "properties": {
                    "id": {"type": "integer", "readOnly": True},
                    "name": STRING,
                    "owner": STRING,
                    "next": {"$ref": "#/$defs/Node"},
                    "kind": {"default": "n"},
                },
            }
        },
    }


# -- views -----------------------------------------------------------------------------------------------------------


def test_references_in_data_are_none() -> None:
    schema = {
        "properties": {"$ref": {"$ref": "#/$defs/A"}},
        "default": {"$ref": "#/$defs/B"},
        "allOf": [{"items": {"$ref": "#/$defs/C"}}],
    }
    assert sorted(references(schema)) == ["A", "C"]


def test_a_schema_of_endless_depth_is_given_up() -> None:
    schema: Any = {}
    for _ in range(10_000):
        schema = {"items": schema}
    view = View(Shapes({}, branches=True), {}, lambda shape: False)
    with pytest.raises(TooComplex):
        view.closed(schema)
    assert list(references(schema)) == []
