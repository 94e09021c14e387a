"""`${VAR}` at every depth; what is missing is named, what it would have been is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.agents.loading.variables import MAX_CHARACTERS, resolve
from chalicelib.agents.spec import LoadError

ENVIRONMENT = {"A": "alpha", "B_2": "${A}", "EMPTY": "", "LONG": "x" * 10_000}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("${A}", "alpha"),
        ("<${A}${A}>", "<alphaalpha>"),
        ("${B_2}", "${A}"),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b\n$}", "a:-b\n$"),
        ("${A:-other}", "alpha"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $ {A} {A} $", "$A $ {A} {A} $"),
        ("", ""),
    ],
)
def test_a_text_has_its_variables_values(text: str, resolved: str) -> None:
    assert resolve({"x": text}, ENVIRONMENT) == {"x": resolved}


def test_every_depth_is_resolved_and_no_name() -> None:
    config = {"${A}": [{"x": ["${A}", 1, True, None, 1.5]}], "y": {"z": {"w": "${B_2}"}}}
    assert resolve(config, ENVIRONMENT) == {
        "${A}": [{"x": ["alpha", 1, True, None, 1.5]}],
        "y": {"z": {"w": "${A}"}},
    }
    assert config["y"] == {"z": {"w": "${B_2}"}}


def test_everything_missing_and_malformed_is_named_and_no_value_is() -> None:
    config = {"a": ["${NONE_2}", "${A}"], "b": {"c": "${NONE_1} ${NONE_2}"}, "d": ["${1}", "${A"], "e": "${}"}
    with pytest.raises(LoadError) as caught:
        resolve(config, ENVIRONMENT)
    assert caught.value.code == "agent.config"
    assert caught.value.detail == (
        "Its config cannot be resolved: NONE_1 is not set; NONE_2 is not set; "
        "/config/d/0 has a malformed ${…}; /config/d/1 has a malformed ${…}; /config/e has a malformed ${…}."
    )


def test_a_short_text_cannot_grow_without_bound() -> None:
    fits = {"x": "${LONG}" * (MAX_CHARACTERS // 10_000)}
    assert len(resolve(fits, ENVIRONMENT)["x"]) <= MAX_CHARACTERS
    with pytest.raises(LoadError, match=f"more than {MAX_CHARACTERS} characters"):
        resolve({"x": ["${LONG}" * 60, "${LONG}" * 60]}, ENVIRONMENT)


# Mostly what the resolver looks for.
TEXTS = st.text(st.sampled_from("${}A:-\n") | st.characters(), max_size=12)
JSON = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)


def escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


@settings(max_examples=60)
@given(st.dictionaries(TEXTS, JSON, max_size=3))
def test_whatever_is_escaped_comes_back(config: dict[str, Any]) -> None:
    assert resolve(escaped(config), {}) == config


@given(st.text())
def test_a_value_is_taken_as_it_is(value: str) -> None:
    assert resolve({"x": "${V}"}, {"V": value}) == {"x": value}
