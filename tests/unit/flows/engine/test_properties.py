"""Random flows, whose threads end in any order: what an oracle expects comes of them, express, durable and disturbed.

`FLOW_EXAMPLES` is how many flows each property tries.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aws_durable_execution_sdk_python.exceptions import InvocationError, SuspendExecution
from aws_durable_execution_sdk_python_testing.executor import Executor
from hypothesis import HealthCheck, event, given, settings

from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.engine.errors import NodeError
from chalicelib.flows.engine.outcome import Outcome
from tests.flow_cases import account
from tests.flow_graphs import Body, Drawn, Expected, bodies, data_of, expected
from tests.flow_runs import Told, durable, express

EXAMPLES = int(os.environ.get("FLOW_EXAMPLES", "40"))
_checked = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)


class Works:
    """The code nodes of a random flow: each fails as it was told to, and takes its time.

    Parameters
    ----------
    pause
        Seconds that the next attempt takes.
    """

    def __init__(self, body: Body, pause: Callable[[], float]) -> None:
        self._fails = {one.id: one.fails for one in nodes_of(body)}
        self._pause = pause
        self._lock = threading.Lock()
        self.begun: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.die: Callable[[], None] = lambda: None

    def kinds(self) -> dict[str, Execute]:
        return {"code": self}

    def __call__(self, call: Call) -> Result:
        with self._lock:
            self.begun[call.key] += 1
        time.sleep(self._pause())
        self.die()
        with self._lock:
            self.finished[call.key] += 1
        if call.attempt <= self._fails[call.node.id]:
            raise NodeError(21600, "as told")
        return Result({"o": call.key})


def nodes_of(body: Body) -> list[Drawn]:
    """All nodes, those of the bodies within too."""
    return [one for outer in body.nodes for one in (outer, *(nodes_of(outer.body) if outer.body else ()))]


def hold(body: Body, outcome: Outcome, told: Told, works: Works) -> Expected:
    """Assert what holds of every run, however its threads went."""
    wanted = expected(body)
    states = told.states()
    assert len(told.records) == len(states), "a node ended twice"
    for key, state in states.items():
        assert wanted.states.get(key) == state, f"{key} {state}"
    if wanted.errors:
        assert outcome.state == "failed"
        assert outcome.error is not None
        blamed = {key.rpartition("/")[2] for key, state in wanted.states.items() if state == "failed"}
        assert outcome.error.node_id in blamed
    elif not wanted.reached:
        assert outcome.state == "failed"
        assert (outcome.error and outcome.error.code, outcome.error and outcome.error.node_id) == (
            23100,
            None,
        )
    else:
        assert (outcome.state, outcome.error) == ("succeeded", None)
    if not wanted.errors:
        missing = wanted.states.keys() - states.keys()
        assert all(any(key.startswith(prefix) for prefix in wanted.cut) for key in missing), missing
    _hold_order(told, wanted)
    for record in told.records:
        if record.node_type == "code":
            assert works.begun[record.key] == record.attempt
    assert works.begun.keys() <= wanted.states.keys(), "a node that was pruned ran"
    return wanted


def _hold_order(told: Told, wanted: Expected) -> None:
    """Nothing began before all that leads to it had ended, nor ended after what it stands in."""
    ended: set[str] = set()
    began: set[str] = set()
    for what, key in told.order:
        if key not in began:
            assert wanted.before[key] <= ended, f"{key} began early"
            began.add(key)
        owner = key.rpartition("[")[0]
        assert not owner or owner not in ended, f"{key} {what} after what it stands in"
        if what == "ended":
            ended.add(key)
    assert told.progress == sorted(told.progress)
    assert all(0 <= one <= 1 for one in told.progress)


@settings(_checked, max_examples=EXAMPLES * 3)
@given(bodies())
def test_express_runs(body: Body) -> None:
    works = Works(body, lambda: random.choice([0, 0, 0.001, 0.003]))
    outcome, told = express(data_of(body), kinds=works.kinds())
    wanted = hold(body, outcome, told, works)
    event(f"{outcome.state}, {'exact' if wanted.is_exact else 'timely'}")
    assert not [one for one in threading.enumerate() if one.name.startswith("node-")]


@settings(_checked, max_examples=EXAMPLES)
@given(bodies())
def test_express_and_durable_runs_are_the_same(body: Body) -> None:
    data = data_of(body)
    both = [Works(body, lambda: random.choice([0, 0.001])) for _ in range(2)]
    ran = [
        express(data, kinds=both[0].kinds()),
        # As many operations as were counted are enough.
        durable(data, kinds=both[1].kinds(), most=max(1, check_flow(data).operations)),
    ]
    wanted = [hold(body, outcome, told, works) for (outcome, told), works in zip(ran, both, strict=True)]
    accounts = [account(*one) for one in ran]
    if wanted[0].is_exact:
        assert accounts[0] == accounts[1]
    else:
        assert accounts[0]["state"] == accounts[1]["state"]
    if not wanted[0].errors:
        assert accounts[0]["outputs"].keys() == accounts[1]["outputs"].keys()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that invokes again at once, and as often as it takes."""
    monkeypatch.setattr(Executor, "RETRY_BACKOFF_SECONDS", 0)
    monkeypatch.setattr(Executor, "MAX_CONSECUTIVE_FAILED_ATTEMPTS", 10_000)
    monkeypatch.setattr(Executor, "MAX_CONSECUTIVE_INVALID_PENDING_ATTEMPTS", 10_000)


class Killer:
    """Ends each invocation one round later than the one before."""

    def __init__(self) -> None:
        self.reached = self.now = self.invocations = 0

    def invoked(self) -> None:
        self.invocations += 1
        self.now = 0

    def check(self) -> None:
        self.now += 1
        if self.now > self.reached:
            self.reached = self.now
            raise InvocationError("killed")


@pytest.mark.usefixtures("patient")
@settings(_checked, max_examples=EXAMPLES // 2)
@given(bodies())
def test_a_durable_run_that_is_killed_at_every_round(body: Body) -> None:
    data = data_of(body)
    calm = Works(body, lambda: 0)
    undisturbed = account(*durable(data, kinds=calm.kinds()))
    works, killer = Works(body, lambda: random.choice([0, 0.001, 0.003])), Killer()
    outcome, told = durable(data, kinds=works.kinds(), check=killer.check, invoked=killer.invoked)
    hold(body, outcome, told, works)
    assert account(outcome, told) == undisturbed
    assert works.begun == calm.begun, "a node that had ended ran again"
    assert killer.invocations >= killer.reached
    event(f"{min(killer.reached, 4)} rounds")


@pytest.mark.usefixtures("patient")
@settings(_checked, max_examples=EXAMPLES // 2)
@given(bodies())
def test_a_durable_run_that_dies_among_its_steps(body: Body) -> None:
    """Whatever has a checkpoint is not run again; what has none is, and the run ends as it would have."""
    data = data_of(body)
    calm = Works(body, lambda: 0)
    undisturbed = account(*durable(data, kinds=calm.kinds()))
    works = Works(body, lambda: random.choice([0, 0.001, 0.003]))
    left = iter([False, True] * 3)

    def die() -> None:
        if next(left, False):
            raise SuspendExecution("killed")

    works.die = die
    outcome, told = durable(data, kinds=works.kinds())
    assert account(outcome, told) == undisturbed
    assert works.finished == calm.finished, "a node that had ended ran again"


def test_the_order_of_a_run_does_not_depend_on_its_threads() -> None:
    """Two runs of which the threads end in opposite orders tell the same."""
    from tests.flow_builders import END, START, code, edge, end, flow, message, ref, start

    names = [f"code::{number}" for number in range(6)]
    nodes = [code(name, inputs=[ref("result", START, "query")]) for name in names]
    said = [message(f"message::{number}", f"{number} ") for number in range(6)]
    edges = [edge(START, name) for name in names]
    edges += [edge(name, one["id"]) for name, one in zip(names, said, strict=True)]
    edges += [edge(one["id"], END) for one in said]
    data = flow([start(), *nodes, *said, end(ref("a", names[0], "result"))], edges)

    def paused(order: list[str]) -> Callable[[Call], Result]:
        def work(call: Call) -> Result:
            time.sleep(0.02 * order.index(call.node.id))
            return Result(dict(call.inputs))

        return work

    accounts: list[Any] = [
        account(*how(data, {"query": "x"}, {"code": paused(order)}))
        for how in (express, durable)
        for order in (names, names[::-1])
    ]
    assert accounts[0] == accounts[1] == accounts[2] == accounts[3]
    assert accounts[0]["content"] == '0 1 2 3 4 5 {"a":"x"}'
