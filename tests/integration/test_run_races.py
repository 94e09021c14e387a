"""Runs that several functions begin, answer or end at once; and licences that go while runs are on their way."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from chalicelib.core import process
from chalicelib.core.errors import Conflict, Forbidden, HotplugError, TooManyRequests
from chalicelib.core.hotcache import HotCache
from chalicelib.core.settings import settings
from chalicelib.flows import services as flow_services
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.nodes import table
from chalicelib.flows.runs import plans, resuming, starting
from chalicelib.flows.runs.models import FlowRun, FlowRunData
from chalicelib.flows.runs.starting import Wanted
from tests.executions import InProcess, running_flows
from tests.flow_builders import chain, code, end, flow, start
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment
from tests.integration.test_flow_runs import asking, greeting, published, until
from tests.run_world import FLOWS, RUNS, begin, caller, change, functions
from tests.threads import at_once

WRITERS = 8
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("races")) as found:
        yield found


@pytest.fixture
def executions(deployment: Deployment) -> Iterator[InProcess]:
    with running_flows() as made:
        yield made


@pytest.fixture
def acme() -> str:
    return f"races-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str, executions: InProcess) -> Client:
    return Client(deployment.client.app, deployment.credential(acme, "publisher"))


def tried(work: Callable[[], Any]) -> Any:
    """What `work` gives, or the refusal that it meets."""
    try:
        return work()
    except HotplugError as error:
        return error


def active(app_id: int) -> int:
    with process.database().reads() as session:
        mine = (FlowRun.app_id == app_id, FlowRun.active == 1)
        return session.scalar(select(func.count()).select_from(FlowRun).where(*mine)) or 0


def begin_at_once(deployment: Deployment, client: Client, flow_id: str, mode: str) -> list[Any]:
    """Begin a run in each of eight functions at the same moment."""
    who = caller(client)
    with functions(deployment.url, WRITERS) as databases:
        caches = [HotCache(one) for one in databases]
        for cache in caches:
            cache.refresh()
        runnable = [plans.published(cache, who, int(flow_id), None) for cache in caches]

        def work(number: int) -> Any:
            wanted = Wanted({"query": "x"}, mode=mode)
            return tried(
                lambda: starting.begin(databases[number], caches[number], who, runnable[number], wanted)
            )

        return at_once(work, WRITERS)


@pytest.mark.parametrize("mode", ["express", "durable"])
@pytest.mark.parametrize("free", [1, 3, WRITERS])
def test_no_app_has_more_runs_than_its_share_and_none_is_refused_while_there_is_room(
    deployment: Deployment, publisher: Client, mode: str, free: int
) -> None:
    flow_id = published(publisher, greeting())
    for _ in range(settings().max_runs - free):
        begin(publisher, flow_id, mode="durable")
    found = begin_at_once(deployment, publisher, flow_id, mode)
    begun = [one for one in found if isinstance(one, starting.Begun)]
    refused = [one for one in found if isinstance(one, TooManyRequests)]
    assert (len(begun), len(refused)) == (free, WRITERS - free), found
    assert {one.code for one in refused} <= {"run.too_many"}
    assert active(caller(publisher).app_id) == settings().max_runs
    for one in begun:
        assert publisher.get(f"{RUNS}/{one.run_id}").status == 200


def test_of_several_answers_one_counts(
    deployment: Deployment, publisher: Client, executions: InProcess
) -> None:
    run = publisher.post(f"{FLOWS}/{published(publisher, asking())}/runs", {}).json
    who = caller(publisher)
    with functions(deployment.url, WRITERS) as databases:
        services = [replace(flow_services.flow_services(), database=one) for one in databases]

        def work(number: int) -> Any:
            said = ("Yes", "No")[number % 2]
            event = run["event"]["eventId"]
            return tried(lambda: resuming.resume(services[number], who, run["runId"], event, "resume", said))

        found = at_once(work, WRITERS)
    (winner,) = [number for number, one in enumerate(found) if one is None]
    refused = [one for one in found if one is not None]
    assert {(type(one), one.code) for one in refused} == {(Conflict, "run.not_waiting")}
    done = until(lambda: publisher.get(f"{RUNS}/{run['runId']}").json, lambda seen: seen["finishedAt"])
    assert done["outputs"] == {"said": ("Yes", "No")[winner % 2]}
    assert len(executions.answered) == 1


@pytest.mark.parametrize("free", [0, 2])
def test_runs_that_waited_go_on_within_the_share_of_their_app(
    deployment: Deployment, publisher: Client, executions: InProcess, free: int
) -> None:
    """An app could let a hundred runs wait for an answer, which need no place, and let all go on at once."""
    flow_id, who = published(publisher, asking()), caller(publisher)
    waiting = [publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json for _ in range(WRITERS)]
    others = published(publisher, greeting())
    held = [begin(publisher, others, mode="durable") for _ in range(settings().max_runs - free)]
    # WHEN all are answered at once, and what is handed over does not arrive: none of them ends meanwhile
    executions.is_away = True
    with functions(deployment.url, WRITERS) as databases:
        services = [replace(flow_services.flow_services(), database=one) for one in databases]

        def work(number: int) -> Any:
            run = waiting[number]
            event = run["event"]["eventId"]
            return tried(lambda: resuming.resume(services[number], who, run["runId"], event, "resume", "Yes"))

        found = at_once(work, WRITERS)
    executions.is_away = False
    # THEN as many go on as there is room for, and the others wait as before
    refused = [run for run, one in zip(waiting, found, strict=True) if one is not None]
    assert {(type(one), one.code) for one in found if one is not None} == {(TooManyRequests, "run.too_many")}
    assert len(refused) == WRITERS - free
    path = f"{RUNS}/{refused[0]['runId']}"
    assert publisher.get(path).json["event"] == refused[0]["event"]
    answer = {"eventId": refused[0]["event"]["eventId"], "action": "resume", "content": "No"}
    told = publisher.post(f"{path}/resume", answer)
    assert (told.status, told.headers["retry-after"]) == (429, "1")
    # One that ends needs no place; one for whom there is room again goes on, and gives its place back.
    last = {**answer, "eventId": refused[1]["event"]["eventId"], "action": "abort"}
    assert publisher.post(f"{RUNS}/{refused[1]['runId']}/resume", last).status == 202
    assert publisher.post(f"{RUNS}/{held[0].run_id}/cancel").status == 200
    done = publisher.post(f"{path}/resume", {**answer, "waitSeconds": 20})
    assert (done.status, done.json["state"]) == (200, "succeeded"), done.body
    assert (
        publisher.post(f"{FLOWS}/{others}/runs", {"mode": "express", "parameters": {"query": "x"}}).status
        == 200
    )


# -- cancelling what works -----------------------------------------------------------------------------------------


def slow_nodes(count: int) -> Any:
    nodes = [start(), *(code(f"code::{number}") for number in range(count)), end()]
    return flow(nodes, chain(*nodes))


def test_a_run_that_works_ends_soon_after_it_is_cancelled(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def slow(call: Call) -> Result:
        ran.append(call.node.id)
        time.sleep(0.2)
        return Result({"result": "x"})

    real = table.kinds()
    monkeypatch.setattr(table, "kinds", lambda: {**real, "code": slow})
    flow_id = published(publisher, slow_nodes(60))
    answers: list[Any] = []
    body = {"mode": "express"}
    working = threading.Thread(target=lambda: answers.append(publisher.post(f"{FLOWS}/{flow_id}/runs", body)))
    working.start()
    until(lambda: len(ran), lambda count: count >= 3)
    (run,) = publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"]
    began = time.monotonic()
    assert publisher.post(f"{RUNS}/{run['runId']}/cancel").status == 200
    working.join(20)
    took = time.monotonic() - began
    done = answers[0].json
    assert (answers[0].status, done["state"], done["error"]["code"]) == (200, "cancelled", 22302)
    # A look every half a second, and the node that it was at; the whole run would have taken twelve.
    assert took < 5
    assert len(ran) < 40
    assert publisher.get(f"{RUNS}/{run['runId']}").json == done
    events = publisher.get(f"{RUNS}/{run['runId']}/events").json["items"]
    assert events[-1]["type"] == "run.cancelled"
    assert active(caller(publisher).app_id) == 0


# -- licences ------------------------------------------------------------------------------------------------------


def revoke(
    deployment: Deployment, publisher: Client, acme: str, flow_id: str, how: str
) -> Callable[[], None]:
    """Take away an app's right to run a flow; returns what gives it back."""
    if how == "licence":
        path = f"{FLOWS}/{flow_id}/licenses/{acme}"
        assert publisher.put(path, {"status": 0}).status == 200
        return lambda: publisher.put(path, {"status": 1}) and None
    path = f"/api/v1/apps/{acme}"
    assert deployment.client.patch(path, {"status": 0}).status == 200
    return lambda: deployment.client.patch(path, {"status": 1}) and None


@pytest.mark.parametrize("how", ["licence", "app"])
def test_whoever_may_run_no_more_is_refused_by_the_next_run_of_every_process(
    deployment: Deployment, publisher: Client, acme: str, how: str
) -> None:
    flow_id, who = published(publisher, greeting()), caller(publisher)
    with functions(deployment.url, 2) as databases:
        caches = [HotCache(one) for one in databases]

        def run(number: int) -> Any:
            caches[number].refresh()
            return tried(lambda: plans.published(caches[number], who, int(flow_id), None).version)

        assert [run(0), run(1)] == ["v1", "v1"]
        restore = revoke(deployment, publisher, acme, flow_id, how)
        for number in (0, 1):
            refused = run(number)
            assert isinstance(refused, Forbidden) and refused.code == "flow.not_licensed"
        restore()
        assert [run(0), run(1)] == ["v1", "v1"]


@pytest.mark.parametrize("how", ["licence", "app"])
def test_a_run_that_waits_ends_when_it_is_resumed_by_who_may_run_no_more(
    deployment: Deployment, publisher: Client, acme: str, how: str
) -> None:
    flow_id = published(publisher, asking())
    run = publisher.post(f"{FLOWS}/{flow_id}/runs", {}).json
    who = caller(publisher)
    restore = revoke(deployment, publisher, acme, flow_id, how)
    resuming.resume(
        flow_services.flow_services(), who, run["runId"], run["event"]["eventId"], "resume", "Yes"
    )
    if how == "app":
        until(lambda: active(who.app_id), lambda count: count == 0)
        restore()
    done = until(lambda: publisher.get(f"{RUNS}/{run['runId']}").json, lambda seen: seen["finishedAt"])
    assert (done["state"], done["error"]["code"]) == ("failed", 22302)
    assert "flow.not_licensed" in done["error"]["message"]
    assert done["content"] == ""


def test_a_cancelled_run_gives_its_place_back_once(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    run_id = begin(publisher, flow_id, mode="durable").run_id
    change(run_id, cancel=0)
    assert [publisher.post(f"{RUNS}/{run_id}/cancel").json["state"] for _ in range(2)] == ["cancelled"] * 2
    assert active(caller(publisher).app_id) == 0


def test_runs_that_meet_a_sub_flow_for_the_first_time_keep_its_data_once(deployment: Deployment) -> None:
    """Whoever comes second has not failed: what it was about to keep is kept."""
    with functions(process.database().database_url, WRITERS) as databases:
        for number in range(10):
            digest = f"{number:064x}"
            at_once(lambda one, digest=digest: starting.keep_data(databases[one], digest, "{}"), WRITERS)  # type: ignore[misc]
            with process.database().reads() as session:
                kept = session.scalars(select(FlowRunData.data).where(FlowRunData.digest == digest)).all()
            assert kept == ["{}"]
