"""Telling of the end of a run: signed, a few times, to nobody on forbidden ground, and without a word in the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.engine import make_url

from chalicelib.apps.models import AppSecret
from chalicelib.core import process
from chalicelib.flows.runs import callbacks, jobs
from chalicelib.flows.runs.models import FlowRun
from tests.flow_rows import flow_deployment
from tests.http import Client, Deployment
from tests.integration.test_flow_runs import greeting, published
from tests.internet import OK, Internet, client, header_of
from tests.run_world import FLOWS, begin, caller, change, functions, in_, job, outwards, row, run_job
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, INVALID, REDIRECTS, VECTORS
from tests.threads import at_once

HOOK = "http://hook.example/done?for=us"
FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("callbacks")
    (folder / "master.key").write_bytes(os.urandom(32))
    with flow_deployment(request.param, folder, HOTPLUG_KEY_FILE=str(folder / "master.key")) as found:
        yield found


@pytest.fixture(autouse=True)
def _nobody_else_is_told(deployment: Deployment) -> Iterator[None]:
    yield
    process.database().run(lambda session: session.execute(update(FlowRun).values(callback_at=None)))


@pytest.fixture
def acme() -> str:
    return f"told-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(acme, "publisher"))


@pytest.fixture
def secret(deployment: Deployment, acme: str, publisher: Client) -> str:
    """The webhook secret of acme."""
    made = deployment.client.post(f"/api/v1/apps/{acme}/webhook-secret")
    assert made.status == 201, made.body
    return str(made.json["secret"])


def run(publisher: Client, query: str = "Ada", url: str = HOOK) -> Any:
    """A run that has ended, and is to be told."""
    flow_id = published(publisher, greeting())
    ran = publisher.post(f"{FLOWS}/{flow_id}/runs", {"parameters": {"query": query}, "callbackUrl": url})
    assert ran.status == 200, ran.body
    return ran.json


def verified(request: bytes, secret: str) -> Any:
    """The body of a request, by the words of the specification of Standard Webhooks (verifying signatures)."""
    told_id, told_at = header_of(request, "webhook-id"), header_of(request, "webhook-timestamp")
    assert told_id is not None and told_at is not None
    assert abs(time.time() - int(told_at)) < 300
    body = request.partition(b"\r\n\r\n")[2]
    key = base64.b64decode(secret.split("_", 1)[1], validate=True)
    assert len(key) >= 24
    digest = hmac.digest(key, b".".join([told_id.encode(), told_at.encode(), body]), hashlib.sha256)
    given = (header_of(request, "webhook-signature") or "").split(" ")
    assert f"v1,{base64.b64encode(digest).decode()}" in given
    return json.loads(body)


def tell(internet: Internet, at: datetime | None = None) -> dict[str, Any]:
    """Run the job that tells."""
    return run_job("send_run_callbacks", at or in_(seconds=1), outwards(client(internet)))


def test_the_end_of_a_run_is_told_once_and_signed(publisher: Client, secret: str, internet: Internet) -> None:
    server = internet.serve("hook.example", 80, OK)
    ended = run(publisher)
    tell(internet)
    (request,) = server.requests
    assert request.startswith(b"POST /done?for=us HTTP/1.1\r\n")
    assert header_of(request, "content-type") == "application/cloudevents+json"
    told = verified(request, secret)
    assert header_of(request, "webhook-id") == told["id"] == ended["runId"]
    assert (told["specversion"], told["type"]) == ("1.0", "hotplug.run.succeeded")
    assert told["source"] == f"{FLOWS}/{ended['flowId']}"
    assert (told["data"], told["time"]) == (ended, ended["finishedAt"])
    tell(internet, in_(days=1))
    assert server.connections == 1


def test_a_signature_of_other_bytes_is_none(publisher: Client, secret: str, internet: Internet) -> None:
    server = internet.serve("hook.example", 80, OK)
    run(publisher)
    tell(internet)
    with pytest.raises(AssertionError):
        verified(server.requests[0].replace(b"Ada", b"Eve"), secret)


def test_a_run_is_not_told_before_it_has_ended(publisher: Client, secret: str, internet: Internet) -> None:
    server = internet.serve("hook.example", 80, OK)
    flow_id = published(publisher, greeting())
    run_id = begin(publisher, flow_id, {"query": "x"}, callback_url=HOOK).run_id
    tell(internet, in_(days=1))
    assert server.connections == 0
    run_job("sweep_runs", in_(minutes=1))
    tell(internet)
    assert verified(server.requests[0], secret)["type"] == "hotplug.run.failed"
    assert row(run_id) is not None


def test_without_a_secret_nothing_is_promised(publisher: Client) -> None:
    flow_id = published(publisher, greeting())
    refused = publisher.post(f"{FLOWS}/{flow_id}/runs", {"callbackUrl": HOOK})
    assert (refused.status, refused.json["code"]) == (422, "run.no_webhook_secret")
    assert publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"] == []


def test_there_are_five_tries_within_an_hour_and_no_more(
    publisher: Client, secret: str, internet: Internet
) -> None:
    assert sum(callbacks.PAUSES_S) < 3600
    server = internet.serve("hook.example", 80, FAILED)
    run(publisher)
    tell(internet)
    for number, pause in enumerate(callbacks.PAUSES_S, 1):
        tell(internet, in_(seconds=pause - 10))
        assert server.connections == number
        tell(internet, in_(seconds=pause + 5))
        assert server.connections == number + 1
    for days in (1, 2, 3):
        tell(internet, in_(days=days))
    assert server.connections == 5
    ids = {verified(request, secret)["id"] for request in server.requests}
    assert len(ids) == 1


def test_a_try_that_is_taken_is_the_last(publisher: Client, secret: str, internet: Internet) -> None:
    server = internet.serve("hook.example", 80, FAILED, OK)
    run(publisher)
    tell(internet)
    tell(internet, in_(seconds=callbacks.PAUSES_S[0] + 5))
    tell(internet, in_(days=1))
    assert server.connections == 2


def test_a_try_that_its_function_does_not_survive_counts(
    publisher: Client, secret: str, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run(publisher)["runId"]
    tries = 0

    def die(*_: Any) -> str:
        nonlocal tries
        tries += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "_send", die)
    http = outwards(client(internet))(1)
    for _ in range(8):
        found = row(run_id)
        if found is not None and found.callback_at is not None:
            change(run_id, callback_at=in_(seconds=-1))
        try:
            callbacks.deliver(process.database(), http, run_id)
        except KeyboardInterrupt:
            continue
    assert tries == 5


def test_of_two_deliveries_at_once_one_is_made(
    deployment: Deployment, publisher: Client, secret: str, internet: Internet
) -> None:
    server = internet.serve("hook.example", 80, OK)
    run_id = run(publisher)["runId"]
    with functions(deployment.url, 4) as databases:
        for one in databases:
            with one.reads() as session:
                session.connection()
        http = outwards(client(internet))(1)
        taken = at_once(lambda number: callbacks.deliver(databases[number], http, run_id), threads=4)
    assert sorted(taken) == [False, False, False, True]
    assert server.connections == 1


def test_without_its_secret_a_run_is_told_to_nobody_and_given_up(
    publisher: Client, secret: str, internet: Internet
) -> None:
    server = internet.serve("hook.example", 80, OK)
    ended = run(publisher)
    gone = delete(AppSecret).where(AppSecret.app_id == caller(publisher).app_id)
    process.database().run(lambda session: session.execute(gone))
    for hours in range(8):
        tell(internet, in_(hours=hours, seconds=1))
    found = row(ended["runId"])
    assert found is not None
    assert (server.connections, found.callback_tries, found.callback_at) == (0, 5, None)


def test_every_app_has_its_turn(
    deployment: Deployment, publisher: Client, secret: str, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST", 3)
    other = Client(deployment.client.app, deployment.credential(f"other-{acme}", "publisher"))
    deployment.client.post(f"/api/v1/apps/other-{acme}/webhook-secret")
    many = [run(publisher)["runId"] for _ in range(4)]
    one = run(other)["runId"]
    for seconds, run_id in enumerate([*many, one]):
        change(run_id, callback_at=in_(seconds=seconds - 100))
    plan = job("send_run_callbacks", in_(seconds=1)).plan({})
    assert [action.target for action in plan.actions] == [many[0], one, many[1]]
    assert plan.more


def test_nothing_of_it_is_logged(
    publisher: Client, secret: str, internet: Internet, capfd: pytest.CaptureFixture[str]
) -> None:
    internet.serve("hook.example", 80, FAILED)
    ended = run(publisher, "my-own-words", f"{HOOK}&token=hush-hush")
    tell(internet)
    shown = "".join(capfd.readouterr())
    assert "run.callback" in shown and ended["runId"] in shown
    for hidden in (secret, secret.removeprefix("whsec_"), "my-own-words", "hush-hush", "hook.example"):
        assert hidden not in shown


# -- forbidden ground ----------------------------------------------------------------------------------------------


@pytest.fixture
def trap(deployment: Deployment) -> Iterator[Trap]:
    url = make_url(deployment.url)
    with Trap([(url.host, url.port)] if url.host is not None and url.port is not None else []) as set_trap:
        yield set_trap


def code_of(trap: Trap, run_id: str, url: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Why a URL that no check has looked at is not told."""
    told: list[dict[str, Any]] = []
    change(run_id, callback_url=url, callback_at=in_(seconds=-1), callback_tries=0)
    http = outwards(trap.client(sleep=lambda _: None))(1)
    with monkeypatch.context() as patched:
        patched.setattr(callbacks.telemetry, "event", lambda _name, **fields: told.append(fields))
        assert callbacks.deliver(process.database(), http, run_id) is False
    return told[-1]["code"]  # type: ignore[no-any-return]


def test_nobody_on_forbidden_ground_is_told(
    publisher: Client, secret: str, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run(publisher)["runId"]
    # What is too long for its column, or no text at all, is refused by the API.
    storable = [one for one in VECTORS if len(one.url) <= 2048 and "\ud800" not in one.url]
    codes = {one.id: code_of(trap, run_id, one.url, monkeypatch) for one in storable}
    trap.assert_untouched()
    assert codes == {one.id: one.code for one in storable}
    assert len(storable) > 180


def test_what_is_no_url_is_refused_at_once(publisher: Client, secret: str, trap: Trap) -> None:
    flow_id = published(publisher, greeting())
    wrong = []
    for vector in VECTORS:
        answer = publisher.post(f"{FLOWS}/{flow_id}/runs", {"callbackUrl": vector.url})
        if vector.code == INVALID and answer.status not in (400, 422):
            wrong.append((vector.id, answer.status))
        if vector.code == FORBIDDEN and answer.status not in (200, 422):
            # Most are well-formed: where they lead is found out when they are called.
            wrong.append((vector.id, answer.status))
    trap.assert_untouched()
    assert wrong == []


@pytest.mark.parametrize("status", [302, 307])
def test_no_redirect_is_followed(
    publisher: Client, secret: str, trap: Trap, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    run_id = run(publisher)["runId"]
    numbers = range(0, len(REDIRECTS), 9)
    with trap.redirecting() as start_:
        codes = [code_of(trap, run_id, start_.url(status, number), monkeypatch) for number in numbers]
        assert start_.server.connections == len(numbers)
        trap.assert_untouched()
    assert None not in codes


def test_the_trap_sees_a_call_that_is_allowed(
    publisher: Client, secret: str, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run(publisher)["runId"]
    code = code_of(trap, run_id, "http://hook.example/", monkeypatch)
    assert code not in (None, INVALID, FORBIDDEN)
    assert trap.accepted() >= 1
