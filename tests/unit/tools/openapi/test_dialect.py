from __future__ import annotations

import copy
from typing import Any

import pytest

from chalicelib.core.json_schema.schemas import check_schema, violations
from chalicelib.tools.openapi.dialect import Converter, definition_name, weigh
from tests.corpus.openapi_cases import document, with_schema

NULL = {"type": "null"}
PET = "/components/schemas/Pet"


def converted(schema: Any, version: str) -> Any:
    before = copy.deepcopy(schema)
    result = Converter(document(version)).convert(schema, "/x")
    assert schema == before, "the input was changed"
    assert result.warnings == ()
    return result.schema


# In 3.0 and 3.1: schema, its conversion.
BOTH: list[tuple[Any, Any]] = [
    ({}, {}),
    ({"type": "string", "title": "a", "description": "b", "default": "c", "deprecated": True},
     {"type": "string", "title": "a", "description": "b", "default": "c", "deprecated": True}),
    ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
    ({"type": "string", "nullable": False}, {"type": "string"}),
    ({"nullable": True}, {}),
    ({"nullable": True, "maxLength": 3}, {"maxLength": 3}),
    ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
    ({"type": "string", "enum": ["a", None], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
    ({"enum": ["a"], "description": "d", "nullable": True}, {"description": "d", "anyOf": [{"enum": ["a"]}, NULL]}),
    ({"allOf": [{"type": "string"}], "title": "t", "x-from": 1, "nullable": True},
     {"title": "t", "x-from": 1, "anyOf": [{"allOf": [{"type": "string"}]}, NULL]}),
    ({"type": "object", "oneOf": [{}], "nullable": True}, {"anyOf": [{"type": "object", "oneOf": [{}]}, NULL]}),
    ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
    ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
    ({"maximum": 1, "exclusiveMaximum": True, "minimum": 0}, {"minimum": 0, "exclusiveMaximum": 1}),
    ({"exclusiveMaximum": True}, {}),
    ({"example": 1}, {"examples": [1]}),
    ({"type": "string", "format": "binary"}, {"type": "string", "format": "binary"}),
    ({"type": "string", "format": "byte", "readOnly": True}, {"type": "string", "format": "byte", "readOnly": True}),
    ({"writeOnly": True, "x-display": False, "x-other": 1, "xml": {}, "externalDocs": {}, "discriminator": {}},
     {"writeOnly": True, "x-display": False}),
    ({"required": ["a", "b", "a"]}, {"required": ["a", "b"]}),
    ({"type": "array", "items": {"type": "integer", "nullable": True}},
     {"type": "array", "items": {"type": ["integer", "null"]}}),
    ({"properties": {"nullable": {"nullable": True, "type": "string"}, "$ref": {"type": "string"}}},
     {"properties": {"nullable": {"type": ["string", "null"]}, "$ref": {"type": "string"}}}),
    ({"additionalProperties": False}, {"additionalProperties": False}),
    ({"additionalProperties": {"not": {"nullable": True, "type": "string"}}},
     {"additionalProperties": {"not": {"type": ["string", "null"]}}}),
    ({"default": {"nullable": True, "$ref": "x"}, "enum": [{"example": 1}]},
     {"default": {"nullable": True, "$ref": "x"}, "enum": [{"example": 1}]}),
    ({"$ref": "#/components/schemas/Pet"}, {"$ref": "#/$defs/Pet"}),
    ({"$ref": "#/components/schemas/Pet", "nullable": True}, {"anyOf": [{"$ref": "#/$defs/Pet"}, NULL]}),
    ({"$ref": "#/components/schemas/%50et"}, {"$ref": "#/$defs/Pet"}),
]  # fmt: skip
ONLY_30: list[tuple[Any, Any]] = [
    ({"$ref": "#/components/schemas/Pet", "description": "ignored", "maxLength": 1}, {"$ref": "#/$defs/Pet"}),
]
ONLY_31: list[tuple[Any, Any]] = [
    (True, True),
    (False, False),
    ({"$ref": "#/components/schemas/Pet", "description": "kept", "maxLength": 1},
     {"$ref": "#/$defs/Pet", "description": "kept", "maxLength": 1}),
    ({"type": ["string", "null"], "const": "a"}, {"type": ["string", "null"], "const": "a"}),
    ({"type": "string", "const": "a", "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
    ({"type": ["string", "null"], "nullable": True}, {"type": ["string", "null"]}),
    ({"exclusiveMinimum": 3, "minimum": 1}, {"exclusiveMinimum": 3, "minimum": 1}),
    ({"examples": [1], "example": 2}, {"examples": [1]}),
    ({"$id": "https://a.example/x", "$anchor": "a", "$dynamicAnchor": "b", "$comment": "c", "$schema": "d",
      "$defs": {}}, {}),
    ({"prefixItems": [{"example": 1}], "items": False, "unevaluatedItems": False},
     {"prefixItems": [{"examples": [1]}], "items": False, "unevaluatedItems": False}),
    ({"if": {"nullable": True, "type": "string"}, "then": True, "else": False, "dependentSchemas": {"a": {}},
      "dependentRequired": {"a": ["b"]}, "propertyNames": {}, "contains": {}, "minContains": 2,
      "unevaluatedProperties": False, "contentEncoding": "base64", "contentMediaType": "image/png",
      "contentSchema": {"example": 1}},
     {"if": {"type": ["string", "null"]}, "then": True, "else": False, "dependentSchemas": {"a": {}},
      "dependentRequired": {"a": ["b"]}, "propertyNames": {}, "contains": {}, "minContains": 2,
      "unevaluatedProperties": False, "contentEncoding": "base64", "contentMediaType": "image/png",
      "contentSchema": {"examples": [1]}}),
    ({"patternProperties": {"^a": {"example": 1}}, "additionalProperties": False},
     {"patternProperties": {"^a": {"examples": [1]}}, "additionalProperties": False}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "schema", "expected"),
    [("3.0.3", *pair) for pair in BOTH + ONLY_30] + [("3.1.0", *pair) for pair in BOTH + ONLY_31],
)
def test_a_schema_becomes_draft_2020_12(version: str, schema: Any, expected: Any) -> None:
    result = converted(schema, version)
    assert result == expected
    if isinstance(result, dict):
        assert check_schema({**result, "$defs": {"Pet": {}}}) == []


@pytest.mark.parametrize(
    ("schema", "good", "wrong"),
    [
        ({"type": "string", "enum": ["a"], "nullable": True}, ["a", None], ["b", 1]),
        ({"allOf": [{"type": "string"}], "nullable": True}, ["a", None], [1]),
        ({"$ref": "#/components/schemas/Pet", "nullable": True}, [{"id": 1}, {"id": None}, None], [{}, "a"]),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True}, [1, None], [0, "1"]),
    ],
)
def test_or_null_means_or_null(schema: Any, good: list[Any], wrong: list[Any]) -> None:
    pet = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "nullable": True}}}
    converter = Converter(with_schema(pet, "3.0.3"))
    result = converter.convert(schema, "/x")
    definitions, _ = converter.close([result])
    closed = {**result.schema, "$defs": definitions} if isinstance(result.schema, dict) else True
    assert [violations(closed, value) for value in good] == [[]] * len(good)
    assert all(violations(closed, value) for value in wrong)


LOOKAHEAD = "(?=a)b"


@pytest.mark.parametrize(
    ("schema", "expected", "warning"),
    [
        ({"pattern": LOOKAHEAD, "maxLength": 3}, {"maxLength": 3}, "/x/pattern: the pattern is not enforced: it "),
        ({"pattern": "a" * 1001}, {}, "/x/pattern: the pattern is not enforced: it is longer"),
        ({"patternProperties": {LOOKAHEAD: {}, "^b": {}}, "additionalProperties": False},
         {"patternProperties": {"^b": {}}}, "/x/patternProperties: the pattern is not enforced: it "),
        ({"$dynamicRef": "#a"}, {}, "/x: $dynamicRef is not enforced"),
        ({"items": {"$recursiveRef": "#"}}, {"items": {}}, "/x/items: $recursiveRef is not enforced"),
        ({"oneOf": []}, {}, "/x: oneOf is not enforced: it is empty"),
        ({"enum": []}, {}, "/x: enum is not enforced: it is empty"),
        ({"$ref": "https://a.example"}, {}, "/x: refers out of the document"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_left_out_and_told(schema: Any, expected: Any, warning: str) -> None:
    result = Converter(document()).convert(schema, "/x")
    assert result.schema == expected
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith(warning)


def test_unevaluated_properties_are_not_enforced_beside_patterns_anywhere() -> None:
    # The validator library matches them by backtracking: `(a+)+$` would take for ever.
    value = with_schema({"patternProperties": {"^(a+)+$": {}}})
    result = Converter(value).convert({"unevaluatedProperties": False}, "/x")
    assert result.schema == {}
    assert result.warnings == (
        "/x: unevaluatedProperties is not enforced: the document has patternProperties",
    )


def test_definitions_are_closed_named_and_shared() -> None:
    # GIVEN schemas that refer to each other in a circle, to a place within another and to one of the same last name
    value = document(
        paths={"/a": {"get": {"responses": {"200": {"description": "", "content": {
            "text/plain": {"schema": {"$ref": "#/components/schemas/Tag"}}}}}}}},
        components={"schemas": {
            "Pet": {"properties": {"tag": {"$ref": "#/components/schemas/Tag"}, "name": {"type": "string"}}},
            "Tag": {"properties": {"pet": {"$ref": "#/components/schemas/Pet"},
                                   "name": {"$ref": "#/components/schemas/Pet/properties/name"}}},
            "Other": {"type": "integer"},
        }},
    )  # fmt: skip
    converter = Converter(value)
    first = converter.convert({"$ref": "#/components/schemas/Pet"}, "/x")
    place = "#/paths/~1a/get/responses/200/content/text~1plain/schema"
    second = converter.convert({"items": {"$ref": place}}, "/y")
    # WHEN both are closed
    definitions, warnings = converter.close([first])
    others, _ = converter.close([second])
    # THEN each has what it reaches and nothing else, under names that cannot clash, and shares the objects
    inner = definition_name("/components/schemas/Pet/properties/name")
    assert list(definitions) == ["Pet", "Tag", inner]
    assert set(others) == {"Pet", "Tag", inner, definition_name(place[1:])}
    assert all(others[name] is definitions[name] for name in definitions)
    assert warnings == ()
    assert converter.weight == sum(map(weigh, others.values()))
    assert check_schema({"$ref": "#/$defs/Pet", "$defs": definitions}) == []
    assert check_schema({**dict(second.schema), "$defs": others}) == []  # type: ignore[arg-type]


def test_names_of_definitions() -> None:
    assert definition_name(PET) == "Pet"
    assert definition_name("/components/schemas/a.b-c_1") == "a.b-c_1"
    places = [
        "/components/schemas/Pet/items",
        "/components/schemas/Pet~1items",
        "/paths/~1a~0/get",
        "/paths/~1a/0/get",
    ]
    names = [definition_name(place) for place in places]
    assert len(set(names)) == len(names)
    assert all(":" in name for name in names), "a component could have this name"
    assert names[0].startswith("components-schemas-Pet-items:")


def test_warnings_of_definitions_are_told_once() -> None:
    value = with_schema({"pattern": LOOKAHEAD})
    converter = Converter(value)
    both = [converter.convert({"$ref": f"#{PET}"}, place) for place in ("/x", "/y")]
    assert len(converter.close(both)[1]) == 1


def test_a_reference_to_nothing_takes_anything_and_says_so() -> None:
    converter = Converter(document())
    definitions, warnings = converter.close([converter.convert({"$ref": "#/components/schemas/None"}, "/x")])
    assert definitions == {"None": True}
    assert warnings == ("/components/schemas/None: is not there, so anything is taken",)
