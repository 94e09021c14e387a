from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.json_schema import schemas
from chalicelib.core.json_schema.check import MAX_REFUSED_PATTERNS
from chalicelib.core.json_schema.schemas import check_schema, violations

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def nested(depth: int, **leaf: Any) -> dict[str, Any]:
    schema: dict[str, Any] = leaf
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def doubling(depth: int) -> dict[str, Any]:
    """Billion laughs: each definition applies the next one twice."""
    names = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**names, f"d{depth}": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        False,
        {},
        {
            "$schema": DIALECT,
            "$id": "https://example.com/config",
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "null"}},
        },
        {
            "type": "object",
            "properties": {"child": {"$ref": "#"}, "list": {"items": {"$ref": "#/properties/child"}}},
        },
        {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}, "$id": {}, "$schema": {}}},
        {"const": {"$ref": "https://example.com/x"}, "default": {"pattern": "("}, "examples": [{"$id": 1}]},
        {"definitions": {"a/b~c d": {}}, "$ref": "#/definitions/a~1b~0c%20d"},
        {"x-unknown": {"$ref": "https://example.com"}, "format": "unknown-format"},
        {"patternProperties": {"^x-": {"pattern": "^[a-z]+(-[a-z]+)*$"}}, "additionalProperties": False},
        nested(30),
        doubling(6),
        {"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]},
    ],
)
def test_good_schemas(schema: Any) -> None:
    assert check_schema(schema) == []


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ([], [("/s", "invalid")]),
        ("x", [("/s", "invalid")]),
        ({"type": "strnig"}, [("/s/type", "invalid")]),
        (
            {"minLength": -1, "properties": {"a/b": {"required": "a"}}},
            [("/s/minLength", "invalid"), ("/s/properties/a~1b/required", "invalid")],
        ),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, [("/s/$schema", "dialect")]),
        ({"properties": {"a": {"$schema": DIALECT}}}, [("/s/properties/a/$schema", "dialect")]),
        ({"items": {"$id": "https://example.com/x"}}, [("/s/items/$id", "id")]),
        ({"$anchor": "a"}, [("/s/$anchor", "unsupported")]),
        ({"$dynamicRef": "#a"}, [("/s/$dynamicRef", "unsupported")]),
        (
            {"patternProperties": {"^a": {}}, "allOf": [{"unevaluatedProperties": False}]},
            [("/s", "unsupported")],
        ),
        ({"$ref": "https://example.com/schema"}, [("/s/$ref", "remote_ref")]),
        ({"items": {"$ref": "file:///etc/passwd"}}, [("/s/items/$ref", "remote_ref")]),
        ({"$ref": "other.json#/a"}, [("/s/$ref", "remote_ref")]),
        ({"$ref": "#anchor"}, [("/s/$ref", "remote_ref")]),
        ({"$ref": "#/$defs/missing"}, [("/s/$ref", "dangling_ref")]),
        ({"$ref": "#/default", "default": {"pattern": "("}}, [("/s/$ref", "dangling_ref")]),
        ({"$ref": "#"}, [("/s", "ref_loop")]),
        ({"anyOf": [{"type": "null"}, {"not": {"$ref": "#"}}]}, [("/s", "ref_loop")]),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"if": {"$ref": "#/$defs/a"}}}},
            [("/s/$defs/b", "ref_loop")],
        ),
        (doubling(20), [("/s", "cost")]),
        ({"pattern": "("}, [("/s/pattern", "pattern")]),
        (
            {"properties": {"a": {"pattern": "(?=a)"}}, "patternProperties": {"\\1": {}}},
            [("/s/properties/a/pattern", "pattern"), ("/s/patternProperties/\\1", "pattern")],
        ),
        (nested(32), [("/s", "too_large")]),
        (nested(5_000), [("/s", "too_large")]),
        ({"description": "x" * 140_000}, [("/s", "too_large")]),
        ({"anyOf": [True] * 2_001}, [("/s", "too_large")]),
    ],
)
def test_bad_schemas_name_every_place(schema: Any, expected: list[tuple[str, str]]) -> None:
    found = sorted((v.pointer, v.rule) for v in check_schema(schema, "/s"))
    if expected == [("/s", "ref_loop")] or "ref_loop" in str(expected) or "cost" in str(expected):
        assert [rule for _, rule in found] == [f"schema.{rule}" for _, rule in expected]
    else:
        assert found == sorted((pointer, f"schema.{rule}") for pointer, rule in expected)


def test_many_faults_are_reported_boundedly() -> None:
    assert len(check_schema({"properties": {str(i): {"type": 1} for i in range(500)}})) == 100


CONFIG = {
    "$schema": DIALECT,
    "type": "object",
    "properties": {
        "url": {"type": "string", "format": "uri", "maxLength": 20},
        "count": {"$ref": "#/$defs/count"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "a/b": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
    "required": ["url", "count"],
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 0}},
}


def test_all_violations_of_a_value_have_pointer_rule_and_a_message_without_the_value() -> None:
    value = {"count": -7, "tags": ["a", "secret-1", "a"], "a/b": {}, "secret~key": 1}
    found = violations(CONFIG, value, "/config")
    assert sorted((v.pointer, v.rule) for v in found) == [
        ("/config", "schema.required"),
        ("/config/a~1b", "schema.required"),
        ("/config/count", "schema.minimum"),
        ("/config/secret~0key", "schema.additionalProperties"),
        ("/config/tags", "schema.uniqueItems"),
        ("/config/tags/1", "schema.enum"),
    ]
    assert all(v.message and "secret" not in v.message and "-7" not in v.message for v in found)
    assert violations(CONFIG, {"url": "https://a.b", "count": 1.0, "tags": [], "a/b": {"x": 1}}) == []


def test_the_root_is_judged_by_our_rules_also_when_reached_by_reference() -> None:
    schema = {"$schema": DIALECT, "properties": {"child": {"$ref": "#"}, "x": {"pattern": "^a$"}}}
    assert [v.pointer for v in violations(schema, {"child": {"child": {"x": "a\n"}}})] == ["/child/child/x"]


@pytest.mark.parametrize(
    ("schema", "value", "rules"),
    [
        (CONFIG, {}, []),
        (CONFIG, {"a/b": {}}, []),
        (CONFIG, {"a/b": {"x": "no"}, "other": 1}, ["additionalProperties", "type"]),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, []),
        ({"anyOf": [{"required": ["a"]}, {"properties": {"c": {"const": 1}}}]}, {"c": 2}, []),
        ({"anyOf": [{"type": "string"}, {"properties": {"c": {"const": 1}}}]}, {"c": 2}, ["anyOf"]),
        ({"oneOf": [True, True]}, {}, ["oneOf"]),
        ({"not": {"required": ["a"]}}, {}, []),
        ({"if": {"required": ["a"]}, "then": False, "else": {"minProperties": 3}}, {"b": 1}, []),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, []),
    ],
)
def test_a_partial_value_may_lack_members_but_not_be_wrong(schema: Any, value: Any, rules: list[str]) -> None:
    assert sorted(v.rule for v in violations(schema, value, partial=True)) == [
        f"schema.{rule}" for rule in rules
    ]


@pytest.mark.parametrize(
    ("schema", "value", "rule"),
    [
        ({"type": "integer"}, True, "type"),
        ({"type": "integer"}, 1.5, "type"),
        ({"type": "integer"}, 2.0, None),
        ({"enum": [1]}, True, "enum"),
        ({"const": {"a": [1]}}, {"a": [1.0]}, None),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}, None, 0, False], None),
        ({"uniqueItems": True}, [{"a": [1, 2]}, {"a": [1.0, 2]}], "uniqueItems"),
        ({"uniqueItems": False}, [1, 1], None),
        ({"multipleOf": 0.01}, 19.99, None),
        ({"multipleOf": 0.01}, 19.995, "multipleOf"),
        ({"multipleOf": 2}, True, None),
        ({"multipleOf": 1e-308}, 1e308, None),
        ({"pattern": "^\\d+$"}, "12\n", "pattern"),
        ({"pattern": "^\\d+$"}, 12, None),
        (
            {"patternProperties": {"^x": {"type": "null"}}, "additionalProperties": {"type": "string"}},
            {"x1": None, "y": "s"},
            None,
        ),
        (
            {"patternProperties": {"^x": {"type": "null"}}, "additionalProperties": {"type": "string"}},
            {"x1": None, "y": 1},
            "type",
        ),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"x1": 1}, "type"),
        ({"propertyNames": {"pattern": "^[a-z]$"}}, {"A": 1}, "pattern"),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a", 1], "items"),
        ({"properties": {"a": False}}, {"a": 1}, "false"),
        (
            {"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]},
            {"a": 1, "b": 2},
            "unevaluatedProperties",
        ),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, "required"),
        ({"contains": {"const": 1}, "minContains": 2}, [1, 2], "minContains"),
        ({"if": {"const": 1}, "then": {"const": 2}}, 1, "const"),
        (False, 1, "false"),
    ],
)
def test_keywords_mean_what_the_draft_says(schema: Any, value: Any, rule: str | None) -> None:
    assert check_schema(schema) == []
    assert [v.rule for v in violations(schema, value)] == ([f"schema.{rule}"] if rule else [])


FORMATS: dict[str, tuple[list[str], list[str]]] = {
    "date": (["2024-02-29"], ["2023-02-29", "2024-2-9", "20240229", "2024-W01-1", "٢٠٢٤-01-01"]),
    "time": (["23:59:60Z", "00:00:00.5+02:00"], ["24:00:00Z", "12:00:00", "12:00Z"]),
    "date-time": (
        ["2024-02-29T12:00:00Z", "2024-02-29t12:00:00.123456-05:30"],
        ["2024-02-29", "2024-02-30T12:00:00Z"],
    ),
    "duration": (["P1Y2M3DT4H5M6S", "PT1M", "P2W"], ["P", "PT", "1D", "P1DT"]),
    "email": (["a.b+c@example.com"], ["a@", "@b", "a b@c.d", "a..b@c.d", "a@-b.c"]),
    "hostname": (
        ["localhost", "a-b.example.com"],
        ["", "a_b", "-a", "a..b", "a" * 64, "exämple.com", "a.b."],
    ),
    "ipv4": (["127.0.0.1"], ["127.0.0.256", "127.1", "0127.0.0.1"]),
    "ipv6": (["::1", "2001:db8::1"], ["1::2::3", "fe80::1%eth0"]),
    "uri": (
        ["https://a.b/c?d=e#f", "urn:x:y", "http://[::1]:8080/"],
        ["/a", "http://a b", "http://a:99999/", "a%zz:"],
    ),
    "uri-reference": (["/a/b?c", "#x", ""], ["a b", "%"]),
    "uuid": (["550e8400-e29b-41d4-a716-446655440000"], ["550e8400e29b41d4a716446655440000", "x"]),
    "regex": (["^a+$"], ["(", "(?=a)"]),
    "json-pointer": (["", "/a~1b/0"], ["a", "/~2"]),
    "password": (["anything"], []),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    good, bad = FORMATS[name]
    assert [text for text in good + bad if violations({"format": name}, text)] == bad
    assert violations({"format": name}, 1) == []


def branching() -> dict[str, Any]:
    """Two branches a level: 2^60 on a value of 60 levels, though each level applies but a few subschemas."""
    step = {"properties": {"x": {"$ref": "#"}}}
    return {"allOf": [step, step]}


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"x": value}
    return value


def test_a_bad_member_name_is_pointed_at() -> None:
    found = violations({"propertyNames": {"pattern": "^[a-z]$"}}, {"a": 1, "B/": 2}, "/x")
    assert [(v.pointer, v.rule) for v in found] == [("/x/B~1", "schema.pattern")]


def test_a_schema_that_multiplies_with_depth_ends_at_its_budget() -> None:
    assert check_schema(branching()) == []
    assert violations(branching(), deep(5)) == []
    assert [v.rule for v in violations(branching(), deep(60))] == ["schema.budget"]


def test_a_value_of_64_levels_can_be_checked_and_one_of_1000_is_refused() -> None:
    schema = {"properties": {"x": {"$ref": "#"}}, "additionalProperties": False}
    assert violations(schema, deep(63)) == []
    assert [v.rule for v in violations(schema, deep(1000))] == ["schema.depth"]


def test_patterns_and_messages_are_paid_from_the_budget() -> None:
    hard = {"items": {"pattern": "^(a|b)*a(a|b){500}$"}}
    assert [v.rule for v in violations(hard, ["ab" * 5000] * 1000)] == ["schema.budget"]
    echo = {"anyOf": [{"type": "null"}] * 900}
    assert [v.rule for v in violations(echo, ["x" * 1_000_000])] == ["schema.budget"]


def test_violations_are_bounded_and_unique_items_is_linear() -> None:
    assert len(violations({"items": {"type": "null"}}, [1] * 5000)) == 100
    assert violations({"uniqueItems": True}, [{"a": i} for i in range(50_000)]) == []


def test_nothing_is_fetched_even_by_an_unchecked_schema(tmp_path: Path) -> None:
    import referencing.exceptions

    (tmp_path / "schema.json").write_text("{}")
    with pytest.raises(referencing.exceptions.Unresolvable):
        violations({"$ref": (tmp_path / "schema.json").as_uri()}, 1)


def test_compiled_schemas_are_kept_boundedly() -> None:
    first = schemas.compile_schema({"type": "null", "title": "first"})
    assert schemas.compile_schema({"title": "first", "type": "null"}) is first
    for i in range(schemas._MAX_COMPILED):
        schemas.compile_schema({"title": str(i)})
    assert len(schemas._compiled) == schemas._MAX_COMPILED
    assert schemas.compile_schema({"type": "null", "title": "first"}) is not first


_ENUM: dict[str, Any] = {"enum": [[number] * 3 for number in range(3_900)]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        # Each was within the budget, and took from 4 s to 2 minutes.
        ({"items": {"allOf": [{"const": list(range(10_000))}] * 2}}, [list(range(10_000))] * 400),
        ({"unevaluatedItems": True, "contains": {"const": 1}}, [1] * 100_000),
        ({"unevaluatedProperties": True}, {str(number): 1 for number in range(60_000)}),
        ({"items": {"properties": {f"x{n}": True for n in range(1_900)}}}, [{}] * 100_000),
        ({"items": {"allOf": [{"uniqueItems": True}] * 400}}, [list(range(10_000))] * 20),
    ],
    ids=["const", "unevaluatedItems", "unevaluatedProperties", "properties", "uniqueItems"],
)
def test_what_a_step_costs_grows_with_what_it_looks_at(schema: dict[str, Any], value: Any) -> None:
    assert [problem.rule for problem in violations(schema, value)] == ["schema.budget"]


def test_an_enum_is_looked_up_and_not_searched() -> None:
    """20,000 values against 3,900 lists, one by one: two minutes, for a request of a third of a megabyte."""
    schema = {"items": _ENUM}

    assert violations(schema, [[3_899] * 3] * 20_000) == []
    assert [problem.rule for problem in violations(schema, [[3_899] * 4])] == ["schema.enum"]


@pytest.mark.parametrize("keyword", ["enum", "const"])
def test_values_are_equal_as_json_calls_them_equal(keyword: str) -> None:
    def allows(expected: Any, value: Any) -> bool:
        return not violations({keyword: [expected] if keyword == "enum" else expected}, value)

    assert allows(1, 1.0) and allows([1], [1.0]) and allows({"a": [0]}, {"a": [0.0]})
    assert not allows(1, True) and not allows([0], [False]) and not allows("1", 1) and not allows([], {})
    assert allows(None, None) and not allows(None, 0) and allows({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_data_that_looks_like_an_enum_stays_data() -> None:
    schema = {"default": {"enum": [1, [2]]}, "const": {"enum": [1, [2]]}}

    assert violations(schema, {"enum": [1, [2]]}) == []
    assert violations(schema, {"enum": [1, [3]]}) != []


def test_patterns_that_are_refused_are_not_tried_without_end() -> None:
    """500 patterns of 10 kB kept a request busy for 10 s: building one that is too large is what costs."""
    schema = {"properties": {f"p{number}": {"pattern": "(a|b|c){1000}"} for number in range(500)}}

    assert len(check_schema(schema)) == MAX_REFUSED_PATTERNS
