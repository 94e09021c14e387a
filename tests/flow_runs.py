"""Runs of flows without a database: what the interpreter is given, and what it told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.model import Node
from chalicelib.flows.engine.attempts import attempts_of
from chalicelib.flows.engine.call import Call, Exchange, Execute, Result, Scope
from chalicelib.flows.engine.durable import MAX_OPERATIONS, DurableSteps, Values
from chalicelib.flows.engine.errors import SUBFLOW_FAILED, NodeError, chain
from chalicelib.flows.engine.express import ExpressSteps
from chalicelib.flows.engine.interpreter import Interpreter
from chalicelib.flows.engine.outcome import Outcome
from chalicelib.flows.engine.plan import Plan, plan_of
from chalicelib.flows.engine.steps import Answer, Question
from chalicelib.flows.engine.trace import NodeRecord
from chalicelib.flows.nodes.pure import PURE
from tests.executions import running

APP = Caller(1, "app_one", 1, "caller", "request-1")
SCOPE = Scope("run-1", APP, APP, 1)


@dataclass
class Told:
    """A `Trace` that keeps everything.

    Attributes
    ----------
    order
        What happened in the order in which it was told: `began` or `ended`, and the node's key.
    """

    begun: list[str] = field(default_factory=list)
    order: list[tuple[str, str]] = field(default_factory=list)
    records: list[NodeRecord] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    exchanges: list[tuple[str, Exchange]] = field(default_factory=list)

    def started(self, key: str, node_id: str) -> None:
        self.begun.append(key)
        self.order.append(("began", key))

    def ended(self, record: NodeRecord, content: str | None, progress: float) -> None:
        self.records.append(record)
        self.order.append(("ended", record.key))
        self.progress.append(progress)

    def remember(self, node_id: str, flow_id: int, exchange: Exchange) -> None:
        self.exchanges.append((node_id, exchange))

    def states(self) -> dict[str, str]:
        """The state of each node that ended, by its key."""
        return {record.key: record.state for record in self.records}

    def outputs(self, key: str) -> dict[str, Any]:
        """What a node gave."""
        (found,) = [record for record in self.records if record.key == key]
        return dict(found.outputs)


def plan(data: Any) -> Plan:
    """The plan of a flow that has no violations."""
    checked = check_flow(data)
    assert checked.flow is not None, checked.violations
    return plan_of(checked.flow)


Subflows = Mapping[str, Any]


def opener(subflows: Subflows) -> Callable[[Scope, Node, Mapping[str, Any]], tuple[Plan, Scope]]:
    """Opens sub-flows out of a dictionary of data by flow id."""

    def open_subflow(scope: Scope, node: Node, found: Mapping[str, Any]) -> tuple[Plan, Scope]:
        flow_id = node.params["flowId"]
        return plan(subflows[flow_id]), Scope(scope.run_id, scope.caller, scope.author, int(flow_id))

    return open_subflow


def resolver(subflows: Subflows) -> Execute:
    """The step of a sub-flow node: says which version there is."""

    def resolve(call: Call) -> Result:
        if call.node.params["flowId"] not in subflows:
            raise NodeError(SUBFLOW_FAILED, "there is no such flow", is_transient=False)
        return Result({"version": "v1"})

    return resolve


def express(
    data: Any,
    parameters: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Execute] | None = None,
    *,
    subflows: Subflows | None = None,
    seconds: float = 20.0,
    threads: int = 16,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Outcome, Told]:
    """Run a flow in this process."""
    told = Told()
    deadline = time.monotonic() + seconds
    all_kinds = {"code": echo, "flow": resolver(subflows or {}), **(kinds or {})}
    steps = ExpressSteps(
        attempts_of(all_kinds), chain(), SCOPE.run_id, deadline=deadline, tick=tick, threads=threads
    )
    interpreter = Interpreter(
        plan(data), SCOPE, steps, told, pure=PURE, open_subflow=opener(subflows or {}), handlers=chain()
    )
    try:
        return interpreter.run(parameters or {}), told
    finally:
        steps.close()


def durable(
    data: Any,
    parameters: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Execute] | None = None,
    *,
    subflows: Subflows | None = None,
    answers: Callable[[Question], Answer] | None = None,
    most: int = MAX_OPERATIONS,
    values: Values | None = None,
    check: Callable[[], None] = lambda: None,
    invoked: Callable[[], None] = lambda: None,
) -> tuple[Outcome, Told]:
    """Run a flow as a durable execution, in this process, in which waiting takes no time.

    Parameters
    ----------
    answers
        Answers each question; without it, a question fails the test.
    check, invoked
        Called before each round, and at the beginning of each invocation; what they raise ends the invocation.
    """
    ended: list[tuple[Outcome, Told]] = []
    all_kinds = {"code": echo, "flow": resolver(subflows or {}), **(kinds or {})}
    the_plan = plan(data)

    def asked(question: Question, callback_id: str) -> None:
        assert answers is not None, f"nobody answers {question.key}"
        answer = answers(question)
        if answer.action != "expired":
            told = json.dumps({"action": answer.action, "content": answer.content}).encode()
            threading.Timer(0.02, runner.send_callback_success, (callback_id, told)).start()

    def handler(_event: Any, context: Any) -> None:
        invoked()
        told = Told()
        steps = DurableSteps(
            context,
            attempts_of(all_kinds),
            chain(),
            SCOPE.run_id,
            asked=asked,
            most=most,
            values=values,
            check=check,
        )
        interpreter = Interpreter(
            the_plan, SCOPE, steps, told, pure=PURE, open_subflow=opener(subflows or {}), handlers=chain()
        )
        try:
            ended.append((interpreter.run(parameters or {}), told))
        finally:
            steps.close()

    with running(handler) as runner:
        result = runner.run(input="{}", execution_timeout=120)
    assert result.status.value == "SUCCEEDED", result.error
    return ended[-1]


def echo(call: Call) -> Result:
    """A node that gives its inputs back."""
    return Result(dict(call.inputs))
