"""What stays in the checkpoints of a durable run, and what goes into the bucket."""

from __future__ import annotations

from chalicelib.flows.runs.values import INLINE_IN_ALL, MAX_INLINE, SMALL, StoredValues
from tests.fakes.storage import MemoryStorage

SERVICE_TAKES = 100_000_000
OPERATIONS = 3_000


def values(bucket: MemoryStorage) -> StoredValues:
    return StoredValues(bucket, "run-1")


def test_a_value_is_left_in_its_checkpoint_up_to_the_bound() -> None:
    bucket = MemoryStorage()
    kept = values(bucket).kept("ü" * (MAX_INLINE // 2))
    assert kept == "ü" * (MAX_INLINE // 2)
    assert bucket.calls == []


def test_a_larger_value_is_in_the_bucket_and_read_once() -> None:
    bucket, text = MemoryStorage(), "\udc80" + "x" * MAX_INLINE
    kept = values(bucket).kept(text)
    assert len(kept) < 200
    replay = values(bucket)
    assert [replay.found(kept), replay.found(kept)] == [text, text]
    assert [call for call, _ in bucket.calls] == ["upload", "download"]


def test_checkpoints_of_one_execution_never_hold_more_than_the_service_takes() -> None:
    """As many steps as there can be, each with the largest value, all in one round whose checkpoint repeats them."""
    bucket = MemoryStorage()
    store, text = values(bucket), "x" * MAX_INLINE
    kept = [store.kept(f"{number}{text[8:]}") for number in range(OPERATIONS)]
    assert 2 * sum(map(len, kept)) + OPERATIONS * SMALL < SERVICE_TAKES
    assert sum(len(one) > SMALL for one in kept) == INLINE_IN_ALL // len(kept[0])


def test_a_replay_knows_what_was_kept_before() -> None:
    bucket = MemoryStorage()
    first, text = values(bucket), "x" * MAX_INLINE
    kept = [first.kept(text) for _ in range(INLINE_IN_ALL // MAX_INLINE)]
    again = values(bucket)
    for one in kept:
        assert again.found(one) == text
    assert len(again.kept(text)) < 200
    assert again.kept("y" * SMALL) == "y" * SMALL
