from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.tools.binding.serialization import CannotSerialize, path_text, query_pairs, simple_text
from chalicelib.tools.binding.text import encode, scalar_text
from chalicelib.tools.openapi.operation import Style
from tests.unit.tools.binding.style_parser import Kind, parse_path, parse_query

ARRAY = ["blue", "black", "brown"]
OBJECT = {"R": 100, "G": 200, "B": 150}


def query(value: Any, style: Style, explode: bool, escaping: Any = "unreserved", name: str = "color") -> str:
    pairs = query_pairs(name, value, style, explode, escaping)
    return "&".join(f"{encode(key)}={text}" for key, text in pairs)


# OpenAPI 3.0.4 and 3.1.1, "Style Examples", and RFC 6570, 3.2, for what has no members.
@pytest.mark.parametrize(
    ("style", "explode", "value", "expected"),
    [
        ("matrix", False, None, ";color"),
        ("matrix", False, "", ";color"),
        ("matrix", False, "blue", ";color=blue"),
        ("matrix", False, ARRAY, ";color=blue,black,brown"),
        ("matrix", False, OBJECT, ";color=R,100,G,200,B,150"),
        ("matrix", True, None, ";color"),
        ("matrix", True, "", ";color"),
        ("matrix", True, "blue", ";color=blue"),
        ("matrix", True, ARRAY, ";color=blue;color=black;color=brown"),
        ("matrix", True, OBJECT, ";R=100;G=200;B=150"),
        ("matrix", True, ["a", ""], ";color=a;color"),
        ("matrix", True, {"R": ""}, ";R"),
        ("matrix", True, [], ""),
        ("matrix", False, {}, ""),
        ("label", False, None, "."),
        ("label", False, "", "."),
        ("label", False, "blue", ".blue"),
        ("label", False, ARRAY, ".blue,black,brown"),
        ("label", False, OBJECT, ".R,100,G,200,B,150"),
        ("label", True, None, "."),
        ("label", True, "", "."),
        ("label", True, "blue", ".blue"),
        ("label", True, ARRAY, ".blue.black.brown"),
        ("label", True, OBJECT, ".R=100.G=200.B=150"),
        ("label", True, [], ""),
        ("label", False, {}, ""),
        ("simple", False, None, ""),
        ("simple", False, "", ""),
        ("simple", False, "blue", "blue"),
        ("simple", False, ARRAY, "blue,black,brown"),
        ("simple", False, OBJECT, "R,100,G,200,B,150"),
        ("simple", True, None, ""),
        ("simple", True, "", ""),
        ("simple", True, "blue", "blue"),
        ("simple", True, ARRAY, "blue,black,brown"),
        ("simple", True, OBJECT, "R=100,G=200,B=150"),
        ("simple", False, [], ""),
        ("simple", True, {}, ""),
    ],
)
def test_the_styles_of_a_path(style: Style, explode: bool, value: Any, expected: str) -> None:
    assert path_text("color", value, style, explode) == expected


@pytest.mark.parametrize(
    ("style", "explode", "value", "expected"),
    [
        ("form", False, None, "color="),
        ("form", False, "", "color="),
        ("form", False, "blue", "color=blue"),
        ("form", False, ARRAY, "color=blue,black,brown"),
        ("form", False, OBJECT, "color=R,100,G,200,B,150"),
        ("form", True, None, "color="),
        ("form", True, "", "color="),
        ("form", True, "blue", "color=blue"),
        ("form", True, ARRAY, "color=blue&color=black&color=brown"),
        ("form", True, OBJECT, "R=100&G=200&B=150"),
        ("form", True, [], ""),
        ("form", False, [], ""),
        ("form", True, {}, ""),
        ("form", False, {}, ""),
        ("form", True, [""], "color="),
        ("form", False, ["", ""], "color=,"),
        ("spaceDelimited", False, ARRAY, "color=blue%20black%20brown"),
        ("spaceDelimited", False, OBJECT, "color=R%20100%20G%20200%20B%20150"),
        ("pipeDelimited", False, ARRAY, "color=blue%7Cblack%7Cbrown"),
        ("pipeDelimited", False, OBJECT, "color=R%7C100%7CG%7C200%7CB%7C150"),
        ("deepObject", True, OBJECT, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"),
        # "n/a" in the table: what the module says of them.
        ("deepObject", False, OBJECT, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"),
        ("deepObject", True, "blue", "color=blue"),
        ("deepObject", True, {}, ""),
        ("deepObject", True, ARRAY, "color%5B0%5D=blue&color%5B1%5D=black&color%5B2%5D=brown"),
        ("deepObject", True, {"a": [1, {"c": True}]}, "color%5Ba%5D%5B0%5D=1&color%5Ba%5D%5B1%5D%5Bc%5D=true"),
        ("spaceDelimited", False, "blue", "color=blue"),
        ("spaceDelimited", True, ARRAY, "color=blue&color=black&color=brown"),
        ("pipeDelimited", True, OBJECT, "R=100&G=200&B=150"),
        ("spaceDelimited", False, [], ""),
    ],
)  # fmt: skip
def test_the_styles_of_a_query(style: Style, explode: bool, value: Any, expected: str) -> None:
    assert query(value, style, explode) == expected


@pytest.mark.parametrize(
    ("value", "explode", "expected"),
    [
        ("", False, ""),
        ("blue", False, "blue"),
        (ARRAY, False, "blue,black,brown"),
        (ARRAY, True, "blue,black,brown"),
        (OBJECT, False, "R,100,G,200,B,150"),
        (OBJECT, True, "R=100,G=200,B=150"),
        ('W/"a b%2F"', False, 'W/"a b%2F"'),
        ([1.0, True, None], False, "1,true"),
    ],
)
def test_a_header_is_never_percent_encoded(value: Any, explode: bool, expected: str) -> None:
    assert simple_text(value, explode, "none") == expected


@pytest.mark.parametrize(
    ("value", "style", "explode", "expected"),
    [
        ("a/b?c=d&e#f", "form", True, "color=a/b?c=d%26e%23f"),
        ("50% %2F +", "form", True, "color=50%25%20%2F%20%2B"),
        (["a,b", "c/d"], "form", False, "color=a%2Cb,c/d"),
        (["a,b", "c/d"], "form", True, "color=a,b&color=c/d"),
        ({"a": "x,y/z"}, "form", False, "color=a,x%2Cy/z"),
        (["a/b", "c"], "pipeDelimited", False, "color=a/b%7Cc"),
        ({"a": "/"}, "deepObject", True, "color%5Ba%5D=/"),
    ],
)
def test_reserved_characters_pass_where_the_document_allows_them(
    value: Any, style: Style, explode: bool, expected: str
) -> None:
    assert query(value, style, explode, "reserved") == expected


@pytest.mark.parametrize(
    ("value", "style", "explode", "expected"),
    [
        ([1, None, 2], "form", False, "color=1,2"),
        ([None], "form", True, ""),
        ({"a": None, "b": 1}, "form", True, "b=1"),
        ({"a": None}, "deepObject", True, ""),
        ({"a": None, "b": 1}, "pipeDelimited", False, "color=b%7C1"),
        ([1.0, 1e20, False], "form", False, "color=1,100000000000000000000,false"),
        ({"a b": "c d"}, "form", True, "a%20b=c%20d"),
        ("x+y", "form", True, "color=x%2By"),
        ("a&admin=1#x", "form", True, "color=a%26admin%3D1%23x"),
    ],
)
def test_values_in_a_query(value: Any, style: Style, explode: bool, expected: str) -> None:
    assert query(value, style, explode) == expected


def test_a_name_is_encoded_too() -> None:
    assert query("love!", "form", True, name="❤️") == "%E2%9D%A4%EF%B8%8F=love%21"
    assert path_text("a b", "c", "matrix", False) == ";a%20b=c"


@pytest.mark.parametrize(
    ("value", "style", "explode", "rule", "pointer"),
    [
        ([["a"]], "form", True, "argument.nested", "/0"),
        ({"a/b": {"c": 1}}, "form", False, "argument.nested", "/a~1b"),
        ([1, {"a": 1}], "spaceDelimited", False, "argument.nested", "/1"),
        (["a b"], "spaceDelimited", False, "argument.delimiter", ""),
        ({"a|b": 1}, "pipeDelimited", False, "argument.delimiter", ""),
        ({"a]": 1}, "deepObject", True, "argument.delimiter", "/a]"),
        ({"a": {"[": 1}}, "deepObject", True, "argument.delimiter", "/a/["),
    ],
)
def test_what_a_query_cannot_carry(value: Any, style: Style, explode: bool, rule: str, pointer: str) -> None:
    with pytest.raises(CannotSerialize) as caught:
        query(value, style, explode)
    assert (caught.value.rule, caught.value.pointer) == (rule, pointer)


@pytest.mark.parametrize("style", ["simple", "label", "matrix"])
@pytest.mark.parametrize("explode", [False, True])
@pytest.mark.parametrize("value", [[["a"]], {"a": []}])
def test_what_a_path_cannot_carry(style: Style, explode: bool, value: Any) -> None:
    with pytest.raises(CannotSerialize) as caught:
        path_text("color", value, style, explode)
    assert caught.value.rule == "argument.nested"


@pytest.mark.parametrize(
    ("name", "value", "style"),
    [
        ("n" * 100_000, ["x"] * 1_000_000, "form"),
        ("n", {"k" * 1_000_000: dict.fromkeys(map(str, range(100_000)), 1)}, "deepObject"),
    ],
)
def test_a_name_repeated_without_end_is_refused_early(name: str, value: Any, style: Style) -> None:
    with pytest.raises(CannotSerialize) as caught:
        query_pairs(name, value, style, True, "unreserved")
    assert caught.value.rule == "argument.too_large"


class Unwalked(list[str]):
    def __iter__(self) -> Any:
        pytest.fail("walked through")


@pytest.mark.parametrize("style", ["form", "pipeDelimited", "deepObject"])
def test_what_has_too_many_members_is_not_walked_through(style: Style) -> None:
    with pytest.raises(CannotSerialize) as caught:
        query_pairs("color", Unwalked(["x"] * 11), style, False, "unreserved", limit=10)
    assert caught.value.rule == "argument.too_large"


def test_a_matrix_is_bounded_too() -> None:
    with pytest.raises(CannotSerialize):
        path_text("n" * 100_000, ["x"] * 1_000_000, "matrix", True)


# -- round trips: what is written reads back as what it was, to a reader that splits before it decodes -----------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    TEXTS | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
)
ARRAYS = st.lists(SCALARS, min_size=1, max_size=5)
OBJECTS = st.dictionaries(TEXTS, SCALARS, min_size=1, max_size=5)
NAMES = TEXTS.filter(bool)


def texts(value: Any) -> Any:
    if isinstance(value, list):
        return [scalar_text(item) for item in value]
    if isinstance(value, dict):
        return {name: scalar_text(item) for name, item in value.items()}
    return scalar_text(value)


def kind(value: Any) -> Kind:
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else "scalar"


def flat(value: Any) -> list[str]:
    members = [*value, *value.values()] if isinstance(value, dict) else value
    return [scalar_text(item) for item in members]


@given(NAMES, SCALARS | ARRAYS | OBJECTS, st.sampled_from(["simple", "label", "matrix"]), st.booleans())
def test_paths_round_trip(name: str, value: Any, style: Style, explode: bool) -> None:
    dotted = (
        style == "label" and explode and kind(value) != "scalar" and any("." in each for each in flat(value))
    )
    try:
        written = path_text(name, value, style, explode)
    except CannotSerialize as error:
        assert dotted and error.rule == "argument.delimiter"
    else:
        assert not dotted
        assert parse_path(name, written, style, explode, kind(value)) == texts(value)


@given(NAMES, SCALARS | ARRAYS | OBJECTS, st.booleans())
def test_forms_round_trip(name: str, value: Any, explode: bool) -> None:
    written = query(value, "form", explode, name=name)
    assert parse_query(name, written, "form", explode, kind(value)) == texts(value)


@given(NAMES, ARRAYS | OBJECTS, st.sampled_from([("spaceDelimited", " "), ("pipeDelimited", "|")]))
def test_delimited_values_round_trip_or_are_refused(name: str, value: Any, style: tuple[Style, str]) -> None:
    held = any(style[1] in each for each in flat(value))
    try:
        written = query(value, style[0], False, name=name)
    except CannotSerialize:
        assert held
    else:
        assert not held
        assert parse_query(name, written, style[0], False, kind(value)) == texts(value)


PLAIN_KEYS = TEXTS.filter(lambda key: "[" not in key and "]" not in key)
TREES = st.recursive(
    SCALARS, lambda inner: st.dictionaries(PLAIN_KEYS, inner, min_size=1, max_size=3), max_leaves=8
)


def tree_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: tree_texts(item) for name, item in value.items()}
    return scalar_text(value)


@given(NAMES, st.dictionaries(PLAIN_KEYS, TREES, min_size=1, max_size=4))
def test_deep_objects_round_trip(name: str, value: Any) -> None:
    written = query(value, "deepObject", True, name=name)
    assert parse_query(name, written, "deepObject", True, "object") == tree_texts(value)
