from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import PreconditionFailed
from chalicelib.core.representation import (
    canonical,
    check_if_match,
    entity_tag,
    matches_if_none_match,
    timestamp,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner),
)
RESOURCE = {"pluginId": "plugin_x_000000", "version": "1.0.0"}
TAG = entity_tag(RESOURCE)


def test_times_are_utc_with_microseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "2026-01-02T03:04:05.000006Z"
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=east)) == "2026-01-02T01:04:05.000000Z"
    assert timestamp(None) is None


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        timestamp(datetime(2026, 1, 2))


@given(st.dictionaries(st.text(), JSON))
def test_equal_values_have_equal_bytes_whatever_their_order(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical(value) == canonical(backwards)
    assert entity_tag(value) == entity_tag(backwards)


def test_the_tag_changes_with_the_resource() -> None:
    assert entity_tag(RESOURCE | {"version": "1.0.1"}) != TAG
    assert TAG.startswith('"') and TAG.endswith('"') and len(TAG) == 34


@pytest.mark.parametrize("header", [None, "*", TAG, f'"other", {TAG}', f" {TAG} "])
def test_a_write_by_who_saw_this_state_is_allowed(header: str | None) -> None:
    assert check_if_match(header, RESOURCE) is None


@pytest.mark.parametrize("header", ['"other"', "", f"W/{TAG}", TAG.strip('"')])
def test_a_write_by_who_saw_another_state_is_refused(header: str) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        check_if_match(header, RESOURCE)
    assert caught.value.extensions == {"etag": TAG}


@pytest.mark.parametrize("header", ["*", TAG])
def test_what_is_not_there_yet_is_no_state_that_anybody_saw(header: str) -> None:
    """RFC 9110 §13.1.1: with `*` too, so that what was deleted meanwhile is not made again."""
    with pytest.raises(PreconditionFailed) as caught:
        check_if_match(header, None)
    assert caught.value.extensions == {}
    assert check_if_match(None, None) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("*", True),
        (TAG, True),
        (f"W/{TAG}", True),
        (f'"a", W/{TAG}', True),
        ('"a"', False),
        ("", False),
    ],
)
def test_not_modified_compares_weakly(header: str | None, expected: bool) -> None:
    assert matches_if_none_match(header, TAG) is expected
