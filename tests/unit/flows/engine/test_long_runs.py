"""Durable runs that compute for long without a step."""

from __future__ import annotations

import time

import pytest

from chalicelib.flows.engine import durable as durable_engine
from chalicelib.flows.engine.errors import Interrupt
from tests.flow_builders import literal, loop, ref, text_joiner, with_body
from tests.flow_runs import durable


def test_a_durable_run_that_only_computes_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no rounds: nothing that it told would be written, and nobody could end it."""
    monkeypatch.setattr(durable_engine, "LOOK_S", 0.0)
    body = text_joiner("text-joiner::1", "{{t}}", ref("t", "loop-node-start::1", "t"))
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 100:
            raise Interrupt(22302, "The run was cancelled.", cancelled=True)

    outcome, told = durable(with_body(loop(literal("t", "x"), body, count=1_000)), check=check)
    assert outcome.state == "cancelled"
    assert 20 < len(told.records) < 100


def test_a_durable_run_is_not_looked_at_for_each_node() -> None:
    """Each look asks the database."""
    body = text_joiner("text-joiner::1", "{{t}}", ref("t", "loop-node-start::1", "t"))
    looks: list[float] = []
    began = time.monotonic()
    outcome, told = durable(
        with_body(loop(literal("t", "x"), body, count=1_000)), check=lambda: looks.append(time.monotonic())
    )
    assert (outcome.state, len(told.records)) == ("succeeded", 3_003)
    assert len(looks) <= 1 + (time.monotonic() - began) / durable_engine.LOOK_S
