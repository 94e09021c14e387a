"""Texts are cut between characters, never inside one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.flows.history import clipping
from chalicelib.flows.history.clipping import MAX_VALUE_BYTES, clipped, pieces


def test_the_limit_is_that_of_the_column() -> None:
    assert MAX_VALUE_BYTES == int(0.95 * 16_777_215) == 15_938_354


@pytest.mark.parametrize(("character", "width"), [("a", 1), ("é", 2), ("漢", 3), ("😀", 4)])
@pytest.mark.parametrize("ahead", range(4))
def test_a_text_is_cut_behind_its_last_whole_character(character: str, width: int, ahead: int) -> None:
    text = "a" * ahead + character * (MAX_VALUE_BYTES // width + 4)
    whole = (MAX_VALUE_BYTES - ahead) // width
    assert clipped(text) == "a" * ahead + character * whole


@given(st.text(max_size=40), st.integers(0, 60))
def test_what_is_cut_is_the_longest_beginning_that_fits(text: str, most: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clipping, "MAX_VALUE_BYTES", most)
        found = clipped(text)
    assert text.startswith(found)
    assert len(found.encode()) <= most
    assert found == text or len(text[: len(found) + 1].encode()) > most


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert clipped("a\ud83db\udc00") == "a\ufffdb\ufffd"


@given(st.text(max_size=60), st.integers(4, 20))
def test_pieces_are_the_text(text: str, most: int) -> None:
    found = list(pieces(text, most))
    assert "".join(found) == text
    assert all(0 < len(piece.encode()) <= most for piece in found) or found == [""]
