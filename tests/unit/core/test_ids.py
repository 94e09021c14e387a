from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.core import ids

YEAR_2163_MS = 6_102_000_000_000


def test_ids_grow_and_never_repeat() -> None:
    made = [ids.new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_of_concurrent_threads_never_repeat() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [
            one
            for batch in pool.map(lambda _: [ids.new_id() for _ in range(2000)], range(8))
            for one in batch
        ]
    assert len(set(made)) == len(made)


def test_an_id_is_time_ordered_and_fits_a_signed_bigint() -> None:
    before = int(time.time() * 1000)
    made = ids.new_id()
    assert 0 < made < 2**63
    # The process may already be ahead by the ids it made within one millisecond, never by much.
    assert before <= (made >> 21) + 1_704_067_200_000 <= before + 1000
    assert (YEAR_2163_MS - 1_704_067_200_000) << 21 < 2**63


def test_the_id_of_a_moment_lies_between_what_was_made_before_and_after_it() -> None:
    second = timedelta(seconds=1)
    made, at = ids.new_id(), datetime.now(UTC)
    # The process may be ahead by the ids that it made within one millisecond.
    assert ids.id_at(at - second) < made < ids.id_at(at + second)
    assert ids.id_at(at) < ids.id_at(at + timedelta(milliseconds=1))


def test_the_id_of_a_moment_is_never_negative_and_needs_a_zone() -> None:
    assert ids.id_at(datetime(2024, 1, 1, tzinfo=UTC)) == 0
    assert ids.id_at(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert ids.id_at(datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1000 << 21
    with pytest.raises(ValueError, match="naive"):
        ids.id_at(datetime(2026, 1, 1))


def test_a_ulid_carries_its_time_in_its_first_ten_characters() -> None:
    before = int(time.time() * 1000)
    made = ids.new_ulid()
    assert re.fullmatch(ids.ULID_PATTERN, made)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    milliseconds = 0
    for character in made[:10]:
        milliseconds = milliseconds * 32 + alphabet.index(character)
    assert before <= milliseconds <= before + 1000
    assert len({ids.new_ulid() for _ in range(1000)}) == 1000


def test_a_suffix_has_the_length_and_the_alphabet_of_a_plugin_id() -> None:
    assert re.fullmatch("[0-9a-z]{6}", ids.new_suffix())
    assert len(ids.new_suffix(11)) == 11
