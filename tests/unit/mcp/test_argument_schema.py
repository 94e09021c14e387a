from __future__ import annotations

from typing import Any

import pytest

from chalicelib.core.json_schema.schemas import violations
from chalicelib.mcp.argument_schema import arguments_of, cleaned

A_STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {"type": "object"}),
        (True, {"type": "object"}),
        (False, {"type": "object", "not": {}}),
        ({}, {"type": "object"}),
        ({"properties": {"a": A_STRING}}, {"properties": {"a": A_STRING}, "type": "object"}),
        ({"type": ["object", "null"], "maxProperties": 1}, {"type": "object", "maxProperties": 1}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": A_STRING}},
            {"$ref": "#/$defs/a", "$defs": {"a": A_STRING}, "type": "object"},
        ),
    ],
)
def test_params_that_are_an_object_are_the_arguments(schema: Any, expected: dict[str, Any]) -> None:
    arguments = arguments_of(schema)
    assert (arguments.schema, arguments.wrapped) == (expected, False)
    assert arguments.params({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("kind", ["string", "array", ["integer", "null"]])
def test_params_that_are_no_object_are_one_argument(kind: Any) -> None:
    arguments = arguments_of({"type": kind})
    assert arguments.schema == {
        "type": "object",
        "properties": {"params": {"type": kind}},
        "required": ["params"],
        "additionalProperties": False,
    }
    assert arguments.params({"params": [1]}) == [1]
    assert arguments.params({}) is None


def test_references_follow_what_was_moved() -> None:
    tree = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/leaf"}]},
        "$defs": {"leaf": {"type": "integer"}},
        "default": [{"$ref": "#"}],
    }
    schema = arguments_of(tree).schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    inner = schema["properties"]["params"]
    assert inner["items"] == {
        "anyOf": [{"$ref": "#/properties/params"}, {"$ref": "#/properties/params/$defs/leaf"}]
    }
    assert inner["default"] == [{"$ref": "#"}]
    assert violations(schema, {"params": [1, [2, [3]]]}) == []
    [found] = violations(schema, {"params": [1, ["x"]]})
    assert found.pointer == "/params/1"


def test_header_marks_are_left_out_wherever_a_schema_stands() -> None:
    mark = {"x-mcp-header": "Region", "type": "string"}
    schema = {
        "type": "object",
        "properties": {"a": mark, "x-mcp-header": mark},
        "allOf": [mark],
        "items": mark,
        "$defs": {"d": mark},
        "const": mark,
    }
    assert cleaned(schema) == {
        "type": "object",
        "properties": {"a": A_STRING, "x-mcp-header": A_STRING},
        "allOf": [A_STRING],
        "items": A_STRING,
        "$defs": {"d": A_STRING},
        "const": mark,
    }
