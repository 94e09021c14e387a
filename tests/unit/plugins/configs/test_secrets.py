"""Which values of a config are secret, and their forms at rest, in the clear and for people."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import HotplugError
from chalicelib.core.keys.secret_box import SecretBox
from chalicelib.plugins.configs.secrets import masked, opaque, revealed, sealed, secret_places

SECRET: dict[str, Any] = {"type": "string", "writeOnly": True}
PLAIN: dict[str, Any] = {"type": "string"}
PLACE = ("plugin_x_abc123", "01JCONFIG")


def box() -> SecretBox:
    return SecretBox(7, {1: b"k" * 32})


def no_box() -> SecretBox:
    raise AssertionError("a config without secrets needs no key")


@pytest.mark.parametrize(
    ("schema", "values", "places"),
    [
        ({"properties": {"a": SECRET, "b": PLAIN}}, {"a": "1", "b": "2"}, ["/a"]),
        ({"properties": {"a": {"format": "password"}}}, {"a": "1"}, ["/a"]),
        ({"properties": {"a": {"writeOnly": False}}}, {"a": "1"}, []),
        ({"properties": {"a/b": SECRET, "c~d": SECRET}}, {"a/b": "1", "c~d": "2"}, ["/a~1b", "/c~0d"]),
        ({"properties": {"deep": {"properties": {"a": SECRET}}}}, {"deep": {"a": "1", "b": 2}}, ["/deep/a"]),
        ({"properties": {"all": {"items": SECRET}}}, {"all": ["1", "2"]}, ["/all/0", "/all/1"]),
        (
            {"properties": {"t": {"prefixItems": [PLAIN, SECRET], "items": PLAIN}}},
            {"t": ["1", "2", "3"]},
            ["/t/1"],
        ),
        ({"properties": {"t": {"contains": SECRET}}}, {"t": ["1"]}, ["/t/0"]),
        ({"patternProperties": {"_key$": SECRET}}, {"api_key": "1", "key_id": "2"}, ["/api_key"]),
        ({"properties": {"a": PLAIN}, "additionalProperties": SECRET}, {"a": "1", "b": "2"}, ["/b"]),
        ({"unevaluatedProperties": SECRET}, {"b": "2"}, ["/b"]),
        ({"allOf": [{"properties": {"a": SECRET}}]}, {"a": "1"}, ["/a"]),
        ({"oneOf": [{"properties": {"a": PLAIN}}, {"properties": {"a": SECRET}}]}, {"a": "1"}, ["/a"]),
        ({"properties": {"a": {"anyOf": [SECRET, PLAIN]}}}, {"a": "1"}, ["/a"]),
        ({"if": {}, "then": {"properties": {"a": SECRET}}}, {"a": "1"}, ["/a"]),
        ({"else": {"properties": {"a": SECRET}}}, {"a": "1"}, ["/a"]),
        ({"dependentSchemas": {"b": {"properties": {"a": SECRET}}}}, {"a": "1"}, ["/a"]),
        ({"$defs": {"s": SECRET}, "properties": {"a": {"$ref": "#/$defs/s"}}}, {"a": "1"}, ["/a"]),
        ({"$defs": {"a b": SECRET}, "properties": {"a": {"$ref": "#/$defs/a%20b"}}}, {"a": "1"}, ["/a"]),
        (
            {"properties": {"child": {"$ref": "#"}, "a": SECRET}},
            {"child": {"child": {"a": "1"}, "a": "2"}},
            ["/child/child/a", "/child/a"],
        ),
        ({"properties": {"a": {"writeOnly": True, "properties": {"b": SECRET}}}}, {"a": {"b": "1"}}, ["/a"]),
        ({"writeOnly": True}, {"a": {"b": "1"}, "c": 2}, ["/a", "/c"]),
        ({"not": {"properties": {"a": SECRET}}}, {"a": "1"}, []),
        (True, {"a": "1"}, []),
        (None, {"a": "1"}, []),
    ],
)
def test_secret_places(schema: Any, values: dict[str, Any], places: list[str]) -> None:
    assert secret_places(schema, values) == places


def test_alternatives_that_multiply_with_the_depth_are_followed_once() -> None:
    branch = {"properties": {"x": {"$ref": "#/$defs/n"}}}
    schema = {"$defs": {"n": {"anyOf": [branch, dict(branch)]}}, "$ref": "#/$defs/n"}
    values: dict[str, Any] = {}
    for _ in range(60):
        values = {"x": values}
    # 2^60 branches would never end.
    assert secret_places(schema, values) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c/d", "~"]), JSON.filter(lambda value: value != "***")))
def test_what_is_sealed_comes_back_and_is_not_readable_at_rest(values: dict[str, Any]) -> None:
    schema = {"properties": {"a": SECRET, "c/d": SECRET}}
    items, problems = sealed(schema, values, PLACE, box)
    assert problems == []
    assert revealed(json.loads(json.dumps(items)), PLACE, box) == values
    for name in ("a", "c/d"):
        if name in values:
            assert items["values"][name] is None
            assert masked(items, schema)[name] == "***"
    assert {name: masked(items, schema)[name] for name in values if name in ("b", "~")} == {
        name: value for name, value in values.items() if name in ("b", "~")
    }


def test_a_config_without_secrets_needs_no_key() -> None:
    items, _ = sealed({"properties": {"a": SECRET}}, {"b": 1}, PLACE, no_box)
    assert revealed(items, PLACE, no_box) == {"b": 1}


def test_a_ciphertext_does_not_open_in_another_field_or_config() -> None:
    items, _ = sealed({"properties": {"a": SECRET}}, {"a": "s", "b": "t"}, PLACE, box)
    moved = {"values": items["values"], "secrets": {"/b": items["secrets"]["/a"]}}
    with pytest.raises(HotplugError, match="cannot be decrypted"):
        revealed(moved, PLACE, box)
    with pytest.raises(HotplugError, match="cannot be decrypted"):
        revealed(items, (PLACE[0], "01JANOTHER"), box)


def test_stars_keep_what_is_stored_at_the_same_place() -> None:
    schema = {"properties": {"keys": {"items": SECRET}, "url": PLAIN}}
    before, _ = sealed(schema, {"keys": ["one", "two"], "url": "x"}, PLACE, box)
    after, problems = sealed(schema, {"keys": ["new", "***"], "url": "y"}, PLACE, box, before)
    assert problems == []
    assert revealed(after, PLACE, box) == {"keys": ["new", "two"], "url": "y"}
    assert after["secrets"]["/keys/1"] == before["secrets"]["/keys/1"]


def test_stars_with_nothing_stored_are_refused_each() -> None:
    schema = {"properties": {"a": SECRET, "b": SECRET}}
    _, problems = sealed(schema, {"a": "***", "b": "***"}, PLACE, no_box)
    assert [(problem.pointer, problem.rule) for problem in problems] == [
        ("/configItems/a", "config.nothing_to_keep"),
        ("/configItems/b", "config.nothing_to_keep"),
    ]


def test_stars_are_a_value_where_nothing_is_secret() -> None:
    items, problems = sealed({}, {"a": "***"}, PLACE, no_box)
    assert (items["values"], problems) == ({"a": "***"}, [])


def test_a_secret_stays_one_when_the_schema_forgets_it() -> None:
    before, _ = sealed({"properties": {"a": SECRET}}, {"a": "s"}, PLACE, box)
    assert masked(before, {}) == {"a": "***"}
    after, problems = sealed({}, {"a": "***"}, PLACE, no_box, before)
    assert problems == []
    assert revealed(after, PLACE, box) == {"a": "s"}


def test_what_only_the_present_schema_calls_secret_is_hidden() -> None:
    items, _ = sealed({}, {"a": "s"}, PLACE, no_box)
    assert masked(items, {"properties": {"a": SECRET}}) == {"a": "***"}


def test_stars_inside_what_is_secret_as_a_whole_now_are_refused() -> None:
    before, _ = sealed({"properties": {"a": {"properties": {"b": SECRET}}}}, {"a": {"b": "s"}}, PLACE, box)
    whole = {"properties": {"a": {"writeOnly": True}}}
    _, problems = sealed(whole, {"a": {"b": "***"}}, PLACE, box, before)
    assert [problem.pointer for problem in problems] == ["/configItems/a/b"]


@pytest.mark.parametrize(
    ("value", "stand_in"),
    [("s", "***"), (5, 0), (1.5, 0), (True, False), (None, None), ([1], []), ({"k": 1}, {})],
)
def test_opaque_values_have_the_secrets_type(value: Any, stand_in: Any) -> None:
    items, _ = sealed({"properties": {"a": SECRET}}, {"a": value}, PLACE, box)
    assert opaque(items) == {"a": stand_in}
