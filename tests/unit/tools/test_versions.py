from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Invalid
from chalicelib.tools.models import DEF_VER
from chalicelib.tools.versions import parse_version


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1", (1, 0, 0, 0)),
        ("V1", (1, 0, 0, 0)),
        ("V1.0", (1, 0, 0, 0)),
        (DEF_VER, (1, 0, 0, 0)),
        ("V1.10", (1, 10, 0, 0)),
        ("1.2.3.4", (1, 2, 3, 4)),
        ("V007.01", (7, 1, 0, 0)),
        ("0", (0, 0, 0, 0)),
        ("V" + "9" * 31, (int("9" * 31), 0, 0, 0)),
    ],
)
def test_the_number_of_a_version(text: str, key: tuple[int, ...]) -> None:
    assert parse_version(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "", "V", "v1", "VV1", "1.", ".1", "1..2", "1.2.3.4.5", "1.x", "-1", "+1", " 1", "1 ", "1\n", "1,0", "1_0",
        "٣", "①", "1e3", "0x1", "V" + "9" * 32,
    ],
)  # fmt: skip
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_version(text, "/query/version")
    assert refused.value.code == "tool.invalid_version"
    assert [one.pointer for one in refused.value.errors] == ["/query/version"]


SEGMENTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


@given(SEGMENTS, SEGMENTS)
def test_versions_compare_as_numbers(one: list[int], other: list[int]) -> None:
    def spelled(segments: list[int]) -> str:
        return "V" + ".".join(map(str, segments))

    def padded(segments: list[int]) -> list[int]:
        return segments + [0] * (4 - len(segments))

    assert (parse_version(spelled(one)) < parse_version(spelled(other))) == (padded(one) < padded(other))
    assert parse_version(spelled(one)) == parse_version(spelled(padded(one)).removeprefix("V"))
