"""What a run tells, where its values are as large as they may be: every answer about it is one that Lambda carries."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core.answers import MAX_ANSWER_BYTES, text_bytes
from chalicelib.flows.engine.questions import MAX_QUESTION
from tests.executions import running_flows
from tests.flow_builders import (
    END,
    START,
    Data,
    edge,
    end,
    flow,
    iteration,
    message,
    node,
    output,
    ref,
    text_joiner,
)
from tests.flow_builders import start as start_node
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment

FLOWS = "/api/v1/flows"
ITEMS = 90
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with flow_deployment("sqlite", tmp_path_factory.mktemp("sizes")) as found:
        yield found


@pytest.fixture
def client(deployment: Deployment) -> Iterator[Client]:
    with running_flows():
        yield Client(deployment.client.app, deployment.credential(f"sizes-{next(_numbers)}", "publisher"))


def run(client: Client, data: Data, parameters: dict[str, Any], **more: Any) -> Any:
    made = client.post(FLOWS, {"name": "Large", "data": data})
    assert made.json["warnings"] == [], made.json["warnings"]
    path = f"{FLOWS}/{made.json['flowId']}/debug-runs"
    answer = client.post(path, {"parameters": parameters, **more})
    assert answer.status in (200, 202), answer.body[:500]
    return answer.json


def pages(client: Client, path: str, name: str) -> list[Any]:
    """All items of a listing; `name` of the parameter that asks for the next page."""
    items: list[Any] = []
    answer = client.get(path)
    while True:
        assert answer.status == 200, answer.body[:500]
        assert text_bytes(answer.body) <= MAX_ANSWER_BYTES
        items += answer.json["items"]
        following = answer.json["next"] if name == "after" else answer.json["nextCursor"]
        if following is None or answer.json.get("isComplete"):
            return items
        answer = client.get(f"{path}{'&' if '?' in path else '?'}{name}={following}")


def test_messages_and_traces_of_megabytes_come_on_many_pages(client: Client) -> None:
    # GIVEN a run whose nodes say, take and give a large text for each of many items
    large = [ref("large", START, "large")]
    nodes, edges = iteration(
        ref("items", START, "items", "array"),
        message("message::1", "{{large}}", *large),
        text_joiner("text-joiner::1", "{{large}}", *large),
    )
    data = flow(
        [start_node(output("items", "array"), output("large")), *nodes, end()],
        [edge(START, "iteration::1"), edge("iteration::1", END), *edges],
    )
    ended = run(client, data, {"items": ["x"] * ITEMS, "large": '"' * 100_000})
    assert ended["error"]["message"].startswith("Outputs and content take more than")
    place = f"/api/v1/runs/{ended['runId']}"

    # THEN all of its events and nodes can be read, in order
    events = pages(client, f"{place}/events", "after")
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run.failed"
    traced = pages(client, f"{place}/nodes?limit=100", "cursor")
    assert [one["position"] for one in traced] == list(range(len(traced)))
    assert sum(one["nodeId"] == "text-joiner::1" for one in traced) == ITEMS


def test_a_question_has_a_length(client: Client) -> None:
    """It stands in the run's row while it waits, and in every answer about it."""
    asked = node(
        "question-answer::1",
        {"question": "{{q}}", "answerType": "direct"},
        inputs=[ref("q", START, "query")],
        outputs=[output("content")],
    )
    data = flow([start_node(), asked, end()])
    waiting = run(client, data, {"query": "x" * MAX_QUESTION})
    assert (waiting["state"], len(waiting["event"]["question"])) == ("waiting", MAX_QUESTION)
    refused = run(client, data, {"query": "x" * (MAX_QUESTION + 1)})
    assert (refused["state"], refused["error"]) == (
        "failed",
        {
            "code": 22302,
            "message": "The question has more than 65536 characters.",
            "nodeId": "question-answer::1",
        },
    )


def test_an_answer_that_cannot_travel_is_a_problem(client: Client) -> None:
    """Lambda would end the invocation as failed, and an alarm would ring."""
    made = client.post(FLOWS, {"name": "Large", "data": {"nodes": [{"id": '"' * 1_600_000}], "edges": []}})
    assert made.status == 201, made.body[:300]
    answer = client.get(f"{FLOWS}/{made.json['flowId']}")
    assert (answer.status, answer.json["code"]) == (500, "answer.too_large")
    assert json.loads(answer.body)["requestId"]
