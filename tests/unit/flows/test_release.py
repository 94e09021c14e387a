from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Invalid
from chalicelib.flows.names import DEVICE, PLATFORMS
from chalicelib.flows.release import API, PUBLISHED, TAKEN_OFF, Release, is_live, publish, take_off

STEP = st.tuples(st.sampled_from(PLATFORMS), st.sampled_from(["publish", "api", "off"])).filter(
    lambda step: step != (DEVICE, "api")
)


def carried_out(before: Release, platform: int, what: str) -> Release:
    return take_off(before, platform) if what == "off" else publish(before, platform, api=what == "api")


def test_the_sequence_of_the_contract() -> None:
    held, seen = Release(), []
    for step in ((1, "publish"), (1, "api"), (1, "publish"), (4, "publish"), (4, "off")):
        held = carried_out(held, *step)
        seen.append(held.status)
    assert seen == [1, 9, 9, 41, 73]


@pytest.mark.parametrize(
    ("platform", "what", "status"),
    [(1, "publish", 1), (2, "publish", 4), (4, "publish", 32), (1, "api", 8), (2, "api", 8), (1, "off", 2),
     (2, "off", 16), (4, "off", 64)],
)  # fmt: skip
def test_one_step_from_nothing(platform: int, what: str, status: int) -> None:
    assert carried_out(Release(), platform, what).status == status


def test_devices_have_no_api() -> None:
    with pytest.raises(Invalid) as refused:
        publish(Release(), DEVICE, api=True)
    assert (refused.value.code, refused.value.errors[0].pointer) == ("flow.no_api", "/api")


@given(st.lists(STEP, max_size=12))
def test_the_bits_are_what_each_platform_was_told_last(steps: list[tuple[int, str]]) -> None:
    held = Release()
    plain: set[int] = set()
    api: set[int] = set()
    off: set[int] = set()
    for platform, what in steps:
        held = carried_out(held, platform, what)
        if what == "off":
            plain.discard(platform)
            api.discard(platform)
            off.add(platform)
        else:
            (plain if what == "publish" else api).add(platform)
            off.discard(platform)
    expected = sum(PUBLISHED[one] for one in plain) + sum(TAKEN_OFF[one] for one in off)
    assert held == Release(expected + (API if api else 0), sum(api))
    assert is_live(held.status) == bool(plain | api)
    assert {one for one in PLATFORMS if held.on(one)} == plain | api
    # It fits the columns, which are signed bytes.
    assert 0 <= held.status <= 127
