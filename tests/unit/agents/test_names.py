"""Names of tables: at most 64 characters, apart where they were apart before they were shortened."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.agents.names import MAX_TABLE_NAME, TABLE_NAME_PATTERN, shortened, table_name

WORDS = st.text("ab_", min_size=1, max_size=90)


@given(
    st.from_regex("^[a-z][a-z0-9_]{0,62}$", fullmatch=True),
    st.from_regex("^[a-z0-9_]{1,90}$", fullmatch=True),
)
def test_a_table_s_name_is_an_identifier_of_every_server(agent: str, table: str) -> None:
    name = table_name(agent, table)
    assert len(name) <= MAX_TABLE_NAME
    assert re.fullmatch(TABLE_NAME_PATTERN, name)
    assert name == table_name(agent, table)


@given(WORDS)
def test_a_name_that_fits_is_kept_and_a_longer_one_ends_in_a_hash(name: str) -> None:
    short = shortened(name)
    if len(name) <= MAX_TABLE_NAME:
        assert short == name
    else:
        assert len(short) == MAX_TABLE_NAME
        assert short[:55] == name[:55]
        assert re.fullmatch("_[0-9a-f]{8}", short[55:])
    assert shortened(short) == short


@given(st.lists(st.text("ab", min_size=0, max_size=40), min_size=2, unique=True))
def test_long_names_that_begin_alike_stay_apart(tails: list[str]) -> None:
    assert len({shortened("x" * 64 + tail) for tail in tails}) == len(tails)


def test_underscores_alone_do_not_tell_agent_and_table_apart() -> None:
    # Two agents may claim one table; the loader gives it to the first.
    assert table_name("a", "b_c") == table_name("a_b", "c") == "agentflow_a_b_c"
