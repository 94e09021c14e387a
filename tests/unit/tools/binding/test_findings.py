from __future__ import annotations

from typing import Any

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.tools.binding.findings import Findings, check_json


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**64) + 1,
        1.5,
        "",
        "é😀",
        [],
        {},
        {"a": [1, {"b": None}]},
        nested(64),
        ["x"] * 1_000_000,
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_json_passes(value: Any) -> None:
    found = Findings()
    assert check_json(value, "/body", found)
    assert not found


@pytest.mark.parametrize(
    ("value", "pointer", "rule"),
    [
        (float("nan"), "", "argument.number"),
        ([float("-inf")], "/0", "argument.number"),
        ({"a": 2**64}, "/a", "argument.number"),
        (10**5000, "", "argument.number"),
        ("\ud800", "", "argument.encoding"),
        ({"a/b": ["ok", "\udfff"]}, "/a~1b/1", "argument.encoding"),
        ({"\ud800": 1}, "", "argument.encoding"),
        ({1: 1}, "", "argument.encoding"),
        (b"x", "", "argument.json"),
        ({"a": {1, 2}}, "/a", "argument.json"),
        (nested(65), "/0" * 64, "argument.depth"),
        (nested(10_000), "/0" * 64, "argument.depth"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_is_no_json(value: Any, pointer: str, rule: str) -> None:
    found = Findings()
    assert not check_json(value, "", found)
    assert [(each.pointer, each.rule) for each in found.as_tuple()] == [(pointer, rule)]


def test_at_most_a_hundred_are_kept() -> None:
    found = Findings()
    check_json([float("nan")] * 100_000, "", found)
    assert len(found) == 100 and found.full


def test_the_same_is_said_once() -> None:
    found = Findings()
    found.add("/a", "argument.required", "is required")
    found.add("/a", "argument.required", "is required")
    assert len(found) == 1


def test_nothing_found_refuses_nothing() -> None:
    found = Findings()
    found.refuse()
    found.add("/a", "argument.required", "is required")
    with pytest.raises(Invalid) as caught:
        found.refuse()
    assert caught.value.code == "tool.invalid_arguments"
