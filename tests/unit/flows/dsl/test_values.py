from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Violation
from chalicelib.flows.dsl.declared import ANY, fits, schema_at
from chalicelib.flows.dsl.paths import parse_path
from chalicelib.flows.dsl.values import MISSING, LiteralError, conforms, convert_literal, default_of, project
from tests.flow_builders import declared

NUMBERS = declared("array", items=declared("integer"))
PERSON = declared("object", properties={"name": declared(), "age": declared("integer")}, required=["name"])


@pytest.mark.parametrize(
    ("content", "schema", "value"),
    [
        ("os.system('x')", declared(), "os.system('x')"),
        ("42", declared(), "42"),
        (42, declared(), "42"),
        ({"a": "é"}, declared(), '{"a":"é"}'),
        (True, declared(), "true"),
        ("42", declared("integer"), 42),
        (" 42 ", declared("integer"), 42),
        ("4e2", declared("integer"), 400),
        (3.0, declared("integer"), 3),
        ("1.5", declared("number"), 1.5),
        (2, declared("number"), 2),
        ("true", declared("boolean"), True),
        (False, declared("boolean"), False),
        ("[1, 2]", NUMBERS, [1, 2]),
        ({"name": "a"}, PERSON, {"name": "a"}),
        ('{"name": "王", "x": null}', PERSON, {"name": "王", "x": None}),
        (None, declared("integer"), 0),
        (None, declared("integer", default=7), 7),
        (None, declared("array", default="[1]"), [1]),
    ],
)
def test_literals_are_json(content: Any, schema: Any, value: Any) -> None:
    converted = convert_literal(content, schema)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("content", "schema"),
    [
        ("", declared("integer")),
        ("1 + 1", declared("integer")),
        ("0x10", declared("integer")),
        ("1_000", declared("integer")),
        ("01", declared("integer")),
        ("1.5", declared("integer")),
        (True, declared("integer")),
        ("٣", declared("integer")),
        ("9" * 5_000, declared("integer")),
        ("NaN", declared("number")),
        ("Infinity", declared("number")),
        ("1e999", declared("number")),
        ("True", declared("boolean")),
        (1, declared("boolean")),
        ("None", declared("object")),
        ("null", declared("object")),
        ("{'a': 1}", declared("object")),
        ('{"a": 1, "a": 2}', declared("object")),
        ("[1] + [2]", declared("array")),
        ("(1, 2)", declared("array")),
        ("[" * 100_000, declared("array")),
        ("\ud800", declared("array")),
        ([1, "2"], NUMBERS),
        ({"age": 1}, PERSON),
        ('{"name": 1}', PERSON),
    ],
    ids=repr,
)
def test_what_is_not_json_of_the_type_is_refused(content: Any, schema: Any) -> None:
    with pytest.raises(LiteralError):
        convert_literal(content, schema)


def test_a_refusal_does_not_repeat_the_content() -> None:
    with pytest.raises(LiteralError) as caught:
        convert_literal("hunter2", declared("integer"))
    assert str(caught.value) == "is no JSON, so no integer"


@pytest.mark.parametrize(
    ("kind", "value"),
    [("string", ""), ("integer", 0), ("number", 0), ("boolean", False), ("object", {}), ("array", [])],
)
def test_each_type_has_a_default(kind: str, value: Any) -> None:
    assert default_of(declared(kind)) == value


@pytest.mark.parametrize(
    "schema", [declared("array"), declared("array", default=[]), declared("object", default={"a": []})]
)
def test_a_default_is_a_copy(schema: Any) -> None:
    first = default_of(schema)
    (first["a"] if isinstance(first, dict) else first).append(1)
    assert default_of(schema) != first


ORDERS = {"orders": [{"id": 1, "lines": [{"n": 1}, {"n": 2}]}, {"lines": []}, 7], "o": {"a": {"b": None}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("o.a.b", None),
        ("o.a", {"b": None}),
        ("orders[0].id", 1),
        ("orders.id", [1, None, None]),
        ("orders.lines.n", [[1, 2], [], None]),
        ("orders.lines[0].n", [1, None, None]),
        ("orders[3]", MISSING),
        ("o.x", MISSING),
        ("o.a.b.c", MISSING),
        ("o[0]", MISSING),
    ],
)
def test_paths_project(path: str, value: Any) -> None:
    assert project(ORDERS, parse_path(path)) == value


def test_an_empty_path_is_the_value() -> None:
    assert project(7, ()) == 7
    assert repr(MISSING) == "MISSING"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"n": 1}, []),
        ({"n": 1, "p": {"name": "a", "more": 1}, "l": [1, 2.0]}, []),
        ({}, [("/n", "schema.required")]),
        ({"n": "1"}, [("/n", "schema.type")]),
        ({"n": True}, [("/n", "schema.type")]),
        ({"n": 1.5}, [("/n", "schema.type")]),
        ({"n": None}, [("/n", "schema.type")]),
        ({"n": 1, "a/b": 1}, [("/a~1b", "schema.additionalProperties")]),
        ({"n": 1, "p": {}, "l": [1, "2"]}, [("/p/name", "schema.required"), ("/l/1", "schema.type")]),
        ([], [("", "schema.type")]),
    ],
)
def test_values_conform_or_not(value: Any, found: list[tuple[str, str]]) -> None:
    schema = {
        "type": "object",
        "properties": {"n": declared("integer"), "p": PERSON, "l": NUMBERS},
        "required": ["n"],
        "additionalProperties": False,
    }
    assert [(one.pointer, one.rule) for one in conforms(value, schema)] == found


def test_misfits_are_bounded_and_do_not_repeat_the_value() -> None:
    found = conforms(["hunter2"] * 5_000, NUMBERS)
    assert len(found) == 100
    assert found[0] == Violation("/0", "schema.type", "is not an integer")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.sampled_from(["string", "integer", "number", "boolean"]).map(declared),
    lambda inner: st.one_of(
        inner.map(lambda item: declared("array", items=item)),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda all: declared("object", properties=all)
        ),
    ),
    max_leaves=5,
)


@given(JSON, SCHEMAS)
def test_what_is_converted_conforms(content: Any, schema: Any) -> None:
    try:
        value = convert_literal(content, schema)
    except LiteralError:
        return
    assert conforms(value, schema) == []


@given(JSON, SCHEMAS, st.lists(st.sampled_from(["a", "b", 0, 1]), max_size=4))
def test_a_value_is_of_the_type_that_its_path_promises(
    value: Any, schema: Any, path: list[str | int]
) -> None:
    promised = schema_at(schema, tuple(path))
    if conforms(value, schema):
        return
    found = project(value, tuple(path))
    if promised is None:
        # Only a value with more than its schema names can have something there; or a list that holds nothing.
        assert found is MISSING or isinstance(value, dict | list)
    elif promised is not ANY and found is not MISSING:
        assert (promised["type"] == "array") == isinstance(found, list) or promised["type"] != "array"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("name", declared()),
        ("nope", None),
        ("name.x", None),
        ("name[0]", None),
        ("age", declared("integer")),
    ],
)
def test_schemas_along_paths(path: str, found: Any) -> None:
    assert schema_at(PERSON, parse_path(path)) == found


def test_schemas_project_as_values_do() -> None:
    people = declared("array", items=PERSON)
    assert schema_at(people, ("name",)) == declared("array", items=declared())
    assert schema_at(people, (0, "name")) == declared()
    assert schema_at(people, ("nope",)) is None
    assert schema_at(declared("array", items=people), ("age",)) == declared(
        "array", items=declared("array", items=declared("integer"))
    )
    assert schema_at(declared("array"), ("x",)) == declared("array")
    assert schema_at(declared("array"), (0, "x")) == ANY
    assert schema_at(declared("object"), ("x", "y", 0)) == ANY


@pytest.mark.parametrize(
    ("given_type", "wanted", "fine"),
    [
        ("integer", "number", True),
        ("number", "integer", False),
        ("string", "string", True),
        (None, "array", True),
    ],
)
def test_types_fit(given_type: str | None, wanted: str, fine: bool) -> None:
    assert fits({"type": given_type} if given_type else {}, declared(wanted)) is fine
