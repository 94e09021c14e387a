"""Tools over the API: registered, versioned, changed, deleted, restored, shared; all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.http import Client, Deployment, deployed
from tests.tool_documents import document

TOOLS = "/api/v1/tools"


@pytest.fixture
def deployment(database_url: str, with_schema: None) -> Iterator[Deployment]:
    with deployed(database_url) as found:
        yield found


@pytest.fixture
def publisher(deployment: Deployment) -> Client:
    return Client(deployment.client.app, deployment.credential("acme", "publisher"))


def test_a_tool_is_registered_as_version_1(publisher: Client) -> None:
    made = publisher.post(TOOLS, {"name": "Pets", "openapi": document()})
    assert made.status == 201, made.body
    tool = made.json
    assert (tool["name"], tool["version"], tool["visibility"]) == ("Pets", "V1.0", "private")
    assert tool["operations"] == [
        {
            "operationId": "getPet",
            "method": "GET",
            "path": "/pets/{petId}",
            "summary": "One pet",
            "deprecated": False,
            "tags": [],
        }
    ]
    found = publisher.get(made.headers["location"])
    assert found.json == tool
    assert found.headers["etag"] == made.headers["etag"]
    with_document = publisher.get(f"{TOOLS}/{tool['toolId']}?document=true").json
    assert with_document.pop("openapi") == document()
    assert with_document == tool
    listed = publisher.get(TOOLS).json["items"]
    assert [one["toolId"] for one in listed] == [tool["toolId"]]


def test_a_document_may_be_yaml(publisher: Client) -> None:
    text = """
openapi: 3.0.3
info: {title: Pets, version: "1"}
servers: [{url: "https://api.example/v1"}]
paths:
  /pets:
    get:
      operationId: listPets
      responses:
        200: {description: ok}
"""
    tool = publisher.post(TOOLS, {"name": "Pets", "openapi": text}).json
    stored = publisher.get(f"{TOOLS}/{tool['toolId']}?document=true").json["openapi"]
    assert stored["paths"]["/pets"]["get"]["responses"] == {"200": {"description": "ok"}}
    assert stored["info"]["version"] == "1"


def test_every_violation_is_named_and_nothing_is_stored(publisher: Client) -> None:
    broken = document()
    broken["servers"] = []
    broken["paths"]["/pets/{petId}"]["get"].pop("operationId")
    broken["components"]["schemas"]["Pet"]["properties"]["id"] = {"$ref": "http://169.254.169.254/x"}
    refused = publisher.post(TOOLS, {"name": "Pets", "openapi": broken})
    assert (refused.status, refused.json["code"]) == (422, "tool.invalid_document")
    places = {one["pointer"] for one in refused.json["errors"]}
    assert places >= {
        "/openapi/servers",
        "/openapi/paths/~1pets~1{petId}/get",
        "/openapi/components/schemas/Pet/properties/id/$ref",
    }
    assert publisher.get(TOOLS).json["items"] == []


def test_a_batch_is_all_or_nothing(publisher: Client) -> None:
    good, bad = {"name": "Good", "openapi": document()}, {"name": "Bad", "openapi": {"openapi": "3.1.0"}}
    refused = publisher.post(TOOLS, {"tools": [good, bad, good, bad]})
    assert refused.status == 422
    assert {one["pointer"].split("/")[2] for one in refused.json["errors"]} == {"1", "3"}
    assert publisher.get(TOOLS).json["items"] == []
    made = publisher.post(TOOLS, {"tools": [good, {**good, "name": "Better"}]})
    assert made.status == 201
    assert [one["name"] for one in made.json["tools"]] == ["Good", "Better"]
    assert [one["name"] for one in publisher.get(TOOLS).json["items"]] == ["Better", "Good"]


@pytest.mark.parametrize(
    ("body", "pointer", "rule"),
    [
        ({"tools": []}, "/tools", "schema.minItems"),
        ({"tools": [{"name": "A", "openapi": {}}] * 21}, "/tools", "schema.maxItems"),
        ({"tools": [{"name": "A", "openapi": {}}], "name": "B"}, "/name", "schema.additionalProperties"),
        ({"name": "A"}, "", "schema.required"),
        ({"name": "", "openapi": {}}, "/name", "schema.minLength"),
        ({"name": "a" * 129, "openapi": {}}, "/name", "schema.maxLength"),
        ({"name": "a\u0000", "openapi": {}}, "/name", "schema.pattern"),
        ({"name": "A", "description": "d" * 513, "openapi": {}}, "/description", "schema.maxLength"),
        ({"name": "A", "openapi": 7}, "/openapi", "schema.type"),
    ],
)
def test_what_a_registration_may_say(publisher: Client, body: Any, pointer: str, rule: str) -> None:
    refused = publisher.post(TOOLS, body)
    assert refused.status == 422, refused.body
    assert (pointer, rule) in {(one["pointer"], one["rule"]) for one in refused.json["errors"]}, refused.body


# -- versions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tool(publisher: Client) -> str:
    return str(publisher.post(TOOLS, {"name": "Pets", "openapi": document()}).json["toolId"])


def add(client: Client, tool: str, version: str, **body: Any) -> Any:
    return client.post(f"{TOOLS}/{tool}/versions", {"version": version, "openapi": document(), **body})


def test_versions_compare_as_numbers(publisher: Client, tool: str) -> None:
    for version in ("V1.9", "V1.10", "V1.2.3", "0.9", "V1.10.0.1"):
        assert add(publisher, tool, version).status == 201
    first = publisher.get(f"{TOOLS}/{tool}/versions?limit=4").json
    rest = publisher.get(f"{TOOLS}/{tool}/versions?limit=4&cursor={first['nextCursor']}").json
    shown = [one["version"] for one in first["items"] + rest["items"]]
    assert shown == ["V1.10.0.1", "V1.10", "V1.9", "V1.2.3", "V1.0", "0.9"]
    assert rest["nextCursor"] is None
    assert publisher.get(f"{TOOLS}/{tool}").json["version"] == "V1.10.0.1"
    assert publisher.get(f"{TOOLS}/{tool}?version=1.2.3").json["version"] == "V1.2.3"
    assert publisher.get(TOOLS).json["items"][0]["version"] == "V1.10.0.1"


def test_a_new_version_takes_over_what_it_does_not_say(publisher: Client, tool: str) -> None:
    named = add(publisher, tool, "V2", name="Animals", description="all of them").json
    assert (named["name"], named["description"]) == ("Animals", "all of them")
    assert (add(publisher, tool, "V3").json["name"], named["toolId"]) == ("Animals", tool)


@pytest.mark.parametrize("version", ["V1.0", "1", "V1.0.0", "1.0"])
def test_another_spelling_is_the_same_version(publisher: Client, tool: str, version: str) -> None:
    refused = add(publisher, tool, version)
    assert (refused.status, refused.json["code"]) == (409, "tool.version_exists")


@pytest.mark.parametrize("version", ["", "v1", "V", "1.", "1.2.3.4.5", "V1.x", "-1", "V" + "1" * 32, "١"])
def test_what_is_no_version(publisher: Client, tool: str, version: str) -> None:
    assert add(publisher, tool, version).status == 422
    assert publisher.get(f"{TOOLS}/{tool}?version={quote(version)}").status == 400
    assert publisher.delete(f"{TOOLS}/{tool}?version={quote(version)}").status == 400


def test_there_are_at_most_a_hundred_versions(publisher: Client, tool: str, monkeypatch: Any) -> None:
    from chalicelib.tools import registry

    monkeypatch.setattr(registry, "MOST_VERSIONS", 2)
    assert add(publisher, tool, "2").status == 201
    refused = add(publisher, tool, "3")
    assert (refused.status, refused.json["code"]) == (409, "tool.too_many_versions")


# -- changing ------------------------------------------------------------------------------------------------------


def test_a_version_is_changed_in_place_by_who_saw_it(publisher: Client, tool: str) -> None:
    place = f"{TOOLS}/{tool}/versions/V1.0"
    assert publisher.patch(place, {"name": "x"}).status == 428
    seen = publisher.get(f"{TOOLS}/{tool}")
    changed = publisher.patch(place, {"name": "Cats"}, headers={"If-Match": seen.headers["etag"]})
    assert (changed.status, changed.json["name"]) == (200, "Cats")
    lost = publisher.patch(place, {"name": "Dogs"}, headers={"If-Match": seen.headers["etag"]})
    assert lost.status == 412
    other = document("https://other.example", ping={"at": ("get", "/ping")})
    tag = {"If-Match": changed.headers["etag"]}
    renewed = publisher.patch(place, {"openapi": other, "description": "d"}, headers=tag)
    assert [one["operationId"] for one in renewed.json["operations"]] == ["getPet", "ping"]
    assert (renewed.json["name"], renewed.json["description"]) == ("Cats", "d")
    assert renewed.json["checksum"] != changed.json["checksum"]
    found = publisher.get(f"{TOOLS}/{tool}?document=true")
    assert found.json.pop("openapi") == other
    assert (
        found.headers["etag"] == renewed.headers["etag"] == publisher.get(f"{TOOLS}/{tool}").headers["etag"]
    )


def test_a_bad_document_changes_nothing(publisher: Client, tool: str) -> None:
    before = publisher.get(f"{TOOLS}/{tool}")
    tag = {"If-Match": before.headers["etag"]}
    refused = publisher.patch(f"{TOOLS}/{tool}/versions/V1.0", {"name": "x", "openapi": {}}, headers=tag)
    assert refused.status == 422
    assert publisher.get(f"{TOOLS}/{tool}").json == before.json


# -- deleting and restoring ----------------------------------------------------------------------------------------


def test_a_deleted_version_is_gone_and_comes_back_as_it_was(publisher: Client, tool: str) -> None:
    add(publisher, tool, "V2")
    before = publisher.get(f"{TOOLS}/{tool}").json
    assert publisher.delete(f"{TOOLS}/{tool}/versions/V2").status == 204
    assert publisher.get(f"{TOOLS}/{tool}").json["version"] == "V1.0"
    assert publisher.get(f"{TOOLS}/{tool}?version=V2").status == 404
    assert publisher.delete(f"{TOOLS}/{tool}?version=V2").status == 404
    restored = publisher.post(f"{TOOLS}/{tool}/versions/2.0/restore")
    assert restored.status == 200
    assert restored.json | {"updatedAt": ""} == before | {"updatedAt": ""}
    assert publisher.get(f"{TOOLS}/{tool}").json == restored.json


def test_a_deleted_tool_is_gone_and_comes_back_version_by_version(publisher: Client, tool: str) -> None:
    add(publisher, tool, "V2")
    assert publisher.delete(f"{TOOLS}/{tool}").status == 204
    for answer in (
        publisher.get(f"{TOOLS}/{tool}"),
        publisher.get(f"{TOOLS}/{tool}/versions"),
        publisher.delete(f"{TOOLS}/{tool}"),
        add(publisher, tool, "V3"),
        publisher.patch(f"{TOOLS}/{tool}/versions/V2", {"name": "x"}, headers={"If-Match": "*"}),
    ):
        assert (answer.status, answer.json["code"]) == (404, "tool.not_found")
    assert publisher.get(TOOLS).json["items"] == []
    assert publisher.post(f"{TOOLS}/{tool}/versions/V9/restore").status == 404
    assert publisher.post(f"{TOOLS}/{tool}/versions/V1/restore").status == 200
    assert [one["version"] for one in publisher.get(f"{TOOLS}/{tool}/versions").json["items"]] == ["V1.0"]
    assert [one["toolId"] for one in publisher.get(TOOLS).json["items"]] == [tool]


def test_restore_brings_back_the_newest_and_never_a_second(publisher: Client, tool: str) -> None:
    for description in ("first", "second"):
        add(publisher, tool, "V2", description=description)
        publisher.delete(f"{TOOLS}/{tool}/versions/V2")
    restored = publisher.post(f"{TOOLS}/{tool}/versions/V2/restore")
    assert restored.json["description"] == "second"
    refused = publisher.post(f"{TOOLS}/{tool}/versions/V2/restore")
    assert (refused.status, refused.json["code"]) == (409, "tool.version_exists")


def test_deleted_twice_in_one_microsecond(publisher: Client, tool: str, monkeypatch: Any) -> None:
    """Soft deletion writes the row's own id: no clock decides whether two deleted rows are the same."""
    from datetime import UTC, datetime

    from chalicelib.tools import models

    stopped = datetime(2026, 1, 1, tzinfo=UTC)
    for column in ("create_at", "update_at"):
        monkeypatch.setattr(models.ToolSchema.__table__.c[column].default, "arg", lambda _: stopped)
    monkeypatch.setattr(models.ToolSchema.__table__.c.update_at.onupdate, "arg", lambda _: stopped)
    for turn in range(4):
        assert add(publisher, tool, "V2", description=f"turn {turn}").status == 201
        assert publisher.delete(f"{TOOLS}/{tool}/versions/V2").status == 204
        assert publisher.post(f"{TOOLS}/{tool}/versions/V2/restore").json["description"] == f"turn {turn}"
        assert publisher.delete(f"{TOOLS}/{tool}/versions/V2").status == 204
    assert publisher.get(f"{TOOLS}/{tool}/versions").json["items"][0]["version"] == "V1.0"


def test_deleting_honours_if_match(publisher: Client, tool: str) -> None:
    assert publisher.delete(f"{TOOLS}/{tool}", headers={"If-Match": '"other"'}).status == 412
    tag = publisher.get(f"{TOOLS}/{tool}").headers["etag"]
    assert publisher.delete(f"{TOOLS}/{tool}", headers={"If-Match": tag}).status == 204


# -- tenants -------------------------------------------------------------------------------------------------------


def test_a_private_tool_does_not_exist_for_others(deployment: Deployment, tool: str) -> None:
    stranger = Client(deployment.client.app, deployment.credential("other", "admin"))
    for answer in (
        stranger.get(f"{TOOLS}/{tool}"),
        stranger.get(f"{TOOLS}/{tool}/versions"),
        stranger.get(f"{TOOLS}/{tool}/executions"),
        stranger.get(f"{TOOLS}/{tool}/credentials"),
        stranger.put(f"{TOOLS}/{tool}/credentials", {"key": {"value": "x"}}),
        stranger.delete(f"{TOOLS}/{tool}"),
        stranger.patch(f"{TOOLS}/{tool}/versions/V1.0", {"name": "x"}, headers={"If-Match": "*"}),
        stranger.post(f"{TOOLS}/{tool}/versions/V1.0/restore"),
        stranger.post(f"{TOOLS}/{tool}/run", {"operationId": "getPet", "path": {"petId": 1}}),
        add(stranger, tool, "V2"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "tool.not_found"), answer.body
    assert stranger.get(TOOLS).json["items"] == []


def test_a_shared_tool_is_seen_by_all_and_changed_by_its_owner(
    deployment: Deployment, publisher: Client
) -> None:
    body = {"name": "Shared", "openapi": document(), "shared": True}
    assert publisher.post(TOOLS, body).json["code"] == "auth.role"
    admin = Client(deployment.client.app, deployment.credential("acme", "admin"))
    tool = admin.post(TOOLS, body).json["toolId"]
    stranger = Client(deployment.client.app, deployment.credential("other", "admin"))
    assert stranger.get(f"{TOOLS}/{tool}").json["visibility"] == "shared"
    assert [one["toolId"] for one in stranger.get(TOOLS).json["items"]] == [tool]
    tag = {"If-Match": stranger.get(f"{TOOLS}/{tool}").headers["etag"]}
    for answer in (
        stranger.delete(f"{TOOLS}/{tool}"),
        stranger.patch(f"{TOOLS}/{tool}/versions/V1.0", {"name": "x"}, headers=tag),
        add(stranger, tool, "V2"),
    ):
        assert (answer.status, answer.json["code"]) == (403, "tool.not_owner")
    # WHEN its owner takes it back THEN the next request of anyone else knows
    assert admin.patch(f"{TOOLS}/{tool}/versions/V1.0", {"shared": False}, headers=tag).status == 200
    assert stranger.get(f"{TOOLS}/{tool}").status == 404
    assert admin.delete(f"{TOOLS}/{tool}").status == 204
    assert stranger.post(f"{TOOLS}/{tool}/versions/V1.0/restore").status == 404


def test_an_app_that_owns_a_tool_is_not_deleted(deployment: Deployment, publisher: Client, tool: str) -> None:
    refused = deployment.client.delete("/api/v1/apps/acme")
    assert (refused.status, refused.json["owns"]) == (409, ["tools"])
    publisher.delete(f"{TOOLS}/{tool}")
    assert deployment.client.delete("/api/v1/apps/acme").status == 204


# -- two writers ---------------------------------------------------------------------------------------------------


def test_of_two_writers_of_one_version_exactly_one_wins(deployment: Deployment, tool: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from chalicelib.core.caller import Caller
    from chalicelib.core.database import DatabaseService
    from chalicelib.core.errors import Conflict
    from chalicelib.tools import drafts, registry

    draft = drafts.draft(document())
    owner = Client(deployment.client.app, deployment.credential("acme", "viewer"))
    app_id = int(owner.get(f"{TOOLS}/{tool}").json["appId"])
    caller = Caller(app_id, "acme", 1, "publisher", "r")

    def write(number: int) -> str:
        database = DatabaseService(deployment.url)
        try:
            made = database.run(
                lambda session: registry.add_version(
                    session,
                    caller,
                    tool,
                    ("V2", "2.0")[number % 2],
                    name=f"{number}",
                    description=None,
                    document=draft,
                )
            )
            return str(made["name"])
        except Conflict as error:
            return error.code
        finally:
            database.close()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(8)))
    winners = [one for one in outcomes if one != "tool.version_exists"]
    assert len(winners) == 1, outcomes
    assert owner.get(f"{TOOLS}/{tool}?version=V2").json["name"] == winners[0]
