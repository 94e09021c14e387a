"""Runs of flows over the API: express and durable, followed, answered, cancelled; and no tenant's but the caller's."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.executions import InProcess, running_flows
from tests.flow_builders import (
    END,
    START,
    edge,
    end,
    flow,
    message,
    node,
    output,
    ref,
    start,
    text_joiner,
)
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment

FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("runs")) as found:
        yield found


@pytest.fixture
def executions(deployment: Deployment) -> Iterator[InProcess]:
    with running_flows() as made:
        yield made


@pytest.fixture
def acme() -> str:
    """The alias of a tenant that nobody else has."""
    return f"acme-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str, executions: InProcess) -> Client:
    return Client(deployment.client.app, deployment.credential(acme, "publisher"))


@pytest.fixture
def stranger(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(f"other-{acme}", "admin"))


def published(client: Client, data: Any, version: str = "v1") -> str:
    made = client.post(FLOWS, {"name": "Flow", "data": data})
    assert made.status == 201, made.body
    flow_id = str(made.json["flowId"])
    put = client.post(f"{FLOWS}/{flow_id}/publish", {"version": version})
    assert put.status == 200, put.body
    return flow_id


def greeting() -> Any:
    return flow(
        [
            start(output("query", required=True)),
            message("message::1", "Hm. ", ref("q", START, "query")),
            text_joiner("text-joiner::1", "Hello {{q}}!", ref("q", START, "query")),
            end(ref("text", "text-joiner::1", "output"), template="{{text}}"),
        ]
    )


def asking(**params: Any) -> Any:
    question = node(
        "question-answer::1",
        {
            "question": "Sure, {{q}}?",
            "answerType": "option",
            "optionAnswer": [
                {"id": "option-one-of::yes", "name": "Yes"},
                {"id": "option-one-of::no", "name": "No", "type": 1},
            ],
            **params,
        },
        inputs=[ref("q", START, "query")],
    )
    yes, no = message("message::yes", "Done."), message("message::no", "Left.")
    return flow(
        [start(), question, yes, no, end(ref("said", "question-answer::1", "content"))],
        [
            edge(START, question["id"]),
            edge(question["id"], yes["id"], "option-one-of::yes"),
            edge(question["id"], no["id"], "option-one-of::no"),
            edge(yes["id"], END),
            edge(no["id"], END),
        ],
    )


def until(look: Any, is_enough: Any, seconds: float = 15) -> Any:
    end_at = time.monotonic() + seconds
    while True:
        seen = look()
        if is_enough(seen) or time.monotonic() > end_at:
            return seen
        time.sleep(0.05)


# -- express -------------------------------------------------------------------------------------------------------


def test_a_published_flow_is_run(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    ran = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"query": "Ada"}})
    assert ran.status == 200, ran.body
    run = ran.json
    assert (run["state"], run["mode"], run["version"]) == ("succeeded", "express", "v1")
    assert (run["content"], run["outputs"]) == ("Hm. Hello Ada!", {"text": "Hello Ada!"})
    assert (run["error"], run["event"], run["progress"]) == (None, None, 1)
    assert publisher.get(f"{RUNS}/{run['runId']}").json == run
    nodes = publisher.get(f"{RUNS}/{run['runId']}/nodes").json["items"]
    assert [one["nodeId"] for one in nodes] == [START, "message::1", "text-joiner::1", END]
    assert nodes[2]["inputs"] == {"q": "Ada"}
    assert nodes[2]["outputs"] == {"errorCode": 0, "errorMessage": "", "output": "Hello Ada!"}
    events = publisher.get(f"{RUNS}/{run['runId']}/events").json
    assert [one["type"] for one in events["items"]] == [
        "run.started", *["node.succeeded"] * 4, "run.succeeded",
    ]  # fmt: skip
    assert [one["seq"] for one in events["items"]] == [1, 2, 3, 4, 5, 6]
    assert (events["isComplete"], events["next"]) == (True, 6)
    listed = publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"]
    assert [one["runId"] for one in listed] == [run["runId"]]
    moments = [*(run[name] for name in ("createdAt", "startedAt", "finishedAt")), events["items"][0]["at"]]
    assert all(map(MOMENT.fullmatch, moments)), moments
    assert "+00:00" not in json.dumps([nodes, events, listed])


def test_parameters_that_do_not_fit_fail_the_run(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"other": 1}}).json
    assert (run["state"], run["error"]["code"], run["error"]["nodeId"]) == ("failed", 22500, START)
    assert run["error"]["message"] == "other is no parameter; query is required"


def test_a_run_is_its_apps_alone(publisher: Client, stranger: Client) -> None:
    flow_id = published(publisher, greeting())
    run_id = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"query": "x"}}).json["runId"]
    assert stranger.post(f"{FLOWS}/{flow_id}/runs", {}).json["code"] == "flow.not_found"
    for answer in (
        stranger.get(f"{RUNS}/{run_id}"),
        stranger.get(f"{RUNS}/{run_id}/nodes"),
        stranger.get(f"{RUNS}/{run_id}/events"),
        stranger.post(f"{RUNS}/{run_id}/cancel"),
        stranger.post(f"{RUNS}/{run_id}/resume", {"eventId": "x", "action": "abort"}),
    ):
        assert (answer.status, answer.json["code"]) == (404, "run.not_found")
    assert stranger.get(f"{FLOWS}/{flow_id}/runs").json["code"] == "flow.not_found"


def test_a_draft_is_run_by_its_publisher(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "Draft", "data": greeting()}).json["flowId"]
    assert publisher.post(f"{FLOWS}/{made}/runs", {}).json["code"] == "flow.not_published"
    run = publisher.post(f"{FLOWS}/{made}/debug-runs", {"parameters": {"query": "B"}}).json
    assert (run["state"], run["version"], run["outputs"]) == ("succeeded", None, {"text": "Hello B!"})
    bad = publisher.post(FLOWS, {"name": "Bad"}).json["flowId"]
    refused = publisher.post(f"{FLOWS}/{bad}/debug-runs", {})
    assert (refused.status, refused.json["code"]) == (422, "flow.invalid")
    assert {one["rule"] for one in refused.json["errors"]} >= {"start.count"}
    assert refused.json["violations"] == len(refused.json["errors"])


def test_one_node_is_run_with_given_inputs(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "Draft", "data": greeting()}).json["flowId"]
    path = f"{FLOWS}/{made}/nodes/text-joiner::1/debug"
    run = publisher.post(path, {"inputs": {"q": "C"}}).json
    assert (run["state"], run["outputs"]) == ("succeeded", {"output": "Hello C!"})
    refused = publisher.post(path, {"inputs": {"x": 1, "y": 2}})
    assert (refused.status, [one["pointer"] for one in refused.json["errors"]]) == (
        422,
        ["/inputs/x", "/inputs/y"],
    )
    alone = publisher.post(f"{FLOWS}/{made}/nodes/{START}/debug", {})
    assert alone.json["code"] == "flow.node_not_alone"
    assert publisher.post(f"{FLOWS}/{made}/nodes/code::9/debug", {}).json["code"] == "flow.node_not_found"


def test_one_idempotency_key_is_one_run(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    body = {"parameters": {"query": "x"}}
    key = {"Idempotency-Key": "once"}
    first, again = (publisher.post(f"{FLOWS}/{flow_id}/runs", body, headers=key) for _ in range(2))
    assert first.json == again.json
    assert len(publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"]) == 1


def test_a_run_is_drawn(publisher: Client) -> None:
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    plain = publisher.get(f"{FLOWS}/{flow_id}/diagram.svg?version=v1")
    drawn = publisher.get(f"{FLOWS}/{flow_id}/diagram.svg?runId={run['runId']}")
    assert (plain.status, drawn.status) == (200, 200), drawn.body
    assert "waiting" in drawn.body
    assert plain.body != drawn.body
    # What was run of a draft is drawn as it was then, and of a part of one that part.
    made = publisher.post(FLOWS, {"name": "Draft", "data": greeting()}).json["flowId"]
    whole = publisher.post(f"{FLOWS}/{made}/debug-runs", {"parameters": {"query": "x"}}).json["runId"]
    part = publisher.post(f"{FLOWS}/{made}/nodes/text-joiner::1/debug", {}).json["runId"]
    etag = {"If-Match": "*"}
    assert publisher.put(f"{FLOWS}/{made}", {"name": "Draft", "data": asking()}, headers=etag).status == 200
    of_whole, of_part = (
        publisher.get(f"{FLOWS}/{made}/diagram.svg?runId={one}").body for one in (whole, part)
    )
    assert "message::1" in of_whole and "question-answer::1" not in of_whole
    assert "text-joiner::1" in of_part and "message::1" not in of_part
    other = published(publisher, greeting())
    missing = publisher.get(f"{FLOWS}/{other}/diagram.svg?runId={run['runId']}")
    assert (missing.status, missing.json["code"]) == (404, "run.not_found")


# -- durable -------------------------------------------------------------------------------------------------------


def test_a_durable_run_gives_what_an_express_one_does(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    body = {"parameters": {"query": "Ada"}}
    express, ran = (
        publisher.post(f"{FLOWS}/{flow_id}/runs", {**body, "mode": mode}) for mode in ("express", "durable")
    )
    assert ran.status == 200, ran.body
    assert ran.json["mode"] == "durable"
    for name in ("state", "content", "outputs", "error", "usage", "progress"):
        assert ran.json[name] == express.json[name], name
    traces = [
        [
            {name: value for name, value in one.items() if name not in ("durationMs", "startedAt")}
            for one in publisher.get(f"{RUNS}/{run.json['runId']}/nodes").json["items"]
        ]
        for run in (express, ran)
    ]
    assert traces[0] == traces[1]


def test_a_question_is_answered_once(publisher: Client, stranger: Client) -> None:
    flow_id = published(publisher, asking())
    asked = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"query": "Ada"}})
    assert asked.status == 202, asked.body
    assert asked.headers["location"] == f"{RUNS}/{asked.json['runId']}"
    assert asked.headers["retry-after"] == "1"
    run, event = asked.json, asked.json["event"]
    assert (run["state"], run["mode"]) == ("waiting", "durable")
    assert (event["type"], event["question"], event["nodeId"]) == (
        "option",
        "Sure, Ada?",
        "question-answer::1",
    )
    assert [one["name"] for one in event["options"]] == ["Yes", "No"]
    assert "callbackId" not in event
    assert MOMENT.fullmatch(event["expiresAt"])
    path = f"{RUNS}/{run['runId']}/resume"
    wrong = publisher.post(path, {"eventId": "other", "action": "resume", "content": "Yes"})
    assert (wrong.status, wrong.json["code"]) == (409, "run.other_event")
    body = {"eventId": event["eventId"], "action": "resume", "content": "Yes", "waitSeconds": 10}
    done = publisher.post(path, body)
    assert (done.status, done.json["state"]) == (200, "succeeded"), done.body
    assert (done.json["content"], done.json["outputs"]) == ('Done.{"said":"Yes"}', {"said": "Yes"})
    again = publisher.post(path, body)
    assert (again.status, again.json["code"]) == (409, "run.not_waiting")
    types = [one["type"] for one in publisher.get(f"{RUNS}/{run['runId']}/events").json["items"]]
    assert types.count("run.waiting") == types.count("run.resumed") == 1
    assert types[-1] == "run.succeeded"


def test_times_of_runs_are_written_as_all_others(publisher: Client) -> None:
    """RFC 3339 in UTC with microseconds: one spelling, which `isoformat` is not in one second of a million."""
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    body = {"eventId": run["event"]["eventId"], "action": "resume", "content": "Yes", "waitSeconds": 10}
    done = publisher.post(f"{RUNS}/{run['runId']}/resume", body).json
    nodes = publisher.get(f"{RUNS}/{run['runId']}/nodes").json["items"]
    frames = publisher.get(f"{RUNS}/{run['runId']}/events").json["items"]
    times = [run["event"]["expiresAt"], *(done[name] for name in ("createdAt", "startedAt", "finishedAt"))]
    times += [one["startedAt"] for one in nodes if one["startedAt"] is not None]
    times += [one["at"] for one in frames]
    assert len(times) == 5 + len(frames)
    for one in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", one), one


@pytest.mark.parametrize(
    ("action", "state", "said"), [("ignore", "succeeded", "No"), ("abort", "failed", None)]
)
def test_a_question_is_skipped_or_refused(publisher: Client, action: str, state: str, said: str) -> None:
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    body = {"eventId": run["event"]["eventId"], "action": action, "waitSeconds": 10}
    done = publisher.post(f"{RUNS}/{run['runId']}/resume", body).json
    assert done["state"] == state
    assert done["outputs"].get("said") == said
    if state == "failed":
        assert done["error"]["code"] == 23802


@pytest.mark.parametrize(("needs", "state"), [(False, "succeeded"), (True, "failed")])
def test_a_question_expires(publisher: Client, needs: bool, state: str) -> None:
    flow_id = published(publisher, asking(timeout=0.01, needReply=needs))
    run_id = publisher.post(f"{FLOWS}/{flow_id}/runs", {"waitSeconds": 0}).json["runId"]
    run = until(lambda: publisher.get(f"{RUNS}/{run_id}").json, lambda seen: seen["finishedAt"])
    assert run["state"] == state
    assert (run["error"] or {}).get("code") == (23802 if needs else None)


def test_a_run_that_waits_is_cancelled(publisher: Client, executions: InProcess) -> None:
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    done = publisher.post(f"{RUNS}/{run['runId']}/cancel")
    assert (done.status, done.json["state"], done.json["error"]["code"]) == (200, "cancelled", 22302)
    assert publisher.post(f"{RUNS}/{run['runId']}/cancel").json == done.json
    executions.wait(run["runId"])  # its execution does not wait for ever
    assert publisher.get(f"{RUNS}/{run['runId']}").json == done.json
    events = publisher.get(f"{RUNS}/{run['runId']}/events").json
    assert events["items"][-1]["type"] == "run.cancelled"
    assert events["isComplete"]
    assert publisher.get(f"{RUNS}/{run['runId']}/events?after={events['next']}").json["items"] == []


def test_an_express_run_asks_no_questions(publisher: Client) -> None:
    flow_id = published(publisher, asking())
    refused = publisher.post(f"{FLOWS}/{flow_id}/runs", {"mode": "express"})
    assert (refused.status, refused.json["code"]) == (422, "run.needs_durable")
    assert publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"] == []


def test_a_run_keeps_its_version(publisher: Client) -> None:
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    etag = {"If-Match": str(publisher.get(f"{FLOWS}/{flow_id}").headers["etag"])}
    assert publisher.put(f"{FLOWS}/{flow_id}", {"name": "F", "data": greeting()}, headers=etag).status == 200
    assert publisher.post(f"{FLOWS}/{flow_id}/publish", {"version": "v2"}).status == 200
    body = {"eventId": run["event"]["eventId"], "action": "resume", "content": "Yes", "waitSeconds": 10}
    done = publisher.post(f"{RUNS}/{run['runId']}/resume", body).json
    assert (done["state"], done["version"], done["outputs"]) == ("succeeded", "v1", {"said": "Yes"})
    now = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"query": "x"}}).json
    assert now["version"] == "v2"


def test_an_app_has_a_share_of_runs(publisher: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    flow_id = published(publisher, asking())
    waiting = [publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json["state"] for _ in range(3)]
    assert waiting == ["waiting"] * 3  # these have no place
    monkeypatch.setattr("chalicelib.flows.runs.durable.send", lambda *_: None)
    path, body = f"{FLOWS}/{flow_id}/runs", {"waitSeconds": 0}
    runs = [publisher.post(path, body) for _ in range(21)]
    assert [run.status for run in runs[:20]] == [202] * 20
    assert (runs[20].status, runs[20].json["code"]) == (429, "run.too_many")
    assert publisher.post(f"{RUNS}/{runs[0].json['runId']}/cancel").json["state"] == "cancelled"
    assert publisher.post(path, body).status == 202
