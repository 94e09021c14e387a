from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.mcp.names import MAX_LENGTH, _spelled, assign
from chalicelib.mcp.offers import Key

NAME = re.compile(r"plugin_[A-Za-z0-9_-]{1,57}")
# Few letters, many separators, and characters that all become `_`: names that want to clash.
PART = st.text(alphabet="ab_-./ é", max_size=5) | st.text(alphabet="ab_", min_size=40, max_size=80)
THINGS = st.dictionaries(st.tuples(PART, PART), st.tuples(PART, PART), max_size=30)


@given(THINGS, st.randoms())
def test_names_are_legal_distinct_and_do_not_depend_on_the_order(
    things: dict[Key, tuple[str, str]], rng: random.Random
) -> None:
    names = assign("plugin", things.items())
    assert sorted(names.values()) == sorted(things)
    assert all(NAME.fullmatch(name) and len(name) <= MAX_LENGTH for name in names)
    shuffled = list(things.items())
    rng.shuffle(shuffled)
    assert assign("plugin", shuffled) == names


@given(THINGS, st.tuples(PART, PART))
def test_what_is_added_renames_only_what_it_spells(
    things: dict[Key, tuple[str, str]], parts: tuple[str, str]
) -> None:
    before = {key: name for name, key in assign("plugin", things.items()).items()}
    after = {
        key: name for name, key in assign("plugin", [*things.items(), (("new", "one", "!"), parts)]).items()
    }
    renamed = {key for key in before if before[key] != after[key]}
    new = "plugin_" + "_".join(re.sub(r"[^A-Za-z0-9_-]+", "_", part) for part in parts)
    assert all(before[key] == new for key in renamed)


def test_the_plain_name_is_kept_where_nothing_clashes() -> None:
    assert assign("plugin", [(("p1", "send"), ("notifier", "send"))]) == {
        "plugin_notifier_send": ("p1", "send")
    }


def test_whatever_would_share_a_name_is_suffixed_each() -> None:
    things = [(("p1", "b_c"), ("a", "b_c")), (("p2", "c"), ("a_b", "c")), (("p3", "d"), ("a", "d"))]
    names = assign("plugin", things)
    assert names == {
        "plugin_a_b_c_4d3lmsyweu": ("p1", "b_c"),
        "plugin_a_b_c_47pregzrfe": ("p2", "c"),
        "plugin_a_d": ("p3", "d"),
    }


def test_an_action_named_like_a_suffixed_name_gets_a_suffix_too() -> None:
    """An author who names an action after another's suffixed name must not be called instead of it."""
    clashing = [(("p1", "b_c"), ("a", "b_c")), (("p2", "c"), ("a_b", "c"))]
    stolen = next(iter(assign("plugin", clashing)))
    thief = (("evil", "x"), (stolen.removeprefix("plugin_"),))
    names = assign("plugin", [*clashing, thief])
    assert stolen not in names
    assert sorted(names.values()) == sorted([("p1", "b_c"), ("p2", "c"), ("evil", "x")])


def test_equal_suffixes_are_lengthened_until_they_differ() -> None:
    assert [len(_spelled(("p", "x"), "plugin_" + "a" * 80, level)) for level in (1, 2, 3)] == [64, 64, 64]
    assert _spelled(("p", "x"), "plugin_" + "a" * 80, 3).startswith("plugin_")


def test_identities_that_join_to_the_same_text_are_told_apart() -> None:
    assert _spelled(("a", "bc"), "n", 1) != _spelled(("ab", "c"), "n", 1)


def test_ten_thousand_names_that_clash_are_assigned() -> None:
    things = [((f"p{number}", "x"), ("same", "x")) for number in range(10_000)]
    assert len(assign("plugin", things)) == 10_000
