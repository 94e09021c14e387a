"""One effect and one answer per Idempotency-Key, whatever becomes of the endpoint, its process or its line to the
database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from chalice.app import Blueprint, Chalice
from sqlalchemy import event, select, text
from sqlalchemy.exc import ProgrammingError

from chalicelib.api.endpoint import ENDPOINTS, endpoint
from chalicelib.api.request import Answer, Request
from chalicelib.apps.models import App
from chalicelib.core import audit, process
from chalicelib.core.audit import AuditLog
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.instances import Heartbeat, Instance
from tests.http import Client, Deployment, deployed, settings
from tests.wire import WireProxy

APPS = "/api/v1/apps"
PROBLEM = "application/problem+json"


@pytest.fixture
def deployment(database_url: str, with_schema: None) -> Iterator[Deployment]:
    with deployed(database_url) as made:
        yield made


@pytest.fixture
def client(deployment: Deployment) -> Client:
    return deployment.client


def aliases() -> list[str]:
    with process.database().reads() as session:
        return sorted(session.scalars(select(App.alias_id)))


# -- Idempotency-Key -----------------------------------------------------------------------------------------


def test_the_same_request_under_one_key_has_one_effect_and_one_answer(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key)
    # The same request in other bytes.
    again = client.request(
        "POST", APPS, content=b'{ "name": "Acme", "aliasId": "acme" }',
        headers={**key, "Content-Type": "application/json; charset=utf-8"},
    )  # fmt: skip
    assert (first.status, again.status) == (201, 201)
    assert again.json == first.json
    assert {name: again.headers[name] for name in ("location", "etag")} == {
        name: first.headers[name] for name in ("location", "etag")
    }
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert len(client.get("/api/v1/audit?objectId=acme").json["items"]) == 1


def test_another_request_under_a_used_key_is_422(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key)
    other = client.post(APPS, {"aliasId": "other", "name": "Acme"}, headers=key)
    assert (other.status, other.json["code"]) == (422, "idempotency.key_reused")
    assert aliases() == ["acme", "admin"]


def test_a_key_belongs_to_the_app_and_the_route(deployment: Deployment, client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    other = deployment.credential("acme", "admin")
    assert client.post(APPS, {"aliasId": "one", "name": "1"}, headers=key).status == 201
    assert client.post(APPS, {"aliasId": "two", "name": "2"}, headers=key, credential=other).status == 201
    assert client.post(f"{APPS}/one/credentials", {"role": "viewer"}, headers=key).status == 201
    assert client.post(f"{APPS}/two/credentials", {"role": "caller"}, headers=key).status == 201


def test_a_problem_is_not_stored(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    client.post(APPS, {"aliasId": "acme", "name": "Old"})
    assert client.post(APPS, {"aliasId": "acme", "name": "New"}, headers=key).status == 409
    client.delete(f"{APPS}/acme")
    assert client.post(APPS, {"aliasId": "acme", "name": "New"}, headers=key).status == 201


def test_an_answer_that_shows_a_secret_is_not_stored(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post(f"{APPS}/admin/credentials", {"role": "viewer"}, headers=key)
    again = client.post(f"{APPS}/admin/credentials", {"role": "viewer"}, headers=key)
    assert (first.status, again.status, again.json["code"]) == (201, 409, "secret_shown")
    with process.database().reads() as session:
        stored = str(session.execute(text("SELECT * FROM idempotency_record")).all())
    assert first.json["apiSecret"] not in stored
    assert len(client.get(f"{APPS}/admin/credentials").json["items"]) == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "a" * 129])
def test_a_malformed_key_is_400(client: Client, key: str) -> None:
    answer = client.post(APPS, {"aliasId": "acme", "name": "A"}, headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["code"]) == (400, "request.header")
    assert aliases() == ["admin"]


# -- endpoints that misbehave --------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends the invocation as a kill would: no handler of ours sees it."""


class Probe:
    """One endpoint whose behaviour a test sets."""

    def __init__(self) -> None:
        self.calls = 0
        self.before: Any = lambda: None
        self.after: Any = lambda: None

    def handle(self, request: Request) -> Answer:
        self.calls += 1
        self.before()

        def work(session: Any) -> Answer:
            audit.record(session, request.caller, "probe.run", "probe", "1")
            return Answer({"call": self.calls}, status=201)

        answer = request.write(work)
        self.after()
        return answer


@pytest.fixture
def probe(database_url: str, with_schema: None) -> Iterator[tuple[Probe, Client]]:
    """A probe and a client of an application that has that endpoint alone."""
    made, blueprint, known = Probe(), Blueprint("tests.probe"), len(ENDPOINTS)

    def run(request: Request) -> Answer:
        return made.handle(request)

    declare = endpoint(
        blueprint, "POST", "/probe", role="viewer", summary="Probe", body={"type": "object"},
        body_optional=True, returns={201: {"type": "object"}}, idempotent=True,
    )  # fmt: skip
    declare(run)
    app = Chalice(app_name="probe", configure_logs=False)
    app.register_blueprint(blueprint)
    with deployed(database_url, app) as deployment:
        yield made, deployment.client
    del ENDPOINTS[known:]


KEY = {"Idempotency-Key": "k"}


def test_a_crash_is_500_that_says_nothing_but_the_id_that_finds_it_in_the_log(
    probe: tuple[Probe, Client], capsys: pytest.CaptureFixture[str]
) -> None:
    made, client = probe

    def crash() -> None:
        raise ValueError("internal 10.0.0.7 SELECT secret FROM app")

    made.before = crash
    answer = client.post("/api/v1/probe", {})
    assert answer.status == 500
    assert answer.json == {
        "type": "urn:hotplug:problem:internal",
        "title": "Internal error",
        "status": 500,
        "detail": "Something went wrong on our side.",
        "instance": "/api/v1/probe",
        "code": "internal",
        "requestId": answer.headers["x-request-id"],
    }
    line = next(
        json.loads(line) for line in capsys.readouterr().out.splitlines() if answer.json["requestId"] in line
    )
    assert (line["message"], line["errorType"], line["route"][-4:]) == (
        "request.crashed",
        "ValueError",
        ".run",
    )
    assert "10.0.0.7" not in json.dumps(line)


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (UpstreamFailed("It answered 500."), "WARNING"),
        (UpstreamTimeout("It did not answer."), "WARNING"),
        (Unavailable("Not at the moment."), "ERROR"),
    ],
)
def test_only_a_failure_of_ours_is_logged_as_an_error(
    probe: tuple[Probe, Client], capsys: pytest.CaptureFixture[str], error: HotplugError, level: str
) -> None:
    """Error lines ring an alarm, and a tenant's plugin that fails must not wake an operator."""
    made, client = probe

    def fail() -> None:
        raise error

    made.before = fail
    assert client.post("/api/v1/probe", {}).status == error.status
    (line,) = [json.loads(one) for one in capsys.readouterr().out.splitlines() if "request.failed" in one]
    assert (line["level"], line["status"], line["code"]) == (level, error.status, error.code)


def test_a_heartbeat_that_the_database_does_not_understand_is_not_passed_over(mysql_url: str) -> None:
    database = DatabaseService(mysql_url)
    with pytest.raises(ProgrammingError):
        Heartbeat(database).beat("i1", "api", versions={})
    database.close()


def test_an_instance_was_seen_when_its_invocation_began(probe: tuple[Probe, Client]) -> None:
    # Its versions were read then: a change made meanwhile must not look as if it had been missed.
    made, client = probe
    handled = []
    made.before = lambda: handled.append(datetime.now(UTC))
    client.post("/api/v1/probe", {})
    with process.database().reads() as session:
        assert session.scalars(select(Instance.seen_at)).one() <= handled[0]


def test_concurrent_requests_under_one_key_are_409(probe: tuple[Probe, Client]) -> None:
    made, client = probe
    inner = []

    def meanwhile() -> None:
        made.before = lambda: None
        inner.append(client.post("/api/v1/probe", {}, headers=KEY))

    made.before = meanwhile
    outer = client.post("/api/v1/probe", {}, headers=KEY)
    assert (outer.status, made.calls) == (201, 1)
    assert (inner[0].status, inner[0].json["code"]) == (409, "idempotency.in_progress")
    assert inner[0].headers["retry-after"] == "1"


def test_a_kill_before_the_commit_lets_the_key_run_once_more_when_its_time_is_over(
    probe: tuple[Probe, Client],
) -> None:
    made, client = probe

    def kill() -> None:
        raise Killed

    made.before = kill
    with pytest.raises(Killed):
        client.post("/api/v1/probe", {}, headers=KEY, timeout_s=0)
    made.before = lambda: None
    assert client.post("/api/v1/probe", {}, headers=KEY).json == {"call": 2}
    assert client.post("/api/v1/probe", {}, headers=KEY).json == {"call": 2}
    assert (made.calls, probes()) == (2, 1)


def test_a_key_whose_function_may_still_run_is_not_taken_over(probe: tuple[Probe, Client]) -> None:
    made, client = probe

    def kill() -> None:
        raise Killed

    made.before = kill
    with pytest.raises(Killed):
        client.post("/api/v1/probe", {}, headers=KEY, timeout_s=29)
    assert client.post("/api/v1/probe", {}, headers=KEY).status == 409
    assert made.calls == 1


def test_a_kill_after_the_commit_does_not_run_twice(probe: tuple[Probe, Client]) -> None:
    made, client = probe

    def kill() -> None:
        raise Killed

    made.after = kill
    with pytest.raises(Killed):
        client.post("/api/v1/probe", {}, headers=KEY, timeout_s=0)
    again = client.post("/api/v1/probe", {}, headers=KEY)
    assert (again.status, again.json) == (201, {"call": 1})
    assert (made.calls, probes()) == (1, 1)


def test_a_slow_request_whose_key_was_taken_over_does_not_commit(probe: tuple[Probe, Client]) -> None:
    made, client = probe
    inner = []

    def slow() -> None:
        made.before = lambda: None
        inner.append(client.post("/api/v1/probe", {}, headers=KEY))

    made.before = slow
    outer = client.post("/api/v1/probe", {}, headers=KEY, timeout_s=0)
    assert (inner[0].status, outer.status, outer.json["code"]) == (201, 409, "idempotency.superseded")
    assert probes() == 1


def test_an_endpoint_that_would_not_store_its_key_is_a_crash(probe: tuple[Probe, Client]) -> None:
    made, client = probe
    made.handle = lambda request: Answer({}, status=201)  # type: ignore[method-assign]
    assert client.post("/api/v1/probe", {}, headers=KEY).status == 500
    assert client.post("/api/v1/probe", {}).status == 201


def probes() -> int:
    with process.database().reads() as session:
        return len(session.scalars(select(AuditLog).where(AuditLog.action == "probe.run")).all())


# -- a connection that is lost during the commit -------------------------------------------------------------


@pytest.fixture
def line(mysql_url: str, with_schema: None) -> Iterator[tuple[WireProxy, Client]]:
    """A deployment whose line to the database can be cut."""
    with (
        WireProxy(mysql_url) as wire,
        deployed(mysql_url) as deployment,
        settings(HOTPLUG_DATABASE_URL=wire.url),
    ):
        assert deployment.client.get("/api/v1/me").status == 200
        yield wire, deployment.client


def test_a_commit_that_happened_although_its_answer_was_lost_stands(line: tuple[WireProxy, Client]) -> None:
    wire, client = line
    key = {"Idempotency-Key": "k"}

    def commit_and_lose_the_answer(connection: Any) -> None:
        if any("INSERT INTO app " in command for command in wire.commands):
            wire.commands.clear()
            connection.connection.dbapi_connection.commit()
            wire.hang_up()

    event.listen(process.database().engine, "commit", commit_and_lose_the_answer)
    made = client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key)
    assert (made.status, made.json["aliasId"]) == (201, "acme")
    assert client.get(f"{APPS}/acme").json == made.json
    again = client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key)
    assert (again.json, again.headers["idempotency-replayed"]) == (made.json, "true")


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_commit_that_did_not_happen_is_503_and_may_be_tried_again(
    line: tuple[WireProxy, Client], comes_back: bool
) -> None:
    wire, client = line
    key = {"Idempotency-Key": "k"}

    def at_the_commit(command: str) -> bool:
        if command != "QUERY COMMIT" or not any("INSERT INTO app " in one for one in wire.commands):
            return False
        # For the rest of the request the server is there again, or stays away.
        wire.cut = lambda _: not comes_back
        return True

    wire.cut = at_the_commit
    lost = client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key, timeout_s=0)
    wire.cut = lambda _: False
    assert (lost.status, lost.json["code"]) == (503, "database.outcome_unknown")
    assert "retry-after" in lost.headers
    assert aliases() == ["admin"]
    again = client.post(APPS, {"aliasId": "acme", "name": "Acme"}, headers=key)
    assert (again.status, aliases()) == (201, ["acme", "admin"])
