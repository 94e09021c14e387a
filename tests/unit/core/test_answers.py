"""What Lambda carries of an answer, measured as its runtime client writes it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core import answers
from chalicelib.core.answers import MAX_ANSWER_BYTES, fits, fitting, text_bytes, wire_bytes

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def test_a_quotation_mark_within_a_text_takes_four_bytes() -> None:
    assert wire_bytes("") == len(r'"\"\""')
    assert wire_bytes('"' * 100) - wire_bytes("") == 400
    assert text_bytes('"') == 4


@pytest.mark.parametrize(("escapes", "bytes_each"), [(True, 12), (False, 4)])
def test_an_emoji_takes_what_the_runtime_client_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, escapes: bool, bytes_each: int
) -> None:
    monkeypatch.setattr(answers, "_ESCAPES", escapes)
    assert wire_bytes("😀" * 10) - wire_bytes("") == 10 * bytes_each


@given(JSON_VALUES)
def test_a_value_is_measured_as_it_is_written(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    envelope = json.dumps({"body": body}, ensure_ascii=sys.version_info < (3, 12))
    assert wire_bytes(value) == len(envelope.encode("utf-8", "surrogatepass")) - len('{"body": }')


def test_a_body_fits_up_to_the_limit() -> None:
    assert fits("x" * (MAX_ANSWER_BYTES - 2))
    assert not fits("x" * (MAX_ANSWER_BYTES - 1))
    assert not fits('"' * (MAX_ANSWER_BYTES // 2))


@given(st.lists(JSON_VALUES, max_size=20), st.integers(1, 400))
def test_a_page_holds_as_many_items_as_fit_and_one_at_least(items: list[Any], most: int) -> None:
    count = fitting(items, most)
    assert count >= min(1, len(items))
    assert count <= 1 or sum(wire_bytes(item) for item in items[:count]) <= most
    assert count == len(items) or sum(wire_bytes(item) for item in items[: count + 1]) > most
