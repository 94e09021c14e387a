from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.core import errors
from chalicelib.core.errors import Invalid
from chalicelib.core.json_schema import patterns
from chalicelib.core.json_schema.pattern_syntax import Parser
from chalicelib.core.json_schema.patterns import MAX_NODES, compile_pattern, node_count


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", ["", "x"], []),
        ("b+", ["b", "abba"], ["", "a"]),
        ("^[a-z][a-z0-9_-]{1,3}$", ["ab", "a-9_"], ["a", "abcde", "Ab", "ab\n", "9b"]),
        ("^[a-z]+(-[a-z]+)*$", ["a", "ab-cd-e"], ["-a", "a-", "a--b"]),
        (
            "^(?:https?|ftp)://[^/ ]+(/.*)?$",
            ["http://x", "ftp://x/y z"],
            ["https:/x", "http:// x", "http://x/\n"],
        ),
        ("^(?<year>\\d{4})-(\\d\\d)$", ["2024-05"], ["24-05", "٢٠٢٤-05"]),
        ("^\\w+@\\w+\\.\\w{2,}$", ["a@b.cd"], ["a@b.c", "é@b.cd"]),
        ("^a{2}$|^b{2,}$|^c{0,2}$", ["aa", "bb", "bbbbb", "", "cc"], ["a", "aaa", "b", "ccc"]),
        ("\\bcat\\b", ["cat", "a cat!", "cat-nap"], ["concat", "cats"]),
        ("\\Bcat", ["concat"], ["cat", "a cat"]),
        ("^[^\\s\\]]$", ["a", "["], [" ", "]", "\u00a0", "\u2003", ""]),
        ("^[\\d\\-.x]$", ["5", "-", ".", "x"], ["a"]),
        ("^[a-]$", ["a", "-"], ["b"]),
        ("^\\x41\\u0042\\u{1F600}\\t$", ["AB😀\t"], ["ABx\t"]),
        ("^\\p{Lu}\\p{L}*\\P{L}$", ["Ünï1"], ["ünï1", "Ünïc"]),
        ("^.$", ["x", "😀"], ["\n", "\u2028", "xy"]),
        ("^[]$", [], ["", "x"]),
        ("^[^]$", ["\n", "x"], [""]),
        ("a.*?b", ["ab", "xaxxb"], ["ba"]),
        ("^(a|)*$", ["", "aaa"], ["b"]),
        ("^(()*)*x$", ["x"], ["", "xx"]),
        ("^(){99999}x$", ["x"], [""]),
        ("^a{2900}$", ["a" * 2900], ["a" * 2899, "a" * 2901]),
        ("^{$", ["{"], ["}"]),
        ("(^a|b$)c?", ["a", "xb"], ["b ", "xa"]),
        ("\\/\\@\\-", ["/@-"], ["/@"]),
    ],
)
def test_expressions_mean_what_ecma_262_says(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [text for text in matching + other if compiled.search(text)] == matching
    # Once more, from what is remembered.
    assert [text for text in matching + other if compiled.search(text)] == matching


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "a)",
        "(a",
        "[a",
        "*",
        "a**",
        "a{2}{3}",
        "a*+",
        "+a",
        "^*",
        "a{3,2}",
        "[z-a]",
        "[\\d-z]",
        "\\1",
        "\\k<x>",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?<!a)b",
        "(?i)a",
        "(?P<x>a)",
        "(?",
        "\\Z",
        "\\q",
        "\\",
        "\\u{110000}",
        "a" * 1001,
        "a{99999}",
        "(a{100}){100}",
        "((a?){50}){50}",
        "(" * 31 + ")" * 31,
        "(" * 500,
        "[" * 500,
    ],
)
def test_what_is_malformed_too_large_or_not_regular_is_refused(pattern: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        compile_pattern(pattern)
    assert [violation.rule for violation in caught.value.errors] == ["pattern.syntax"]


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a|aa)+$",
        "^(.*)*$",
        "(a?){50}a{50}$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        ".*.*.*.*=.*",
        "(x+x+)+y",
    ],
)
def test_expressions_that_ruin_a_backtracker_cost_what_their_text_is_long(pattern: str) -> None:
    def cost(text: str) -> int:
        spent = []
        compile_pattern.cache_clear()
        assert not compile_pattern(pattern).search(text, spent.append)
        return sum(spent)

    assert cost("a" * 20_000 + "!\n") <= 2 * cost("a" * 10_000 + "!\n") + 100


def test_an_expression_with_many_sets_is_bounded_in_what_it_remembers() -> None:
    # (a|b)*a(a|b){12} has 2^13 sets of positions.
    compiled = compile_pattern("^(a|b)*a(a|b){12}$")
    text = "".join("ab"[(i * i // 7 + i // 3) % 2] for i in range(20_000))
    spent: list[int] = []
    expected = text[-13] == "a"
    assert compiled.search(text, spent.append) is expected
    assert len(compiled._states) <= patterns._CACHE_WEIGHT
    assert sum(spent) > 20_000 // 50


def test_the_budget_can_stop_a_search() -> None:
    class Spent(Exception):
        pass

    def spend(cost: int) -> None:
        raise Spent

    with pytest.raises(Spent):
        compile_pattern("a+$").search("b", spend)


_regular = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\b", "^", "$", "\\w", "(?:)"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda options: f"(?:{'|'.join(options)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}"])).map(
            lambda t: f"(?:{t[0]}){t[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=600)
@given(_regular, st.text(alphabet="ab -", max_size=6))
def test_agrees_with_a_backtracker_where_both_mean_the_same(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).search(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "abc", "a|b|", "(a|bc)*", "a{3}", "a{0,4}", "(ab|c){2,5}d+", "(){9}", "(){2,7}", "(a*)*", "^x?$",
        "((a{2}){3}|b){4,}",
    ],
)  # fmt: skip
def test_the_size_is_known_before_it_is_built(text: str) -> None:
    """Else each expression that is too large costs what the largest allowed one does."""
    assert node_count(Parser(text).parse()) + 1 == compile_pattern(text).size


def test_one_node_too_many_is_refused() -> None:
    assert compile_pattern(f"a{{{MAX_NODES - 1}}}").size == MAX_NODES
    with pytest.raises(Invalid):
        compile_pattern(f"a{{{MAX_NODES}}}")
    with pytest.raises(Invalid):
        compile_pattern("((((a{900}){900}){900}){900}){900}")
