from __future__ import annotations

import tracemalloc

import pytest

from chalicelib.core import errors, strict_json


def rules(raw: bytes, max_bytes: int = 10_000_000) -> list[tuple[str, str]]:
    with pytest.raises(errors.Invalid) as caught:
        strict_json.parse(raw, max_bytes=max_bytes)
    assert caught.value.code == "json.invalid"
    return [(violation.pointer, violation.rule) for violation in caught.value.errors]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"null", None),
        (b' {"a": [1, -2.5, "\\u00e9", true]} ', {"a": [1, -2.5, "é", True]}),
        ('"ünï"'.encode(), "ünï"),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"18446744073709551615", 2**64 - 1),
        (b"-0", 0),
        (b"1e300", 1e300),
        (b'"[[[[[[{{{{"', "[[[[[[{{{{"),
        (rb'"\"[[[[\\"', '"[[[[\\'),
        (b"[" * 64 + b"]" * 64, None),
    ],
)
def test_good_documents_have_their_value(raw: bytes, value: object) -> None:
    got = strict_json.parse(raw, max_bytes=1000)
    if value is None and raw.startswith(b"["):
        assert strict_json.canonical(got) == raw
    else:
        assert got == value


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", [("", "json.syntax")]),
        (b"{} {}", [("", "json.syntax")]),
        (b"[1,]", [("", "json.syntax")]),
        (b"{'a': 1}", [("", "json.syntax")]),
        (b'"a\nb"', [("", "json.syntax")]),
        (b"01", [("", "json.syntax")]),
        (b"]" * 100, [("", "json.syntax")]),
        (b"\xef\xbb\xbf{}", [("", "json.encoding")]),
        (b'"\xff"', [("", "json.encoding")]),
        ('{"a": 1}'.encode("utf-16"), [("", "json.encoding")]),
        (b'"\\ud800"', [("", "json.encoding")]),
        (b'{"\\uDC00": 1}', [("", "json.encoding")]),
        (b'{"a": 1, "a": 2}', [("/a", "json.duplicate_key")]),
        (b'{"a": 1, "\\u0061": 1}', [("/a", "json.duplicate_key")]),
        (b'[{"b/~": {"x": 1, "x": 1}}]', [("/0/b~1~0/x", "json.duplicate_key")]),
        (
            b'{"a": NaN, "b": [Infinity, -Infinity]}',
            [("/a", "json.number"), ("/b/0", "json.number"), ("/b/1", "json.number")],
        ),
        (b"[1e999]", [("/0", "json.number")]),
        (b"18446744073709551616", [("", "json.number")]),
        (b"0." + b"1" * 200, [("", "json.number")]),
    ],
)
def test_every_refusal_names_its_place_and_rule(raw: bytes, expected: list[tuple[str, str]]) -> None:
    assert rules(raw) == expected


def test_all_violations_are_reported_together_but_boundedly() -> None:
    assert rules(b'{"a": NaN, "b": 1e999, "b": 1, "c": "\\ud800"}') == [
        ("/b", "json.duplicate_key"),
        ("/a", "json.number"),
        ("/c", "json.encoding"),
    ]
    assert len(rules(b"[" + b"NaN," * 5000 + b"NaN]")) == strict_json.MAX_REPORTED


def test_size_is_refused_before_anything_is_parsed() -> None:
    assert rules(b" " * 101, max_bytes=100) == [("", "json.size")]


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b"[" * 65 + b"]" * 65]
)
def test_deep_documents_are_refused_without_recursion(raw: bytes) -> None:
    assert rules(raw) == [("", "json.depth")]


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"9" * 5_000_000, "json.number"),
        (b'"' + b'\\"' * 2_000_000, "json.syntax"),
        (b"-" * 5_000_000, "json.syntax"),
        (b"{" + b",".join(b'"a":1' for _ in range(500_000)) + b"}", "json.duplicate_key"),
    ],
)
def test_costly_documents_end_in_memory_bounded_by_their_size(raw: bytes, rule: str) -> None:
    tracemalloc.start()
    try:
        assert rules(raw) == [("/a" if rule == "json.duplicate_key" else "", rule)]
        assert tracemalloc.get_traced_memory()[1] < 30 * len(raw)
    finally:
        tracemalloc.stop()


def test_canonical_is_one_spelling() -> None:
    assert strict_json.canonical({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.canonical(float("nan"))
