from __future__ import annotations

import time
from typing import Any

import pytest

from chalicelib.agents.time_left import BoundedLlm, TimeLeft
from chalicelib.core.errors import UpstreamTimeout
from chalicelib.core.llm.model import ChatOptions
from tests.deployed_agents import FakeLlm

OVER = TimeLeft(time.monotonic() - 1)


def test_without_a_limit_a_call_takes_what_it_may() -> None:
    assert TimeLeft().seconds(20) == 20
    assert TimeLeft.of(None).milliseconds(25_000) == 25_000


def test_a_limit_cuts_what_is_longer() -> None:
    left = TimeLeft.of(5)
    assert 4 < left.seconds(20) <= 5
    assert left.seconds(2) == 2
    assert 4_000 < left.milliseconds(25_000) <= 5_000


def test_when_none_is_left_no_call_is_made() -> None:
    llm = FakeLlm(["never"])
    calls: list[Any] = [lambda: OVER.seconds(20), lambda: BoundedLlm(llm, OVER).chat([])]
    for call in calls:
        with pytest.raises(UpstreamTimeout) as caught:
            call()
        assert caught.value.code == "agent.timeout"
    assert llm.asked == []


def test_a_model_is_asked_within_what_is_left() -> None:
    llm = FakeLlm(["a", "b", "c"])
    bounded = BoundedLlm(llm, TimeLeft.of(5))
    bounded.chat([], ChatOptions(timeout_s=60))
    bounded.chat([], ChatOptions(timeout_s=2))
    BoundedLlm(llm, TimeLeft()).chat([])

    asked = [options.timeout_s for _, options in llm.asked]
    assert 4 < asked[0] <= 5
    assert asked[1:] == [2, 20]
    assert bounded.configured
