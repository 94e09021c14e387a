"""What goes after runs: what a dead function left, what did not arrive, who is to be told, what is over."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from chalicelib.core import process, storage
from chalicelib.flows.runs import durable, jobs, resuming
from chalicelib.flows.runs.models import FlowRun, FlowRunData, FlowRunEvent, FlowRunNode
from chalicelib.flows.runs.starting import LEASE_S, RESEND_S
from tests.executions import InProcess, running_flows
from tests.fakes.storage import MemoryStorage
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment
from tests.integration.test_flow_runs import asking, greeting, published, until
from tests.run_world import FLOWS, RUNS, actions, begin, change, in_, row, run_job
from tests.threads import at_once

HELLO = {"query": "Ada"}
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("jobs")) as found:
        yield found


@pytest.fixture
def executions(deployment: Deployment) -> Iterator[InProcess]:
    with running_flows() as made:
        yield made


@pytest.fixture
def publisher(deployment: Deployment, executions: InProcess) -> Client:
    alias = f"jobs-{next(_numbers)}"
    return Client(deployment.client.app, deployment.credential(alias, "publisher"))


def run_of(client: Client, run_id: str) -> Any:
    return client.get(f"{RUNS}/{run_id}").json


def types(client: Client, run_id: str) -> list[str]:
    return [one["type"] for one in client.get(f"{RUNS}/{run_id}/events").json["items"]]


def waiting(client: Client, **params: Any) -> Any:
    """A run that waits for an answer."""
    run = client.post(f"{FLOWS}/{published(client, asking(**params))}/runs", {"parameters": HELLO}).json
    assert run["state"] == "waiting"
    return run


def answered(client: Client, run: Any, content: str = "Yes", **more: Any) -> Any:
    body = {"eventId": run["event"]["eventId"], "action": "resume", "content": content, **more}
    return client.post(f"{RUNS}/{run['runId']}/resume", body)


def ended(client: Client, run_id: str) -> Any:
    return until(lambda: run_of(client, run_id), lambda seen: seen["finishedAt"])


# -- the sweep: express --------------------------------------------------------------------------------------------


def test_a_run_whose_function_died_ends(publisher: Client) -> None:
    run_id = begin(publisher, published(publisher, greeting()), HELLO).run_id
    run_job("sweep_runs", in_(seconds=LEASE_S - 5))
    assert run_of(publisher, run_id)["state"] == "running"
    run_job("sweep_runs", in_(seconds=LEASE_S + 5))
    run = run_of(publisher, run_id)
    assert (run["state"], run["error"]["code"], run["error"]["nodeId"]) == ("failed", 22302, None)
    assert run["finishedAt"]
    assert types(publisher, run_id) == ["run.failed"]
    found = row(run_id)
    assert found is not None and (found.active, found.slot, found.wake_at) == (0, None, None)
    assert actions("sweep_runs", in_(days=1), run_id) == []


def test_a_lease_that_was_renewed_meanwhile_counts(publisher: Client) -> None:
    run_id = begin(publisher, published(publisher, greeting()), HELLO).run_id
    (work,) = actions("sweep_runs", in_(seconds=LEASE_S + 5), run_id)
    change(run_id, wake_at=in_(seconds=LEASE_S))
    work()
    assert run_of(publisher, run_id)["state"] == "running"


def test_a_run_that_ended_meanwhile_stays_as_it_ended(publisher: Client) -> None:
    run_id = begin(publisher, published(publisher, greeting()), HELLO).run_id
    (work,) = actions("sweep_runs", in_(seconds=LEASE_S + 5), run_id)
    assert publisher.post(f"{RUNS}/{run_id}/cancel").status == 200
    change(run_id, state="cancelled", active=0, slot=None, wake_at=None)
    work()
    assert run_of(publisher, run_id)["state"] == "cancelled"
    assert types(publisher, run_id) == []


def test_of_several_sweeps_at_once_one_ends_a_run(publisher: Client) -> None:
    run_id = begin(publisher, published(publisher, greeting()), HELLO).run_id
    work = [actions("sweep_runs", in_(seconds=LEASE_S + 5), run_id)[0] for _ in range(4)]
    at_once(lambda number: work[number](), threads=4)
    assert types(publisher, run_id) == ["run.failed"]
    assert run_of(publisher, run_id)["state"] == "failed"


# -- the sweep: durable --------------------------------------------------------------------------------------------


def test_a_run_that_was_not_sent_is_sent_again(publisher: Client, executions: InProcess) -> None:
    executions.is_away = True
    body = {"parameters": HELLO, "mode": "durable", "waitSeconds": 0}
    sent = publisher.post(f"{FLOWS}/{published(publisher, greeting())}/runs", body)
    assert (sent.status, sent.json["state"]) == (202, "queued")
    run_id = sent.json["runId"]
    run_job("sweep_runs", in_(seconds=RESEND_S + 5))
    assert (run_of(publisher, run_id)["state"], executions.started) == ("queued", [])
    executions.is_away = False
    assert actions("sweep_runs", in_(seconds=RESEND_S + 5), run_id) == []  # it was tried a moment ago
    run_job("sweep_runs", in_(seconds=2 * RESEND_S + 15))
    executions.wait(run_id)
    run = run_of(publisher, run_id)
    assert (run["state"], run["outputs"]) == ("succeeded", {"text": "Hello Ada!"})


def test_a_run_that_never_begins_is_given_up(publisher: Client, executions: InProcess) -> None:
    executions.is_away = True
    body = {"parameters": HELLO, "mode": "durable", "waitSeconds": 0}
    run_id = publisher.post(f"{FLOWS}/{published(publisher, greeting())}/runs", body).json["runId"]
    run_job("sweep_runs", in_(hours=5))
    assert run_of(publisher, run_id)["state"] == "queued"
    run_job("sweep_runs", in_(hours=7))
    run = run_of(publisher, run_id)
    assert (run["state"], run["error"]["message"]) == ("failed", "The run could not be begun.")
    executions.is_away = False
    executions.start("", run_id, {"runId": run_id})
    executions.wait(run_id)  # what arrives too late finds that the run is over
    assert run_of(publisher, run_id) == run


def test_an_answer_that_was_not_handed_over_is(publisher: Client, executions: InProcess) -> None:
    run = waiting(publisher)
    executions.is_away = True
    assert answered(publisher, run).json["state"] == "running"
    assert executions.answered == []
    report = run_job("sweep_runs", in_(seconds=RESEND_S + 5))
    assert {one["target"] for one in report["failures"]} >= {run["runId"]}
    executions.is_away = False
    run_job("sweep_runs", in_(seconds=2 * RESEND_S + 15))
    done = ended(publisher, run["runId"])
    assert (done["state"], done["outputs"]) == ("succeeded", {"said": "Yes"})


def test_a_question_that_the_service_forgot_expires(publisher: Client) -> None:
    run = waiting(publisher, timeout=60)
    run_job("sweep_runs", in_(minutes=59))
    assert run_of(publisher, run["runId"])["state"] == "waiting"
    run_job("sweep_runs", in_(minutes=62))
    done = ended(publisher, run["runId"])
    assert (done["state"], done["outputs"]) == ("succeeded", {"said": "No"})
    late = answered(publisher, run)
    assert (late.status, late.json["code"]) == (409, "run.not_waiting")


def test_an_answer_in_the_last_moment_counts(publisher: Client) -> None:
    run = waiting(publisher, timeout=60)
    (work,) = actions("sweep_runs", in_(minutes=62), run["runId"])
    assert answered(publisher, run, waitSeconds=10).json["outputs"] == {"said": "Yes"}
    work()
    assert run_of(publisher, run["runId"])["outputs"] == {"said": "Yes"}


def test_nobody_answers_a_question_that_the_sweep_has_ended(
    publisher: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = waiting(publisher, timeout=60)
    (work,) = actions("sweep_runs", in_(minutes=62), run["runId"])
    with monkeypatch.context() as patched:
        patched.setattr(resuming, "hand_over", lambda *_: None)
        work()
    late = answered(publisher, run)
    assert (late.status, late.json["code"]) == (409, "run.not_waiting")
    # What was not handed over is, by the next sweep.
    run_job("sweep_runs", in_(minutes=65))
    assert ended(publisher, run["runId"])["outputs"] == {"said": "No"}


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_question_whose_execution_is_gone_fails_the_run(
    publisher: Client, executions: InProcess, is_answered: bool
) -> None:
    run = waiting(publisher, timeout=60)
    found = row(run["runId"])
    assert found is not None and found.execution is not None
    executions.lost.add(found.execution)
    if is_answered:
        executions.is_away = True
        answered(publisher, run)
        executions.is_away = False
    run_job("sweep_runs", in_(minutes=62))
    done = run_of(publisher, run["runId"])
    assert (done["state"], done["error"]["code"]) == ("failed", 22302)
    assert types(publisher, run["runId"])[-1] == "run.failed"


def test_an_execution_that_ended_without_telling_fails_the_run(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    alive = row(waiting(publisher)["runId"])
    assert alive is not None
    runs = [begin(publisher, flow_id, HELLO, mode="durable").run_id for _ in range(2)]
    for run_id, execution in zip(runs, (alive.execution, "arn:gone"), strict=True):
        change(run_id, state="running", execution=execution, wake_at=in_(seconds=-1))
    run_job("sweep_runs", in_(seconds=1))
    assert [run_of(publisher, run_id)["state"] for run_id in runs] == ["running", "failed"]
    postponed = row(runs[0])
    assert postponed is not None and postponed.wake_at is not None
    assert postponed.wake_at > in_(seconds=durable.LOOK_AFTER_S - 60)


def test_of_several_sweeps_at_once_a_run_begins_once(publisher: Client, executions: InProcess) -> None:
    executions.is_away = True
    body = {"parameters": HELLO, "mode": "durable", "waitSeconds": 0}
    run_id = publisher.post(f"{FLOWS}/{published(publisher, greeting())}/runs", body).json["runId"]
    executions.is_away = False
    work = [actions("sweep_runs", in_(seconds=RESEND_S + 5), run_id)[0] for _ in range(4)]
    at_once(lambda number: work[number](), threads=4)
    executions.wait(run_id)
    assert types(publisher, run_id).count("run.succeeded") == 1
    assert len(publisher.get(f"{RUNS}/{run_id}/nodes").json["items"]) == 4


def test_what_cannot_be_asked_about_keeps_nobody_else_waiting(
    publisher: Client, executions: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.core.jobs.MOST_FAILURES", 1)
    runs = [waiting(publisher)["runId"] for _ in range(2)]
    executions.is_away = True
    for run_id in runs:
        change(run_id, wake_at=in_(seconds=-100))
    dead = begin(publisher, published(publisher, greeting()), HELLO).run_id
    at = in_(seconds=LEASE_S + 5)
    report = run_job("sweep_runs", at)
    assert len(report["failures"]) == 1
    assert run_of(publisher, dead)["state"] == "failed"
    # The one that failed comes again a minute later, so that the other has its turn.
    assert sorted(len(actions("sweep_runs", at, run_id)) for run_id in runs) == [0, 1]
    assert {run_of(publisher, run_id)["state"] for run_id in runs} == {"waiting"}


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_a_run_that_was_to_end_a_moment_before_it_asks_does_not_wait(
    publisher: Client, executions: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking_real = durable.DurableRun._asking

    def asked_to_end(self: Any, question: Any, callback_id: str) -> None:
        # As `cancel` does while a run works.
        change(self._taken.run_id, cancel=1)
        asking_real(self, question, callback_id)

    monkeypatch.setattr(durable.DurableRun, "_asking", asked_to_end)
    flow_id = published(publisher, asking())
    run_id = publisher.post(f"{FLOWS}/{flow_id}/runs", {"waitSeconds": 0}).json["runId"]
    done = ended(publisher, run_id)
    assert (done["state"], done["event"]) == ("cancelled", None)
    executions.wait(run_id)
    assert types(publisher, run_id)[-1] == "run.cancelled"


# -- what is over --------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[MemoryStorage]:
    made = MemoryStorage()
    storage.use(made)
    yield made
    storage.use(None)


def counts(run_id: str) -> list[int]:
    with process.database().reads() as session:
        return [
            session.scalar(select(func.count()).select_from(model).where(model.run_id == run_id)) or 0
            for model in (FlowRun, FlowRunNode, FlowRunEvent)
        ]


def has_data(digest: str) -> bool:
    with process.database().reads() as session:
        return session.get(FlowRunData, digest) is not None


def test_runs_are_kept_for_thirty_days(
    publisher: Client, bucket: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 3)
    flow_id = published(publisher, greeting())
    body = {"parameters": HELLO, "mode": "durable"}
    run_id, other = (publisher.post(f"{FLOWS}/{flow_id}/runs", body).json["runId"] for _ in range(2))
    alive = waiting(publisher, timeout=60)["runId"]
    value = b"x" * 1000
    digest = hashlib.sha256(value).hexdigest()
    for key in (f"runs/{run_id}/{digest}", f"runs/{run_id}/{digest}", f"runs/{run_id}x/{digest}"):
        bucket.upload(key, value, sha256=digest)
    found = row(run_id)
    assert found is not None
    run_job("retain_runs", in_(days=29))
    assert counts(run_id) == [1, 4, counts(run_id)[2]] and counts(run_id)[2] >= 6
    report = run_job("retain_runs", in_(days=31))
    assert report["failures"] == []
    assert (counts(run_id), counts(other)) == ([0, 0, 0], [0, 0, 0])
    assert counts(alive)[0] == 1
    assert [one.key for one in bucket.list_versions("runs/")] == [f"runs/{run_id}x/{digest}"]
    assert publisher.get(f"{RUNS}/{run_id}").status == 404
    assert has_data(found.digest)
    run_job("retain_runs", in_(days=91))
    assert not has_data(found.digest)


def test_data_that_a_waiting_run_needs_is_used_whenever_the_run_goes_on(publisher: Client) -> None:
    run = waiting(publisher, timeout=60 * 24 * 30)
    found = row(run["runId"])
    assert found is not None
    process.database().run(lambda session: _age(session, found.digest))
    assert answered(publisher, run, waitSeconds=10).json["state"] == "succeeded"
    with process.database().reads() as session:
        used_at = session.get_one(FlowRunData, found.digest).used_at
    assert used_at > in_(minutes=-1)


def _age(session: Any, digest: str) -> None:
    session.get_one(FlowRunData, digest).used_at = in_(days=-29)
