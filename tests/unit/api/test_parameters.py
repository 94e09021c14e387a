from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.api.parameters import PAGE, PATH, check_declared, path_parameters, query_parameters
from chalicelib.core.errors import BadRequest, NotFound

GOOD = {
    "aliasId": "acme-1",
    "credentialId": "9223372036854775807",
    "pluginId": "plugin_notify_abc123",
    "installId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "configId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "executionId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "version": "1.2.3-rc.1+build",
    "name": "llm-key",
    "toolId": "tool@01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "serverId": "mcp@01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "toolName": "repo.list:all",
    "scheme": "api-key",
    "flowId": "9223372036854775807",
    "nodeId": "text-joiner::1-a",
    "runId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "job": "prune_log",
    "agentName": "common_qa",
    "threadId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "moveId": "01J9Z3NDEKTSV4RRFFQ69G5FAV",
    "table": "agentflow_shared_conversation_history",
}
QUERY: dict[str, Any] = PAGE | {
    "state": {"type": "string", "enum": ["on", "off"]},
    "word": {"type": "string", "pattern": "^[a-z]+$"},
    "deep": {"type": "boolean"},
}


def test_every_path_parameter_has_an_example_here() -> None:
    assert GOOD.keys() == PATH.keys()


@pytest.mark.parametrize("name", PATH)
def test_a_good_id_is_decoded_and_passed(name: str) -> None:
    encoded = "".join(f"%{ord(character):02x}" for character in GOOD[name])
    assert path_parameters({name: GOOD[name]}) == path_parameters({name: encoded}) == {name: GOOD[name]}


@pytest.mark.parametrize("name", PATH)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        ".%2e",
        "%2e%2e%2f",
        "a%2fb",
        "a%5cb",
        "a%00",
        "a%0a",
        "%0aa",
        "%ff",
        "%c0%ae",
        "ａ",
        "a b",
        "x" * 300,
        "%",
    ],
)
def test_a_hostile_id_is_not_found(name: str, text: str) -> None:
    with pytest.raises(NotFound):
        path_parameters({name: text})


@pytest.mark.parametrize("name", PATH)
@pytest.mark.parametrize("tail", ["%0A", "%00", "%2F..", "%2F", "\n"])
def test_nothing_may_follow_a_good_id(name: str, tail: str) -> None:
    with pytest.raises(NotFound):
        path_parameters({name: GOOD[name] + tail})


def test_a_number_that_no_column_holds_is_not_found() -> None:
    with pytest.raises(NotFound):
        path_parameters({"credentialId": "9223372036854775808"})


@given(st.text(max_size=40), st.sampled_from(sorted(PATH)))
def test_no_path_parameter_lets_a_separator_or_a_control_character_through(text: str, name: str) -> None:
    try:
        value = path_parameters({name: quote(text, safe="")})[name]
    except NotFound:
        return
    assert not set(value) & set("/\\\0\r\n\t %")
    assert value not in (".", "..")


def test_values_are_typed_and_defaults_filled_in() -> None:
    given_ = {"limit": ["5"], "state": ["on"], "deep": ["true"]}
    assert query_parameters(given_, QUERY) == {"limit": 5, "state": "on", "deep": True}
    assert query_parameters(None, QUERY) == {"limit": 30}


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("limit", "0", "schema.minimum"),
        ("limit", "101", "schema.maximum"),
        ("limit", "ten", "schema.type"),
        ("limit", "", "schema.type"),
        ("limit", "1.0", "schema.type"),
        ("limit", "٣", "schema.type"),
        ("limit", "1" * 19, "schema.type"),
        ("limit", "true", "schema.type"),
        ("cursor", "", "schema.minLength"),
        ("cursor", "a" * 1025, "schema.maxLength"),
        ("state", "maybe", "schema.enum"),
        ("word", "a1", "schema.pattern"),
        ("word", "a\n", "schema.pattern"),
        ("deep", "1", "schema.type"),
        ("other", "1", "query.unknown"),
    ],
)
def test_a_value_that_does_not_hold_names_its_rule(name: str, text: str, rule: str) -> None:
    with pytest.raises(BadRequest) as refused:
        query_parameters({name: [text]}, QUERY)
    assert [(error.pointer, error.rule) for error in refused.value.errors] == [(f"/query/{name}", rule)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("limit", "101", "is more than 100"),
        ("limit", "ten", 'is not of type "integer"'),
        ("state", "maybe", 'is none of ["on","off"]'),
    ],
)
def test_a_violation_is_told_in_the_words_that_bodies_have(name: str, text: str, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        query_parameters({name: [text]}, QUERY)
    assert [error.message for error in refused.value.errors] == [message]


def test_all_violations_are_reported_at_once() -> None:
    with pytest.raises(BadRequest) as refused:
        query_parameters({"limit": ["0"], "a/b~c": ["1"], "word": ["a", "b"]}, QUERY)
    assert [(error.pointer, error.rule) for error in refused.value.errors] == [
        ("/query/limit", "schema.minimum"),
        ("/query/a~1b~0c", "query.unknown"),
        ("/query/word", "query.repeated"),
    ]


@pytest.mark.parametrize("schema", [{"type": "array"}, {"type": "string", "format": "date"}, {"minimum": 1}])
def test_a_rule_that_would_not_be_enforced_cannot_be_declared(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="query parameter x"):
        check_declared({"x": schema})
