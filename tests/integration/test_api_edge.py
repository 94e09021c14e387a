"""The HTTP edge through app(event, context), on every database: what each request goes through."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.core import process
from tests.http import Client, Deployment, deployed, hotplug, settings

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
