from __future__ import annotations

from typing import Any

import pytest

from chalicelib.tools.binding.plan import is_connection_header, is_ours
from chalicelib.tools.binding.shapes import MAX_WORK
from tests.unit.tools.binding.operations import parameter, plan


def test_shapes_are_kept_until_they_are_worn() -> None:
    schema: dict[str, Any] = {"$ref": "#/$defs/A"}
    call = plan(definitions={"A": {"type": "string"}})
    for find in (call.certain, call.possible):
        first = find(schema)
        assert find(schema) is first
        first._shapes.spend(MAX_WORK // 2 + 1)
        assert find(schema) is not first
        assert find(schema).types == ("string",)


@pytest.mark.parametrize(
    ("schema", "marks"),
    [
        (True, set()),
        ({"$ref": "#/$defs/A"}, {"default", "x-display"}),
        ({"items": {"readOnly": True}}, {"readOnly"}),
        ({"anyOf": [{"x-from": 1}]}, {"x-from"}),
        ({"x-display": True}, set()),
        ({"const": {"default": 1}}, set()),
    ],
)
def test_what_a_schema_asks_for(schema: Any, marks: set[str]) -> None:
    definitions: dict[str, Any] = {
        "A": {"properties": {"b": {"$ref": "#/$defs/B"}}},
        "B": {"default": 1, "x-display": False, "properties": {"a": {"$ref": "#/$defs/A"}}},
    }
    call = plan(definitions=definitions)
    assert {
        mark for mark in ("default", "readOnly", "x-from", "x-display") if call.says(schema, mark)
    } == marks


def test_a_validator_holds_only_what_its_schema_reaches() -> None:
    schema: Any = {"$ref": "#/$defs/A"}
    call = plan(definitions={"A": {"type": "string"}, "B": {"pattern": "x" * 1000}})
    assert set(call.request_validator(schema)._inner.schema["$defs"]) == {"A"}


@pytest.mark.parametrize(
    ("name", "ours", "connection"),
    [
        ("Host", True, True),
        ("Authorization", True, False),
        ("X-Key", False, False),
        ("Proxy-Any", True, True),
    ],
)
def test_headers_that_are_ours(name: str, ours: bool, connection: bool) -> None:
    assert (is_ours(name), is_connection_header(name)) == (ours, connection)


def test_a_plan_knows_the_parameters_that_are_not_ours() -> None:
    call = plan(parameter("Host", "header"), parameter("X-Key", "header"), parameter("host"))
    assert list(call.parameters["header"]) == ["X-Key"]
    assert list(call.parameters["query"]) == ["host"]
