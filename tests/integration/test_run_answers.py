"""What a run has left is told in answers that a function can give, however much of it there is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import insert

from chalicelib.core import process
from chalicelib.flows.runs.models import FlowRunEvent, FlowRunNode
from chalicelib.flows.runs.recording import MAX_FRAME_CONTENT, MAX_VALUE
from infra.local.invocation import MAX_RESPONSE
from tests.executions import running_flows
from tests.flow_builders import end, flow, start
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment, Response
from tests.run_world import FLOWS, RUNS

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("answers")) as found:
        yield found


@pytest.fixture
def client(deployment: Deployment) -> Iterator[Client]:
    with running_flows():
        yield Client(deployment.client.app, deployment.credential(f"answers-{next(_numbers)}", "publisher"))


@pytest.fixture
def run_id(client: Client) -> str:
    """A run that has ended, with two nodes and four frames."""
    made = client.post(FLOWS, {"name": "Flow", "data": flow([start(), end()])}).json
    client.post(f"{FLOWS}/{made['flowId']}/publish", {"version": "v1"})
    ran = client.post(f"{FLOWS}/{made['flowId']}/runs", {})
    assert ran.json["state"] == "succeeded", ran.body
    return str(ran.json["runId"])


def put(model: type[Any], rows: list[dict[str, Any]]) -> None:
    for row in rows:
        # One at a time: together they are larger than what a server takes.
        process.database().run(lambda session, row=row: session.execute(insert(model), [row]))  # type: ignore[misc]


def is_given(answer: Response) -> bool:
    """Whether Lambda would take an answer from a function."""
    envelope = {"statusCode": 200, "headers": dict(answer.headers), "body": answer.body}
    return answer.status == 200 and len(json.dumps(envelope, ensure_ascii=False).encode()) <= MAX_RESPONSE


@pytest.mark.parametrize("character", ["x", "é", '"'])
def test_nodes_with_the_largest_values_are_listed_to_the_last(
    client: Client, run_id: str, character: str
) -> None:
    largest = {"v": character * (MAX_VALUE // len(json.dumps(character, ensure_ascii=False)[1:-1]) - 20)}
    row = {
        "run_id": run_id, "node_type": "code", "alias_name": "", "attempt": 1, "state": "succeeded",
        "inputs": largest, "outputs": largest, "started_at": datetime.now(UTC), "duration_us": 1,
    }  # fmt: skip
    ids = [f"code::{number}" for number in range(12)]
    put(
        FlowRunNode,
        [{**row, "position": 2 + number, "node_key": id, "node_id": id} for number, id in enumerate(ids)],
    )
    found: list[str] = []
    query: dict[str, Any] = {"limit": 100}
    while True:
        answer = client.get(f"{RUNS}/{run_id}/nodes?{urlencode(query)}")
        assert is_given(answer), (answer.status, len(answer.body))
        found += [one["nodeId"] for one in answer.json["items"]]
        if answer.json["nextCursor"] is None:
            break
        query["cursor"] = answer.json["nextCursor"]
    assert found[2:] == ids


def test_events_that_say_much_are_told_to_the_last(client: Client, run_id: str) -> None:
    count = 150
    frames = [
        {"seq": seq, "type": "node.succeeded", "content": '"' * MAX_FRAME_CONTENT}
        for seq in range(5, 5 + count)
    ]
    put(FlowRunEvent, [{"run_id": run_id, "seq": one["seq"], "frame": one} for one in frames])
    seen: list[int] = []
    after, answers = 0, 0
    while True:
        answer = client.get(f"{RUNS}/{run_id}/events?after={after}")
        assert is_given(answer), (answer.status, len(answer.body))
        seen += [one["seq"] for one in answer.json["items"]]
        after, answers = answer.json["next"], answers + 1
        if answer.json["isComplete"]:
            break
        assert answer.json["items"]
    assert seen == list(range(1, 5 + count))
    assert answers < 12


@pytest.mark.parametrize(("count", "answers"), [(496, 1), (497, 2)])
def test_the_last_answer_says_that_it_is_the_last(
    client: Client, run_id: str, count: int, answers: int
) -> None:
    put(FlowRunEvent, [{"run_id": run_id, "seq": seq, "frame": {"seq": seq}} for seq in range(5, 5 + count)])
    after, complete = 0, []
    while not complete or not complete[-1]:
        answer = client.get(f"{RUNS}/{run_id}/events?after={after}").json
        after = answer["next"]
        complete.append(answer["isComplete"])
    assert len(complete) == answers
    assert after == 4 + count
