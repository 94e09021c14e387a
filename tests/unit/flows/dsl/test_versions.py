from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core import errors
from chalicelib.flows.dsl.versions import KEY_LENGTH, version_key

SEGMENTS = st.lists(st.integers(0, 999_999), min_size=1, max_size=4)


def test_versions_are_ordered_as_numbers() -> None:
    ordered = ["0", "v1", "v1.2", "1.2.0.1", "v1.2.9", "1.10.1", "v2", "v10", "999999.999999.999999.999999"]
    assert sorted(ordered, key=version_key) == ordered


@pytest.mark.parametrize("same", [("1", "v1.0"), ("v1.0.0.0", "v1"), ("v01", "1")])
def test_equal_versions_have_one_key(same: tuple[str, str]) -> None:
    assert version_key(same[0]) == version_key(same[1])


@given(SEGMENTS, SEGMENTS)
def test_the_order_of_keys_is_that_of_numbers(left: list[int], right: list[int]) -> None:
    keys = [version_key("v" + ".".join(map(str, one))) for one in (left, right)]
    padded = [one + [0] * (4 - len(one)) for one in (left, right)]
    assert (keys[0] < keys[1], keys[0] == keys[1]) == (padded[0] < padded[1], padded[0] == padded[1])
    assert all(len(key) == KEY_LENGTH for key in keys)


@pytest.mark.parametrize(
    "text", ["", "v", "V1", "1.", ".1", "1..2", "1.2.3.4.5", "1234567", "v1\n", "٣", "1.2-rc", " 1", "latest"]
)
def test_other_texts_are_no_versions(text: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        version_key(text)
    assert caught.value.code == "flow.version"
    assert caught.value.errors[0].rule == "flow.version"
