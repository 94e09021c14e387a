"""Pictures of flows over the API: whose they are, what they show, and what a browser is told about them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.flows.diagram import drawing
from tests.flow_builders import edge, end, flow, message, start
from tests.flow_rows import flow_deployment, graph
from tests.http import Client, Deployment, Response

FLOWS = "/api/v1/flows"


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("diagrams")) as found:
        yield found


@pytest.fixture
def publisher(deployment: Deployment) -> Client:
    return Client(deployment.client.app, deployment.credential("acme", "publisher"))


@pytest.fixture
def viewer(deployment: Deployment) -> Client:
    return Client(deployment.client.app, deployment.credential("acme", "viewer"))


def made(publisher: Client, data: Any = None, name: str = "Greeter") -> str:
    """Store a flow and return the path of its picture."""
    found = publisher.post(FLOWS, {"name": name, "data": data or graph()})
    assert found.status == 201, found.body
    return f"{FLOWS}/{found.json['flowId']}"


def described(found: Response) -> str:
    assert found.status == 200, found.body
    root = ET.fromstring(found.body.encode())
    return root.findtext("{http://www.w3.org/2000/svg}desc") or ""


def test_a_draft_is_a_picture_that_may_do_nothing(publisher: Client, viewer: Client) -> None:
    place = made(publisher, name="Fish & <chips>")
    found = viewer.get(f"{place}/diagram.svg")
    assert "2 nodes and 1 edges; no rule broken" in described(found)
    assert found.headers["content-type"] == "image/svg+xml"
    assert found.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["cache-control"] == "no-store"
    assert "Fish &amp; &lt;chips&gt;" in found.body


def test_an_entity_tag_stands_for_the_picture(publisher: Client, viewer: Client) -> None:
    place = made(publisher)
    first = viewer.get(f"{place}/diagram.svg")
    tag = {"If-None-Match": first.headers["etag"]}
    again = viewer.get(f"{place}/diagram.svg", headers=tag)
    assert (again.status, again.body, again.headers["etag"]) == (304, "", first.headers["etag"])
    assert "content-type" not in again.headers
    publisher.put(place, {"name": "Other", "data": graph()}, headers={"If-Match": "*"})
    assert viewer.get(f"{place}/diagram.svg", headers=tag).status == 200


def test_a_draft_that_does_not_hold_is_drawn_as_far_as_it_does(publisher: Client, viewer: Client) -> None:
    data = flow([start(), message("message::a"), message("message::b"), end()])
    data["edges"] += [edge("message::b", "message::a"), edge("message::b", "message::gone")]
    found = viewer.get(f"{made(publisher, data)}/diagram.svg")
    assert "4 nodes and 4 edges; violations: 2." in described(found)
    assert ">cycle</text>" in found.body


@pytest.mark.parametrize("data", [{}, {"nodes": "x"}, {"nodes": [5, {}], "edges": {"a": 1}}], ids=json.dumps)
def test_what_is_no_flow_at_all_is_a_picture_too(publisher: Client, viewer: Client, data: Any) -> None:
    place = made(publisher)
    assert publisher.put(place, {"name": "x", "data": data}, headers={"If-Match": "*"}).status == 200
    assert "0 nodes" in described(viewer.get(f"{place}/diagram.svg"))


def test_a_version_stays_as_it_was_published_and_is_shown_when_it_is_taken_off(
    publisher: Client, viewer: Client
) -> None:
    place = made(publisher)
    draft = viewer.get(f"{place}/diagram.svg")
    assert publisher.post(f"{place}/publish", {"version": "v1"}).status == 200
    larger = flow([start(), message(), end()])
    publisher.put(place, {"name": "Greeter", "data": larger}, headers={"If-Match": "*"})
    publisher.put(f"{place}/comparisons/v2")
    assert publisher.post(f"{place}/take-off", {"platform": 1}).status == 200
    assert viewer.get(f"{place}/diagram.svg?version=1.0").body == draft.body
    for query in ("", "?version=v2"):
        assert "3 nodes and 2 edges" in described(viewer.get(f"{place}/diagram.svg{query}"))
    missing = viewer.get(f"{place}/diagram.svg?version=v3")
    assert (missing.status, missing.json["code"]) == (404, "flow.version_not_found")
    assert viewer.get(f"{place}/diagram.svg?version=latest").status == 400
    assert viewer.get(f"{place}/diagram.svg?version=").status == 400


def test_a_flow_is_drawn_for_its_owner_alone(deployment: Deployment, publisher: Client) -> None:
    place = made(publisher)
    publisher.post(f"{place}/publish", {"version": "v1"})
    stranger = Client(deployment.client.app, deployment.credential("other", "admin"))
    publisher.put(f"{place}/licenses/other", {"status": 1})
    assert stranger.get(f"{place}/published").status == 200
    for query in ("", "?version=v1"):
        refused = stranger.get(f"{place}/diagram.svg{query}")
        assert (refused.status, refused.json["code"]) == (404, "flow.not_found")
        assert refused.headers["content-type"] == "application/problem+json"
    assert publisher.get(f"{FLOWS}/1/diagram.svg").status == 404


def test_what_is_too_large_is_a_problem(
    publisher: Client, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = made(publisher)
    monkeypatch.setattr(drawing, "MAX_SVG_BYTES", 1_000)
    refused = viewer.get(f"{place}/diagram.svg")
    assert (refused.status, refused.json["code"]) == (422, "flow.too_large_to_draw")
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_deleted_flow_is_not_drawn(publisher: Client, viewer: Client) -> None:
    place = made(publisher)
    assert publisher.delete(place).status == 204
    assert viewer.get(f"{place}/diagram.svg").status == 404
