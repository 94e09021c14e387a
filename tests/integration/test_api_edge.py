"""The HTTP edge through app(event, context), on every database: what each request goes through."""

from __future__ import annotations

import base64
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
from chalicelib.core.instances import Heartbeat, Instance
from tests.http import Client, Deployment, deployed, hotplug, settings
from tests.wire import WireProxy

APPS = "/api/v1/apps"
PROBLEM = "application/problem+json"


@pytest.fixture
def deployment(database_url: str) -> Iterator[Deployment]:
    with deployed(database_url) as made:
        yield made


@pytest.fixture
def client(deployment: Deployment) -> Client:
    return deployment.client


def aliases() -> list[str]:
    with process.database().reads() as session:
        return sorted(session.scalars(select(App.alias_id)))


# -- system --------------------------------------------------------------------------------------------------


def test_health_and_the_description_are_open(client: Client) -> None:
    health = client.get("/health", credential=None)
    assert (health.status, health.json["database"]) == (200, "ok")
    assert client.get("/openapi.json", credential=None).json["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/health", "/api/v1/me"])
@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.db", "mysql+pymysql://root@127.0.0.1:1/none"])
def test_a_database_that_is_away_is_503_and_nothing_of_it_is_shown(path: str, url: str) -> None:
    with settings(HOTPLUG_DATABASE_URL=url):
        answer = Client(hotplug(), "key:secret").get(path)
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "database.away", "2")
    assert "127.0.0.1" not in answer.body
    assert "nowhere" not in answer.body


def test_me_tells_who_is_calling(deployment: Deployment, client: Client) -> None:
    me = client.get("/api/v1/me", credential=deployment.credential("acme", "publisher")).json
    assert (me["aliasId"], me["role"], me["limits"]["burst"]) == ("acme", "publisher", 100_000)


def test_the_pair_may_be_sent_as_base64(client: Client) -> None:
    token = base64.b64encode(str(client.credential).encode()).decode()
    assert (
        client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}, credential=None).status == 200
    )


def test_instances_show_this_function_as_current_and_one_left_behind_as_idle(client: Client) -> None:
    client.get("/api/v1/me")
    [own] = client.get("/api/v1/instances").json["items"]
    assert (own["instanceId"], own["state"], own["function"]) == (process.INSTANCE_ID, "current", "local")
    # WHEN a change is made after the other was last invoked
    process.heartbeat().beat("f" * 32, "runtime", tenant="acme", versions={"apps": own["versions"]["apps"]})
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    states = {item["instanceId"]: item["state"] for item in client.get("/api/v1/instances").json["items"]}
    assert states == {process.INSTANCE_ID: "idle", "f" * 32: "idle"}
    # THEN this function's next invocation reloads, and says so
    states = {item["instanceId"]: item["state"] for item in client.get("/api/v1/instances").json["items"]}
    assert states == {process.INSTANCE_ID: "current", "f" * 32: "idle"}


def test_the_audit_log_is_filtered_and_paged(deployment: Deployment, client: Client) -> None:
    other = deployment.credential("acme", "admin")
    for number in range(5):
        client.post(APPS, {"aliasId": f"app-{number}", "name": "a"}, credential=other)
    first = client.get("/api/v1/audit?appAlias=acme&limit=3").json
    assert [row["objectId"] for row in first["items"]] == ["app-4", "app-3", "app-2"]
    second = client.get(f"/api/v1/audit?appAlias=acme&limit=3&cursor={first['nextCursor']}").json
    assert [row["objectId"] for row in second["items"]] == ["app-1", "app-0"]
    assert second["nextCursor"] is None
    assert {row["appAlias"] for row in first["items"]} == {"acme"}
    one = client.get("/api/v1/audit?objectType=app&objectId=app-3&action=app.create").json["items"]
    assert [row["afterDigest"] is not None for row in one] == [True]
    assert client.get("/api/v1/audit?appAlias=nobody").json == {"items": [], "nextCursor": None}


def test_a_cursor_belongs_to_its_caller_its_path_and_its_filter(
    deployment: Deployment, client: Client
) -> None:
    other = deployment.credential("acme", "admin")
    cursor = client.get(f"{APPS}?limit=1").json["nextCursor"]
    assert client.get(f"{APPS}?limit=1&cursor={cursor}").status == 200
    foreign = [
        client.get(f"{APPS}?cursor={cursor}", credential=other),
        client.get(f"/api/v1/audit?cursor={cursor}"),
        client.get(f"/api/v1/audit?objectType=app&cursor={cursor}"),
        client.get(f"{APPS}?cursor={cursor[:-2]}AA"),
        client.get(f"{APPS}?cursor=%00"),
    ]
    assert [(answer.status, answer.json["code"]) for answer in foreign] == [(400, "request.cursor")] * 5


def test_reads_are_audited_where_the_app_asks_for_it(deployment: Deployment, client: Client) -> None:
    viewer = deployment.credential("acme", "viewer")
    client.get("/api/v1/me", credential=viewer)
    client.patch(f"{APPS}/acme", {"auditPolicy": 1})
    client.get("/api/v1/me", credential=viewer)
    [row] = client.get("/api/v1/audit?appAlias=acme").json["items"]
    assert (row["action"], row["objectType"], row["objectId"]) == ("read", "system", "/api/v1/me")


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic a:b",
        "Bearer nobody:secret",
        "Bearer nobody",
        "Bearer :secret",
        "Bearer key:",
        "Bearer ü:ü",
        "Bearer " + "a" * 600 + ":b",
        "Bearer bm9ib2R5",
    ],
)
def test_every_bad_credential_gets_the_same_answer(client: Client, header: str | None) -> None:
    sent = {} if header is None else {"Authorization": header}
    answer = client.get("/api/v1/me", headers=sent, credential=None)
    assert (answer.status, answer.json["code"]) == (401, "auth.unauthenticated")
    assert "errors" not in answer.json


def test_a_wrong_secret_is_refused_like_an_unknown_key(client: Client) -> None:
    key = str(client.credential).partition(":")[0]
    wrong, unknown = (client.get("/api/v1/me", credential=one).json for one in (f"{key}:x", "hp_no:x"))
    for answer in (wrong, unknown):
        answer.pop("requestId")
    assert wrong == unknown


def test_a_missing_role_is_403(deployment: Deployment, client: Client) -> None:
    for role in ("viewer", "caller", "publisher"):
        answer = client.get(APPS, credential=deployment.credential("acme", role))
        assert (answer.status, answer.json["code"]) == (403, "auth.role")


def test_a_problem_has_all_its_members(client: Client) -> None:
    answer = client.get(f"{APPS}/nobody")
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json == {
        "type": "urn:hotplug:problem:app.not_found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such app.",
        "instance": f"{APPS}/nobody",
        "code": "app.not_found",
        "requestId": answer.headers["x-request-id"],
    }


def test_malformed_is_400_and_invalid_is_422(client: Client) -> None:
    def sent(content: bytes, media_type: str = "application/json") -> tuple[int, str]:
        answer = client.request("POST", APPS, content=content, headers={"Content-Type": media_type})
        return answer.status, answer.json["code"]

    assert sent(b"") == (400, "request.json")
    assert sent(b"{") == (400, "request.json")
    assert sent(b'{"name": 1, "name": 2}') == (400, "request.json")
    assert sent(b'{"name": NaN}') == (400, "request.json")
    assert sent(b"[]") == (422, "request.invalid")
    assert sent(b'{"aliasId": "acme", "name": "A", "nmae": "B"}') == (422, "request.invalid")
    assert sent(b"{}", "text/plain") == (415, "request.media_type")
    assert sent(b"a=b", "multipart/form-data; boundary=x") == (415, "request.media_type")
    assert sent(b'{"name": "' + b"x" * 300_000 + b'"}') == (413, "request.too_large")
    assert aliases() == ["admin"]


def test_every_violation_of_a_query_is_reported(client: Client) -> None:
    answer = client.get("/api/v1/audit?limit=0&cursor=&objectType=A&nonsense=1&action=a&action=b")
    assert answer.status == 400
    assert {(error["pointer"], error["rule"]) for error in answer.json["errors"]} == {
        ("/query/limit", "schema.minimum"),
        ("/query/cursor", "schema.minLength"),
        ("/query/objectType", "schema.pattern"),
        ("/query/nonsense", "query.unknown"),
        ("/query/action", "query.repeated"),
    }


@pytest.mark.parametrize("alias", ["..", "%2e%2e", "a%2Fb", "a%00", "A", "%FF", "a" * 64, "a%0A", "acme%20"])
def test_an_id_that_cannot_exist_is_404_before_anything_looks_for_it(client: Client, alias: str) -> None:
    answer = client.get(f"{APPS}/{alias}")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_an_app_that_asks_too_often_is_429_and_others_are_not(deployment: Deployment) -> None:
    client = deployment.client
    other = deployment.credential("acme", "viewer")
    with settings(HOTPLUG_RATE="0.1", HOTPLUG_BURST="2"):
        answers = [client.get("/api/v1/me") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].json["code"] == "rate_limited"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 10
        assert client.get("/api/v1/me", credential=other).status == 200


# -- conditional requests ------------------------------------------------------------------------------------


def test_what_is_unchanged_is_304(client: Client) -> None:
    tag = client.get(f"{APPS}/admin").headers["etag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(f"{APPS}/admin", headers={"If-None-Match": header})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, "", tag)
    client.patch(f"{APPS}/admin", {"name": "Other"})
    assert client.get(f"{APPS}/admin", headers={"If-None-Match": tag}).status == 200


def test_a_lost_update_is_412(client: Client) -> None:
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    tag = client.get(f"{APPS}/acme").headers["etag"]
    assert client.patch(f"{APPS}/acme", {"name": "One"}, headers={"If-Match": tag}).status == 200
    lost = client.patch(f"{APPS}/acme", {"name": "Two"}, headers={"If-Match": tag})
    current = client.get(f"{APPS}/acme")
    assert (lost.status, lost.json["etag"], current.json["name"]) == (412, current.headers["etag"], "One")
    assert client.delete(f"{APPS}/acme", headers={"If-Match": f"W/{current.headers['etag']}"}).status == 412
    assert client.delete(f"{APPS}/acme", headers={"If-Match": current.headers["etag"]}).status == 204


@pytest.mark.parametrize("header", ["", "abc", '"a', '"a" "b"', ",", '"' + "a" * 200 + '"'])
def test_an_if_match_that_is_none_is_400(client: Client, header: str) -> None:
    answer = client.patch(f"{APPS}/admin", {"name": "X"}, headers={"If-Match": header})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (400, "/headers/if-match")


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
def probe(database_url: str) -> Iterator[tuple[Probe, Client]]:
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
def line(mysql_url: str) -> Iterator[tuple[WireProxy, Client]]:
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
