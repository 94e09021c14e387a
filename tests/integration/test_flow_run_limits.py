"""What no run comes to be of: flows that are unsound, and flows that are too much for a durable one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.flows.dsl.limits import MAX_DURABLE_OPERATIONS
from chalicelib.flows.engine.durable import DurableSteps
from chalicelib.flows.runs import durable as runs
from tests.executions import running_flows
from tests.flow_builders import (
    END,
    START,
    Data,
    edge,
    end,
    flow,
    iteration,
    literal,
    loop,
    message,
    node,
    output,
    ref,
)
from tests.flow_builders import start as start_node
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment

FLOWS = "/api/v1/flows"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with flow_deployment("sqlite", tmp_path_factory.mktemp("limits")) as found:
        yield found


@pytest.fixture
def client(deployment: Deployment) -> Iterator[Client]:
    with running_flows():
        yield Client(deployment.client.app, deployment.credential(f"limits-{next(_numbers)}", "publisher"))


def variable(number: int) -> Data:
    """A step that needs nothing but the database."""
    return node(f"node-variable::{number}", {"method": "set"}, inputs=[literal("v", "x")])


def two(*edges: Data, **more: Any) -> Data:
    a, b = message("message::a", "a"), message("message::b", "b")
    return flow([start_node(), a, b, end(), *more.get("nodes", [])], list(edges))


SOUND = [edge(START, "message::a"), edge("message::a", "message::b"), edge("message::b", END)]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (two(*SOUND, edge("message::b", "message::a")), "graph.cycle"),
        (two(*SOUND, edge("message::a", "message::a")), "graph.cycle"),
        (two(*SOUND, edge("message::a", "message::none")), "edge.dangling"),
        (two(*SOUND, edge("message::none", "message::a")), "edge.dangling"),
        (two(*SOUND, edge("message::a", END, "branch_one_of::x")), "edge.handle"),
        (two(*SOUND, edge("message::a", END, "fail_one_of::x")), "edge.handle"),
        (two(*SOUND, edge(END, "message::a")), "edge.handle"),
        (two(*SOUND[:2]), "end.unreachable"),
        (two(*SOUND[1:]), "graph.unreachable"),
        (two(*SOUND, nodes=[message("message::a", "again")]), "node.duplicate"),
        (two(*SOUND, nodes=[node("nothing::1")]), "node.type"),
        (two(*SOUND, nodes=[start_node(node_id="node-start::2")]), "start.count"),
    ],
    ids=[
        "cycle", "self loop", "edge to nothing", "edge from nothing", "unknown branch", "failure edge",
        "edge from an end", "no way to the end", "no way from the start", "twice", "unknown type", "two starts",
    ],
)  # fmt: skip
def test_an_unsound_flow_is_not_run(client: Client, data: Data, rule: str) -> None:
    made = client.post(FLOWS, {"name": "Unsound", "data": data})
    assert made.status == 201, made.body
    path = f"{FLOWS}/{made.json['flowId']}"
    for mode in ("express", "durable"):
        refused = client.post(f"{path}/debug-runs", {"mode": mode})
        assert (refused.status, refused.json["code"]) == (422, "flow.invalid")
        assert rule in {one["rule"] for one in refused.json["errors"]}
    assert client.post(f"{path}/publish", {"version": "v1"}).status == 422
    assert client.post(f"{path}/runs", {}).json["code"] == "flow.not_published"
    assert client.get(f"{path}/runs").json["items"] == []


def wide(count: int) -> Data:
    nodes = [variable(number) for number in range(count)]
    edges = [one for each in nodes for one in (edge(START, each["id"]), edge(each["id"], END))]
    return flow([start_node(), *nodes, end()], edges)


def deep(count: int) -> Data:
    return flow([start_node(), *(variable(number) for number in range(count)), end()])


def again(count: int) -> Data:
    nodes, _ = loop(literal("n", "a"), count=count)
    edges = [edge("loop-node-start::1", "node-variable::1"), edge("node-variable::1", "node-variable::2")]
    edges.append(edge("node-variable::2", "loop-node-end::1"))
    return flow(
        [start_node(), *nodes, variable(1), variable(2), end()],
        [edge(START, "loop::1"), edge("loop::1", END), *edges],
    )


@pytest.mark.parametrize(
    ("data", "operations"),
    [(deep(2_501), 2_501), (wide(1_668), 2_502), (again(1_000), None)],
    ids=["a chain", "rounds", "below"],
)
def test_a_durable_run_is_refused_where_it_may_take_too_much(
    client: Client, data: Data, operations: int | None
) -> None:
    path = f"{FLOWS}/{client.post(FLOWS, {'name': 'Large', 'data': data}).json['flowId']}"
    told = client.post(f"{path}/debug-runs", {"mode": "durable", "waitSeconds": 0})
    if operations is None:
        assert told.status == 202, told.body
        client.post(f"/api/v1/runs/{told.json['runId']}/cancel")
        return
    assert (told.status, told.json["code"]) == (422, "run.too_many_operations")
    assert str(operations) in told.json["detail"]
    assert str(MAX_DURABLE_OPERATIONS) in told.json["detail"]
    assert client.get(f"{path}/runs").json["items"] == []


def test_items_that_are_too_many_fail_the_durable_run(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many there are is known only when it runs."""
    monkeypatch.setattr(runs, "DurableSteps", functools.partial(DurableSteps, most=20))
    body = node(
        "node-variable::1",
        {"method": "set"},
        inputs=[ref("v", "iteration-node-start::1", "items")],
        outputs=[output("v")],
    )
    nodes, edges = iteration(ref("items", START, "items", "array"), body)
    data = flow(
        [start_node(output("items", "array")), *nodes, end()],
        [edge(START, "iteration::1"), edge("iteration::1", END), *edges],
    )
    path = f"{FLOWS}/{client.post(FLOWS, {'name': 'Items', 'data': data}).json['flowId']}"
    few, many = (
        client.post(f"{path}/debug-runs", {"mode": "durable", "parameters": {"items": ["x"] * count}}).json
        for count in (10, 40)
    )
    assert (few["state"], few["error"]) == ("succeeded", None)
    assert (many["state"], many["error"]["code"]) == ("failed", 22302)
    assert many["error"]["message"] == "The run takes more than 20 durable operations."
    events = client.get(f"/api/v1/runs/{many['runId']}/events").json["items"]
    assert events[-1]["type"] == "run.failed"
