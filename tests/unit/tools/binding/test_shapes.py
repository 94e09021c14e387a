from __future__ import annotations

from typing import Any

import pytest

from chalicelib.tools.binding.shapes import MAX_WORK, Shapes, TooComplex

NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/Node"}, "name": {"type": "string", "x-display": False}},
}
DEFINITIONS: dict[str, Any] = {
    "Node": NODE,
    "A": {"allOf": [{"$ref": "#/$defs/B"}, {"properties": {"a": {"type": "integer"}}, "required": ["a"]}]},
    "B": {
        "type": "object",
        "properties": {"a": {"default": 1}, "b": {"x-from": 1}},
        "additionalProperties": NODE,
    },
    "odd/na~me": {"title": "odd"},
    "Loop": {"allOf": [{"$ref": "#/$defs/Loop"}]},
}


def shapes(branches: bool = False) -> Shapes:
    return Shapes(DEFINITIONS, branches=branches)


def test_references_and_all_of_speak_together() -> None:
    shape = shapes().of({"$ref": "#/$defs/A"})
    assert shape.types == ("object",)
    assert shape.required == {"a"}
    a, b = shape.member("a"), shape.member("b")
    assert a is not None and (a.types, a.defaults) == (("integer",), [1])
    assert b is not None and b.origin == 1


def test_a_name_that_no_part_knows_is_an_additional_one() -> None:
    other = shapes().of({"$ref": "#/$defs/B"}).member("other")
    assert other is not None and list(other.names) == ["next", "name"]
    assert shapes().of(NODE).member("other") is None


def test_a_cycle_is_a_shape_met_again() -> None:
    start = shapes().of(NODE)
    following = start.member("next")
    assert following is not None
    assert following.member("next") is following
    assert shapes().of({"$ref": "#/$defs/Loop"}).names == {}


@pytest.mark.parametrize(("branches", "hidden"), [(False, False), (True, True)], ids=["certain", "possible"])
@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "null"}, {"x-display": False}]},
        {"oneOf": [{"$ref": "#/$defs/Node"}, {"allOf": [{"x-display": False}]}]},
        {"if": {}, "then": {"x-display": False}},
        {"if": {}, "else": {"x-display": False}},
        {"dependentSchemas": {"a": {"x-display": False}}},
    ],
)
def test_branches_speak_only_where_they_are_asked(schema: Any, branches: bool, hidden: bool) -> None:
    assert shapes(branches).of(schema).hidden is hidden


@pytest.mark.parametrize("schema", [{"not": {"x-display": False}}, {"if": {"x-display": False}}, True, False])
def test_what_never_describes_a_value(schema: Any) -> None:
    assert not shapes(True).of(schema).hidden


def test_escaped_names() -> None:
    assert shapes().of({"$ref": "#/$defs/odd~1na~0me"}).says("title") == "odd"
    assert shapes().of({"$ref": "#/$defs/odd%7E1na~0me"}).says("title") == "odd"
    assert shapes().of({"$ref": "#/$defs/unknown"}).types is None


def test_patterns_describe_members() -> None:
    shape = shapes().of(
        {"patternProperties": {"^x-": {"x-display": False}}, "additionalProperties": {"type": "null"}}
    )
    hidden, other = shape.member("x-a"), shape.member("a")
    assert hidden is not None and hidden.hidden
    assert other is not None and other.types == ("null",)


def test_items() -> None:
    shape = shapes().of({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}})
    assert [item.types if item else None for item in map(shape.item, range(3))] == [
        ("string",),
        ("integer",),
        ("integer",),
    ]
    assert shapes().of({"items": False}).item(0) is None


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({}, None),
        ({"type": ["string", "null"]}, ("string", "null")),
        (
            {"type": ["string", "null"], "allOf": [{"type": ["null", "string", "integer"]}]},
            ("string", "null"),
        ),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, ()),
    ],
)
def test_types_are_what_all_parts_allow(schema: Any, types: object) -> None:
    assert shapes().of(schema).types == types


def test_sets_of_schemas_that_multiply_are_given_up() -> None:
    """The classic automaton for "the 20th letter from the end is b": a value's path selects one of 2^20 sets."""
    first, second = {"$ref": "#/$defs/0"}, {"$ref": "#/$defs/1"}
    definitions: dict[str, Any] = {
        "0": {"properties": {"a": first, "b": {"allOf": [first, second]}}},
        "20": {},
    }
    for index in range(1, 20):
        step = {"$ref": f"#/$defs/{index + 1}"}
        definitions[str(index)] = {"properties": {"a": step, "b": step}}
    start = Shapes(definitions, branches=False).of({"$ref": "#/$defs/0"})
    pending, seen = [start], {start}
    with pytest.raises(TooComplex):
        while pending:
            shape = pending.pop()
            for member in filter(None, (shape.member("a"), shape.member("b"))):
                if member not in seen:
                    seen.add(member)
                    pending.append(member)


def test_shapes_wear() -> None:
    every = shapes()
    assert not every.worn
    every.spend(MAX_WORK // 2 + 1)
    assert every.worn
