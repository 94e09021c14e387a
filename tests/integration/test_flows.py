"""Drafts of flows over the API: stored, judged, replaced, deleted; and no tenant's but the caller's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import process
from chalicelib.flows.dao import FlowDAO
from chalicelib.flows.models import Flow
from tests.flow_rows import flow_deployment, graph
from tests.http import Client, Deployment

FLOWS = "/api/v1/flows"


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("flows")) as found:
        yield found


_numbers = itertools.count(1)


@pytest.fixture
def acme() -> str:
    """The alias of a tenant that nobody else has."""
    return f"acme-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(acme, "publisher"))


@pytest.fixture
def stranger(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(f"other-{acme}", "admin"))


@pytest.fixture
def flow(publisher: Client) -> str:
    made = publisher.post(FLOWS, {"name": "Greeter", "data": graph()})
    assert made.status == 201, made.body
    return str(made.json["flowId"])


def match(client: Client, flow: str) -> dict[str, str]:
    return {"If-Match": str(client.get(f"{FLOWS}/{flow}").headers["etag"])}


# -- storing -------------------------------------------------------------------------------------------------------


def test_a_flow_is_stored_as_a_draft(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "Greeter", "description": "Says it.", "data": graph()})
    assert made.status == 201, made.body
    found = publisher.get(made.headers["location"])
    assert found.headers["etag"] == made.headers["etag"]
    assert found.json == {**made.json, "data": graph()}
    assert (found.json["name"], found.json["description"]) == ("Greeter", "Says it.")
    assert (found.json["revision"], found.json["source"], found.json["warnings"]) == (1, 7, [])
    again = publisher.get(made.headers["location"], headers={"If-None-Match": found.headers["etag"]})
    assert again.status == 304
    [listed] = publisher.get(FLOWS).json["items"]
    assert listed == {name: value for name, value in made.json.items() if name != "warnings"}


def test_a_flow_may_begin_empty_and_what_is_wrong_with_it_is_told(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "Empty"}).json
    assert {one["rule"] for one in made["warnings"]} >= {"start.count"}
    found = publisher.get(f"{FLOWS}/{made['flowId']}").json
    assert found["data"] == {"nodes": [], "edges": []}
    assert found["warnings"] == made["warnings"]


def test_no_data_is_too_wrong_to_be_saved(publisher: Client) -> None:
    for data in ({}, {"nodes": 7}, {"nodes": [None, {"id": 1}], "edges": "x"}, {"é": [{"x": 1.5}]}):
        made = publisher.post(FLOWS, {"name": "Odd", "data": data})
        assert made.status == 201, made.body
        assert made.json["warnings"]
        assert publisher.get(made.headers["location"]).json["data"] == data


def test_a_draft_tells_a_hundred_warnings_at_most(publisher: Client) -> None:
    data = {"nodes": [{"id": f"nothing::{i}"} for i in range(300)], "edges": []}
    made = publisher.post(FLOWS, {"name": "Odd", "data": data}).json
    assert len(made["warnings"]) == 100
    told = publisher.post(f"{FLOWS}/{made['flowId']}/validate").json
    assert len(told["violations"]) >= 300


@pytest.mark.parametrize(
    ("body", "pointer", "rule"),
    [
        ({}, "", "schema.required"),
        ({"name": ""}, "/name", "schema.minLength"),
        ({"name": "a" * 129}, "/name", "schema.maxLength"),
        ({"name": "a\u0000"}, "/name", "schema.pattern"),
        ({"name": "A", "description": "d" * 1025}, "/description", "schema.maxLength"),
        ({"name": "A", "data": "{}"}, "/data", "schema.type"),
        ({"name": "A", "data": []}, "/data", "schema.type"),
        ({"name": "A", "source": 8}, "/source", "schema.maximum"),
        ({"name": "A", "version": "v1"}, "/version", "schema.additionalProperties"),
    ],
)
def test_what_a_flow_may_say(publisher: Client, body: Any, pointer: str, rule: str) -> None:
    refused = publisher.post(FLOWS, body)
    assert refused.status == 422, refused.body
    assert (pointer, rule) in {(one["pointer"], one["rule"]) for one in refused.json["errors"]}, refused.body


def test_data_that_grows_while_it_is_written_out_is_too_large(publisher: Client, flow: str) -> None:
    """`1E15` takes four bytes and becomes `1000000000000000.0`: three megabytes would no longer fit the column."""
    content = b'{"name": "Big", "data": {"x": [' + b",".join([b"1E15"] * 300_000) + b"]}}"
    headers = {"content-type": "application/json"}
    refused = publisher.post(FLOWS, content=content, headers=headers)
    assert (refused.status, refused.json["code"]) == (413, "flow.too_large")
    refused = publisher.put(f"{FLOWS}/{flow}", content=content, headers={**headers, **match(publisher, flow)})
    assert (refused.status, refused.json["code"]) == (413, "flow.too_large")


def test_an_idempotent_post_makes_one_flow(publisher: Client) -> None:
    body, key = {"name": "Once", "data": graph()}, {"Idempotency-Key": "k1"}
    first, second = (publisher.post(FLOWS, body, headers=key) for _ in range(2))
    assert (first.json, first.headers["etag"]) == (second.json, second.headers["etag"])
    assert len(publisher.get(FLOWS).json["items"]) == 1


def test_flows_are_listed_newest_first_page_by_page(publisher: Client) -> None:
    names = [f"Flow {number}" for number in range(5)]
    for name in names:
        publisher.post(FLOWS, {"name": name})
    first = publisher.get(f"{FLOWS}?limit=3").json
    rest = publisher.get(f"{FLOWS}?limit=3&cursor={first['nextCursor']}").json
    assert [one["name"] for one in first["items"] + rest["items"]] == names[::-1]
    assert rest["nextCursor"] is None


# -- replacing -----------------------------------------------------------------------------------------------------


def test_a_draft_is_replaced_by_who_saw_it(publisher: Client, flow: str) -> None:
    place, wanted = f"{FLOWS}/{flow}", {"name": "Second", "description": "d", "data": graph("bye")}
    assert publisher.put(place, wanted).status == 428
    seen = match(publisher, flow)
    replaced = publisher.put(place, wanted, headers=seen)
    assert (replaced.status, replaced.json["name"], replaced.json["revision"]) == (200, "Second", 2)
    found = publisher.get(place)
    assert found.headers["etag"] == replaced.headers["etag"] != seen["If-Match"]
    assert (found.json["data"], found.json["description"]) == (graph("bye"), "d")
    # WHEN someone who saw the first state writes THEN the second stays
    lost = publisher.put(place, {**wanted, "name": "Third"}, headers=seen)
    assert (lost.status, lost.json["etag"]) == (412, found.headers["etag"])
    assert publisher.get(place).json["name"] == "Second"


def test_a_draft_is_replaced_as_a_whole(publisher: Client, flow: str) -> None:
    place = f"{FLOWS}/{flow}"
    publisher.put(place, {"name": "A", "description": "d", "data": graph()}, headers=match(publisher, flow))
    publisher.put(place, {"name": "B", "data": {"nodes": []}}, headers=match(publisher, flow))
    found = publisher.get(place).json
    assert (found["name"], found["description"], found["data"]) == ("B", "", {"nodes": []})
    assert found["warnings"]
    assert publisher.put(place, {"name": "C"}, headers=match(publisher, flow)).status == 422


def test_publishing_leaves_the_drafts_etag(publisher: Client, flow: str) -> None:
    seen = match(publisher, flow)
    assert publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"}).status == 200
    assert publisher.put(f"{FLOWS}/{flow}", {"name": "B", "data": graph()}, headers=seen).status == 200


# -- judging -------------------------------------------------------------------------------------------------------


def test_a_draft_is_judged_as_it_stands(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "A", "data": graph(city="string")}).json
    told = publisher.post(f"{FLOWS}/{made['flowId']}/validate")
    assert told.status == 200, told.body
    assert (told.json["isValid"], told.json["violations"], told.json["violationCount"]) == (True, [], 0)
    assert told.json["inputSchema"]["properties"]["city"]["type"] == "string"
    assert told.json["inputSchema"]["required"] == ["city"]


def test_other_data_is_judged_and_not_stored(publisher: Client, flow: str) -> None:
    broken = graph()
    broken["edges"].append({"sourceNodeId": "node-end::1", "targetNodeId": "nowhere::1"})
    broken["nodes"].append({"id": "node-start::2", "data": broken["nodes"][0]["data"]})
    told = publisher.post(f"{FLOWS}/{flow}/validate", {"data": broken}).json
    assert (told["isValid"], told["violationCount"]) == (False, len(told["violations"]))
    assert {"edge.dangling", "start.count"} <= {one["rule"] for one in told["violations"]}
    assert all(set(one) == {"node", "field", "rule", "message", "pointer"} for one in told["violations"])
    assert publisher.get(f"{FLOWS}/{flow}").json["data"] == graph()


def calling(flow_id: str) -> dict[str, Any]:
    """A flow that calls another one."""
    data = graph()
    body = {"nodeMeta": {}, "inputs": [], "outputs": [], "nodeParam": {"flowId": flow_id}}
    data["nodes"].insert(1, {"id": "flow::1", "data": body})
    data["edges"] = [
        {"sourceNodeId": "node-start::1", "targetNodeId": "flow::1", "sourceHandle": ""},
        {"sourceNodeId": "flow::1", "targetNodeId": "node-end::1", "sourceHandle": ""},
    ]
    return data


def rules(client: Client, flow: str, data: Any) -> set[str]:
    told = client.post(f"{FLOWS}/{flow}/validate", {"data": data}).json
    return {one["rule"] for one in told["violations"]}


def test_a_sub_flow_must_be_published_and_for_the_caller(
    publisher: Client, stranger: Client, flow: str, acme: str
) -> None:
    own = publisher.post(FLOWS, {"name": "Caller"}).json["flowId"]
    theirs = stranger.post(FLOWS, {"name": "Theirs", "data": graph()}).json["flowId"]
    stranger.post(f"{FLOWS}/{theirs}/publish", {"version": "v1"})
    assert rules(publisher, own, calling(flow)) == {"param.schema"}
    assert rules(publisher, own, calling(theirs)) == {"param.schema"}
    assert publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"}).status == 200
    assert rules(publisher, own, calling(flow)) == set()
    assert stranger.put(f"{FLOWS}/{theirs}/licenses/{acme}", {"status": 1}).status == 200
    assert rules(publisher, own, calling(theirs)) == set()


def test_flows_that_would_call_each_other_forever_are_refused(publisher: Client, flow: str) -> None:
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    other = publisher.post(FLOWS, {"name": "B", "data": calling(flow)}).json["flowId"]
    assert publisher.post(f"{FLOWS}/{other}/publish", {"version": "v1"}).status == 200
    publisher.put(f"{FLOWS}/{flow}", {"name": "A", "data": calling(other)}, headers=match(publisher, flow))
    refused = publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v2"})
    assert (refused.status, refused.json["code"]) == (422, "flow.invalid")
    assert [one["rule"] for one in refused.json["errors"]] == ["flow.recursion"]


# -- deleting ------------------------------------------------------------------------------------------------------


def test_a_published_flow_is_not_deleted(publisher: Client, flow: str) -> None:
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v2", "api": True})
    publisher.post(f"{FLOWS}/{flow}/take-off", {"platform": 1, "version": "v1"})
    refused = publisher.delete(f"{FLOWS}/{flow}")
    assert (refused.status, refused.json["code"]) == (409, "flow.published")
    publisher.post(f"{FLOWS}/{flow}/take-off", {"platform": 1})
    assert publisher.delete(f"{FLOWS}/{flow}", headers={"If-Match": '"other"'}).status == 412
    assert publisher.delete(f"{FLOWS}/{flow}", headers=match(publisher, flow)).status == 204


def everything(client: Client, flow: str, alias: str = "admin") -> list[Any]:
    """Every request that there is about a flow."""
    place, tag = f"{FLOWS}/{flow}", {"If-Match": "*"}
    return [
        client.get(place),
        client.put(place, {"name": "x", "data": {}}, headers=tag),
        client.delete(place),
        client.post(f"{place}/validate"),
        client.post(f"{place}/validate", {"data": {}}),
        client.post(f"{place}/publish", {"version": "v1"}),
        client.post(f"{place}/publish", {"version": "v9"}),
        client.post(f"{place}/take-off", {"platform": 1}),
        client.get(f"{place}/versions"),
        client.get(f"{place}/published"),
        client.get(f"{place}/published?version=v1"),
        client.get(f"{place}/published?version=v5"),
        client.put(f"{place}/comparisons/v7"),
        client.put(f"{place}/comparisons/v7", {"data": {}}),
        client.get(f"{place}/comparisons/v5"),
        client.delete(f"{place}/comparisons/v5"),
        client.get(f"{place}/licenses"),
        client.put(f"{place}/licenses/{alias}", {"status": 1}),
    ]


def test_a_deleted_flow_is_gone(publisher: Client, flow: str) -> None:
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    publisher.put(f"{FLOWS}/{flow}/comparisons/v5")
    assert publisher.get(f"{FLOWS}/{flow}/published?version=v5").status == 200
    publisher.post(f"{FLOWS}/{flow}/take-off", {"platform": 1})
    assert publisher.delete(f"{FLOWS}/{flow}").status == 204
    for answer in everything(publisher, flow):
        assert (answer.status, answer.json["code"]) == (404, "flow.not_found"), answer.body
    assert publisher.get(FLOWS).json["items"] == []
    with process.database().reads() as session:
        assert FlowDAO(session).get_latest_published_flow_by(int(flow), "v5") is None


def test_another_tenants_flow_does_not_exist(publisher: Client, stranger: Client, flow: str) -> None:
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    publisher.put(f"{FLOWS}/{flow}/comparisons/v5")
    before = [publisher.get(f"{FLOWS}/{flow}{part}").body for part in ("", "/versions", "/licenses")]
    for answer in everything(stranger, flow):
        assert (answer.status, answer.json["code"]) == (404, "flow.not_found"), answer.body
    assert stranger.get(FLOWS).json["items"] == []
    assert [publisher.get(f"{FLOWS}/{flow}{part}").body for part in ("", "/versions", "/licenses")] == before


def test_a_version_is_no_flow(publisher: Client, flow: str) -> None:
    """Versions have row ids of their own, which must not open a second door to the draft."""
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    with process.database().reads() as session:
        of_flow = (Flow.group_id == int(flow), Flow.version == "v1")
        row_id = session.scalars(select(Flow.id).where(*of_flow)).one()
    for answer in everything(publisher, str(row_id)):
        assert (answer.status, answer.json["code"]) == (404, "flow.not_found"), answer.body


# -- the app ---------------------------------------------------------------------------------------------------


def test_an_app_that_owns_a_flow_is_not_deleted_and_its_licences_go_with_it(
    deployment: Deployment, publisher: Client, stranger: Client, flow: str, acme: str
) -> None:
    theirs = stranger.post(FLOWS, {"name": "Theirs", "data": graph()}).json["flowId"]
    for alias in (acme, "admin"):
        assert stranger.put(f"{FLOWS}/{theirs}/licenses/{alias}", {"status": 1}).status == 200
    refused = deployment.client.delete(f"/api/v1/apps/{acme}")
    assert (refused.status, refused.json["owns"]) == (409, ["flows"])
    publisher.post(f"{FLOWS}/{flow}/publish", {"version": "v1"})
    publisher.post(f"{FLOWS}/{flow}/take-off", {"platform": 1})
    publisher.delete(f"{FLOWS}/{flow}")
    assert deployment.client.delete(f"/api/v1/apps/{acme}").status == 204
    licenses = stranger.get(f"{FLOWS}/{theirs}/licenses").json["items"]
    assert [one["aliasId"] for one in licenses] == ["admin"]


def test_an_app_of_many_licences_is_deleted_too(
    deployment: Deployment, publisher: Client, flow: str, acme: str, monkeypatch: Any
) -> None:
    from chalicelib.flows import licensing

    monkeypatch.setattr(licensing, "FEW_LICENSES", 1)
    guest = f"guest-{acme}"
    deployment.client.post("/api/v1/apps", {"aliasId": guest, "name": "Guest"})
    other = publisher.post(FLOWS, {"name": "Other"}).json["flowId"]
    for one in (flow, other):
        assert publisher.put(f"{FLOWS}/{one}/licenses/{guest}", {"status": 1}).status == 200
    assert deployment.client.delete(f"/api/v1/apps/{guest}").status == 204
    assert publisher.get(f"{FLOWS}/{flow}/licenses").json["items"] == []


def test_every_change_leaves_an_audit_row(
    deployment: Deployment, publisher: Client, flow: str, acme: str
) -> None:
    place = f"{FLOWS}/{flow}"
    publisher.put(place, {"name": "B", "data": graph()}, headers=match(publisher, flow))
    publisher.post(f"{place}/publish", {"version": "v1"})
    publisher.put(f"{place}/comparisons/v5")
    publisher.delete(f"{place}/comparisons/v5")
    publisher.put(f"{place}/licenses/{acme}", {"status": 0})
    publisher.post(f"{place}/take-off", {"platform": 1})
    publisher.delete(place)
    rows = deployment.client.get(f"/api/v1/audit?objectId={flow}").json["items"]
    assert [row["action"] for row in rows][::-1] == [
        "flow.create", "flow.update", "flow.publish", "flow.compare", "flow.compare_end", "flow.license",
        "flow.take_off", "flow.delete",
    ]  # fmt: skip
    assert {(row["appAlias"], row["objectType"]) for row in rows} == {(acme, "flow")}
