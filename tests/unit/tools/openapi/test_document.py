from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core import errors
from chalicelib.tools.openapi.document import parse_document
from chalicelib.tools.openapi.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)  # fmt: skip


def refused(source: Any) -> list[tuple[str, str]]:
    with pytest.raises(errors.Invalid) as caught:
        parse_document(source)
    assert caught.value.code == "tool.invalid_document"
    return [(one.pointer, one.rule) for one in caught.value.errors]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5, "é", true, null]}', {"a": [1, -2.5, "é", True, None]}),
        ("\n  {}", {}),
        ("a: 1", {"a": 1}),
        ("---\na: 1\n...\n", {"a": 1}),
        ("%YAML 1.2\n---\na: on", {"a": "on"}),
        ("{openapi: 3.1.0, a: [b]}", {"openapi": "3.1.0", "a": ["b"]}),
        # A key is its text, whatever it would mean as a value.
        ("200: a\n4xx: b\non: c\nnull: d\ntrue: e\n1.50: f\n~: g", dict(zip(
            ("200", "4xx", "on", "null", "true", "1.50", "~"), "abcdefg", strict=True))),
        # The core schema of YAML 1.2: these were booleans, times and dates in 1.1 …
        ("[yes, No, on, OFF, y, 12:30, 2024-01-01, 2001-12-14t21:59:43.10-05:00, 1_000, =]",
         ["yes", "No", "on", "OFF", "y", "12:30", "2024-01-01", "2001-12-14t21:59:43.10-05:00", "1_000", "="]),
        # … and these are what they look like.
        ("[true, False, null, ~, '', 0, -7, +7, 010, 0o17, 0x1F, 1., .5, -1.5e3, 1e2]",
         [True, False, None, None, "", 0, -7, 7, 10, 15, 31, 1.0, 0.5, -1500.0, 100.0]),
        ("- \n- !!str 1\n- ! 1\n- '1'\n- \"1\"\n- !!int 1\n- !!null ''\n- !!float '1'\n- !!seq []\n- !!map {}",
         [None, "1", "1", "1", "1", 1, None, 1, [], {}]),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y", {"a": "x\ny\n", "b": "x y"}),
        ("a: &x {b: 1}\nc: *x\nd: &y k\n*y : 2", {"a": {"b": 1}, "c": {"b": 1}, "d": "k", "k": 2}),
        ("&k key: 1\na: *k", {"key": 1, "a": "key"}),
        # 2^64 as JavaScript rounds it, as public documents have it.
        ("a: 18446744073709552000\nb: -9223372036854775808", {"a": 18446744073709552000.0, "b": -(2**63)}),
        ('"\\u00e9": "😀"', {"é": "😀"}),
        ("a: 1.2.3\nb: 0x\nc: +\nd: .\ne: -.\nf: 1e\ng: 0o8\nh: infinity", {
            "a": "1.2.3", "b": "0x", "c": "+", "d": ".", "e": "-.", "f": "1e", "g": "0o8", "h": "infinity"}),
    ],
)  # fmt: skip
def test_a_text_has_its_value(text: str, value: Any) -> None:
    got = parse_document(text if isinstance(value, dict) else "root: \n" + _indented(text))
    got = got if isinstance(value, dict) else got["root"]
    assert json.dumps(got) == json.dumps(value)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", [("", "document.root")]),
        ("[]", [("", "document.root")]),
        ("text", [("", "document.root")]),
        ([], [("", "document.root")]),
        ("a: \ud800", [("", "document.encoding")]),
        ('{"a": "\\ud800"}', [("/a", "document.encoding")]),
        ('a: "\\ud800"', [("/a", "document.syntax")]),
        ("a: \x01", [("", "document.syntax")]),
        ("a: [1\nb: 2", [("/a/1", "document.syntax")]),
        ("a: b: c", [("", "document.syntax")]),
        ("a: 1\n b: 2", [("", "document.syntax")]),
        ('{"a": 1,, }', [("", "document.syntax")]),
        ("a: 1\n---\nb: 2", [("", "document.syntax")]),
        ("a: 1\n--- [", [("", "document.syntax")]),
        ("a: *b", [("/a", "document.alias")]),
        ("a: &a [1, *a]", [("/a/1", "document.alias")]),
        ("a: &a {b: {c: *a}}", [("/a/b/c", "document.alias")]),
        ("a: 1\nb: {c: 1, c: 2}\na: 3", [("/b/c", "document.duplicate_key"), ("/a", "document.duplicate_key")]),
        ("200: 1\n'200': 2", [("/200", "document.duplicate_key")]),
        ('{"a": {"b/": 1, "b/": 2}}', [("/a/b~1", "document.duplicate_key")]),
        ("? [a]\n: 1", [("", "document.key")]),
        ("a: {? {b: c} : d}", [("/a", "document.key")]),
        ("a: &a [1]\nb: {*a : 1}", [("/b", "document.key")]),
        ("a: &a {b: 1}\nc: {<<: *a}", [("/c/<<", "document.key")]),
        ("a: .nan\nb: [-.inf, 1e999]", [
            ("/a", "document.number"), ("/b/0", "document.number"), ("/b/1", "document.number")]),
        (f"a: {'1' * 101}", [("/a", "document.number")]),
        ('{"a": NaN, "b": 1e999}', [("/a", "document.number"), ("/b", "document.number")]),
        ("a: !!python/object/apply:os.system [x]", [("/a", "document.tag")]),
        ("a: !!binary aGk=\nb: !!timestamp 2024-01-01\nc: !mine {}\nd: !!set {}", [
            ("/a", "document.tag"), ("/b", "document.tag"), ("/c", "document.tag"), ("/d", "document.tag")]),
        ({1: 2, "a": {None: 3}}, [("", "document.key"), ("/a", "document.key")]),
        ({"a": float("nan"), "b": [2**64]}, [("/b/0", "document.number"), ("/a", "document.number")]),
        ({"a": b"x", "b": (1,)}, [("/b", "document.value"), ("/a", "document.value")]),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_with_every_place(
    source: Any, expected: list[tuple[str, str]]
) -> None:
    assert refused(source) == expected


def test_a_fault_in_yaml_tells_its_line() -> None:
    with pytest.raises(errors.Invalid) as caught:
        parse_document("a: 1\nb:\n  c: 1\n  c: 2\n")
    assert caught.value.errors[0].message == "is given twice (line 4 column 3)"


OPENINGS = [("[", "]"), ('{"a": ', "}"), ("{a: ", "}"), ("- ", "")]


@pytest.mark.parametrize(("opening", "closing"), OPENINGS)
def test_depth_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return f"root:\n  {opening * depth}1{closing * depth}"

    assert parse_document(nested(MAX_DEPTH - 1))
    assert [rule for _, rule in refused(nested(MAX_DEPTH))] == ["document.depth"]
    # The parser itself stops at a thousand brackets.
    assert {rule for _, rule in refused(nested(100_000))} <= {"document.depth", "document.syntax"}


def test_depth_of_json_is_bounded() -> None:
    assert parse_document('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH)
    assert refused('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1)) == [("", "document.depth")]


def test_depth_of_a_parsed_value_is_bounded_without_recursion() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"a": value}
    assert refused(value) == [("/a" * 64, "document.depth")]


def test_depth_that_aliases_add_is_counted() -> None:
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))]
    assert refused("\n".join(lines)) == [("/a63/0", "document.depth")]


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]",
        f"a: &a {{{'x' * 1000}: 1}}\nb: [{', '.join(['*a'] * 6_000)}]",
        "a: " + "x" * MAX_BYTES,
    ],
    ids=["billion laughs", "long text", "long name", "bytes"],
)
def test_size_is_bounded_as_written_out(text: str) -> None:
    tracemalloc.start()
    try:
        assert [rule for _, rule in refused(text)] == ["document.size"]
        assert tracemalloc.get_traced_memory()[1] < 60_000_000 + 30 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        "a: [" + "1," * (MAX_NODES + 1) + "]",
        '{"a": [' + "1," * MAX_NODES + "1]}",
        {"a": [1] * MAX_NODES},
        {"a": ["x" * 1_000] * 6_000},
    ],
    ids=["YAML", "JSON", "parsed", "parsed texts"],
)
def test_the_number_of_values_is_bounded(source: Any) -> None:
    assert [rule for _, rule in refused(source)] == ["document.size"]


def test_a_long_name_is_not_repeated_in_the_place_of_everything_in_it() -> None:
    inner = {f"p{n}": {} for n in range(1_000)}
    assert refused({"x" * 100_000: inner}) == [("", "document.size")]
    assert parse_document({"x" * 1_000: inner})


def test_at_most_a_hundred_faults_are_told() -> None:
    assert len(refused("a: [" + ".nan, " * 500 + "]")) == 100
    assert len(refused({"a": [float("inf")] * 500})) == 100
    assert len(refused(dict.fromkeys(range(500)))) == 100


def test_a_parsed_object_is_returned_itself() -> None:
    value = {"a": [1]}
    assert parse_document(value) is value


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


@given(st.dictionaries(TEXTS, JSON_VALUES, max_size=5))
def test_json_means_the_same_as_json_and_as_yaml(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    assert json.dumps(parse_document(text)) == text == json.dumps(parse_document(value))
    # Every JSON text is YAML 1.2, but for pairs of surrogates and the merge key.
    if "\\ud" not in text and '"<<":' not in text:
        assert json.dumps(parse_document(f"root: {text}")) == json.dumps({"root": value})
