"""The history of a conversation over the API: the caller's own, a page of nodes at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import event, select

from chalicelib.apps.models import App
from chalicelib.core import process
from chalicelib.flows.history import listing, service
from chalicelib.flows.history.budget import messages_of
from chalicelib.flows.history.dao import Entry
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


def talkative(**tokens: int | None) -> dict[str, Any]:
    """A flow with nodes of these names, each of which asks a model that has this much room."""
    data = graph()
    for name, most in tokens.items():
        parameters = {"template": "hi"} | ({} if most is None else {"maxTokens": most})
        data["nodes"].append({"id": f"llm::{name}", "data": {"nodeParam": parameters}})
    return data


@dataclass(frozen=True)
class World:
    """A flow of one tenant, and another tenant."""

    deployment: Deployment
    name: str
    flow: str

    def client(self, role: str = "admin", tenant: str = "") -> Client:
        return Client(self.deployment.client.app, self.deployment.credential(f"{tenant}{self.name}", role))

    def say(self, node: str, *questions: str, tenant: str = "", uid: str = "ann", chat: str = "c1") -> None:
        self.client(tenant=tenant)

        def work(session: Any) -> None:
            app_id = session.scalar(select(App.id).where(App.alias_id == f"{tenant}{self.name}"))
            turns = [Entry(app_id, int(self.flow), node, uid, chat, question, "so") for question in questions]
            service.add(session, turns)

        process.database().run(work)

    def path(self, **query: Any) -> str:
        return f"{FLOWS}/{self.flow}/history?{urlencode({'uid': 'ann', 'chatId': 'c1', **query})}"

    def publish(self, version: str) -> None:
        published = self.client().post(f"{FLOWS}/{self.flow}/publish", {"version": version})
        assert published.status == 200, published.body

    def replace(self, data: dict[str, Any]) -> None:
        replaced = self.client().put(
            f"{FLOWS}/{self.flow}", {"name": "F", "data": data}, headers={"If-Match": "*"}
        )
        assert replaced.status == 200, replaced.body


@pytest.fixture
def world(deployment: Deployment) -> World:
    name = f"acme-{next(_numbers)}"
    owner = Client(deployment.client.app, deployment.credential(name, "admin"))
    made = owner.post(FLOWS, {"name": "F", "data": graph()})
    return World(deployment, name, made.json["flowId"])


def told(node: str, *questions: str) -> dict[str, Any]:
    return {
        "nodeId": node,
        "chatHistory": [one for question in questions for one in messages_of(question, "so")],
    }


def test_a_conversation_is_shown_node_by_node(world: World) -> None:
    caller = world.client("caller")
    assert caller.get(world.path()).json == {"items": [], "nextCursor": None}
    world.say("llm::b", "how?", "why?")
    world.say("llm::a", "who?")
    found = caller.get(world.path())
    assert found.status == 200, found.body
    assert found.json == {
        "items": [told("llm::a", "who?"), told("llm::b", "how?", "why?")],
        "nextCursor": None,
    }
    again = caller.get(world.path(), headers={"If-None-Match": found.headers["etag"]})
    assert again.status == 304


def test_it_is_for_callers(world: World) -> None:
    # Who may not run the flow need not know what people told it.
    refused = world.client("viewer").get(world.path())
    assert (refused.status, refused.json["code"]) == (403, "auth.role")


def test_a_person_and_a_chat_may_be_without_a_name(world: World) -> None:
    world.say("llm::a", "named")
    world.say("llm::a", "nobody", uid="", chat="")
    world.say("llm::a", "no chat", chat="")
    caller, place = world.client("caller"), f"{FLOWS}/{world.flow}/history"
    assert caller.get(place).json["items"] == [told("llm::a", "nobody")]
    assert caller.get(f"{place}?uid=ann").json["items"] == [told("llm::a", "no chat")]
    assert caller.get(f"{place}?chatId=c1").json["items"] == []


@pytest.mark.parametrize("uid", ["x" * 256, "a\nb", "\0", "\x7f"])
def test_a_person_has_a_printable_name(world: World, uid: str) -> None:
    for name in ("uid", "chatId"):
        refused = world.client("caller").get(world.path(**{name: uid}))
        assert (refused.status, refused.json["code"]) == (400, "request.query")
        assert [one["pointer"] for one in refused.json["errors"]] == [f"/query/{name}"]


def test_a_name_may_be_in_any_script(world: World) -> None:
    world.say("llm::a", "hm", uid="漢" * 255, chat=" 😀'\"")
    found = world.client("caller").get(world.path(uid="漢" * 255, chatId=" 😀'\""))
    assert found.json["items"] == [told("llm::a", "hm")]


def test_tenants_with_one_flow_and_one_person_are_apart(world: World) -> None:
    world.say("llm::a", "mine")
    world.say("llm::a", "theirs", tenant="other-")
    stranger = world.client(tenant="other-")
    refused = stranger.get(world.path())
    assert (refused.status, refused.json["code"]) == (404, "flow.not_found")
    # WHEN the flow is published and licensed to the other
    world.publish("v1")
    given = world.client().put(f"{FLOWS}/{world.flow}/licenses/other-{world.name}", {"status": 1})
    assert given.status == 200
    assert stranger.get(world.path()).json["items"] == [told("llm::a", "theirs")]
    assert world.client().get(world.path()).json["items"] == [told("llm::a", "mine")]
    # WHEN nothing of it is published any more
    assert world.client().post(f"{FLOWS}/{world.flow}/take-off", {"platform": 1}).status == 200
    assert stranger.get(world.path()).json["code"] == "flow.not_published"
    assert world.client().get(world.path()).json["items"] == [told("llm::a", "mine")]
    # WHEN it is deleted
    assert world.client().delete(f"{FLOWS}/{world.flow}").status == 204
    for client in (world.client(), stranger):
        assert client.get(world.path()).json["code"] == "flow.not_found"


def test_budgets_are_those_of_the_published_version_else_of_the_draft(world: World) -> None:
    for name in ("llm::a", "llm::gone"):
        world.say(name, *("q" * 1000 for _ in range(10)))

    def turns() -> list[int]:
        items = world.client("caller").get(world.path()).json["items"]
        return [len(item["chatHistory"]) // 2 for item in items]

    # A node that states nothing, or is not there, has 6,225 bytes: five turns of 1,069.
    assert turns() == [5, 5]
    world.replace(talkative(a=2000))
    assert turns() == [1, 5]
    world.replace(talkative(a=1000))
    # Its newest turn does not fit.
    assert turns() == [0, 5]
    # Small enough that a version can be published: a node that nothing leads to is refused.
    data = graph()
    data["nodes"].append(
        {
            "id": "llm::a",
            "data": {
                "nodeMeta": {}, "inputs": [], "nodeParam": {"template": "hi", "maxTokens": 100_000, "model": "m"},
                "outputs": [{"id": "o", "name": "output", "schema": {"type": "string"}}],
            },
        }
    )  # fmt: skip
    data["edges"] = [
        {"sourceNodeId": "node-start::1", "targetNodeId": "llm::a", "sourceHandle": ""},
        {"sourceNodeId": "llm::a", "targetNodeId": "node-end::1", "sourceHandle": ""},
    ]
    world.replace(data)
    world.publish("v1")
    assert turns() == [10, 5]
    world.replace(talkative(a=2000))
    assert turns() == [10, 5]


def test_nodes_come_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [f"llm::{number:02}" for number in range(7)]
    for node in nodes:
        world.say(node, f"in {node}")

    def pages(**query: Any) -> list[list[str]]:
        found, cursor = [], None
        while True:
            page = world.client("caller").get(world.path(**query, **({"cursor": cursor} if cursor else {})))
            assert page.status == 200, page.body
            assert all(item == told(item["nodeId"], f"in {item['nodeId']}") for item in page.json["items"])
            found.append([item["nodeId"] for item in page.json["items"]])
            cursor = page.json["nextCursor"]
            if cursor is None:
                return found

    assert pages(limit=3) == [nodes[:3], nodes[3:6], nodes[6:]]
    assert pages(limit=7) == [nodes]
    # Two of them could be told as much as an answer holds.
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 2 * 0.8 * 8192 * 0.95)
    assert pages() == [nodes[:2], nodes[2:4], nodes[4:6], nodes[6:]]
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 1)
    assert pages() == [[node] for node in nodes]


def test_a_cursor_is_for_its_own_conversation(world: World) -> None:
    for node in ("llm::a", "llm::b"):
        world.say(node, "q")
    cursor = world.client("caller").get(world.path(limit=1)).json["nextCursor"]
    for query in ({"uid": "bob"}, {"chatId": "c2"}):
        refused = world.client("caller").get(world.path(limit=1, cursor=cursor, **query))
        assert (refused.status, refused.json["code"]) == (400, "request.cursor")
    other = world.client("caller").post(FLOWS, {"name": "x"})
    assert other.status == 403
    assert world.client("caller").get(world.path(limit=1, cursor=cursor[:-2])).status == 400


def test_the_largest_budget_fits_an_answer(world: World) -> None:
    world.replace(talkative(**dict.fromkeys("abcdef", 1000000)))
    for name in "abcdef":
        world.say(f"llm::{name}", *('"' * 39_000 for _ in range(10)))
    first = world.client("caller").get(world.path())
    assert [len(item["chatHistory"]) for item in first.json["items"]] == [20, 20]
    # As the function's answer, JSON in JSON: at most 6 MB.
    assert len(first.body.encode()) + first.body.count('"') + first.body.count("\\") < 6_000_000
    assert first.json["nextCursor"] is not None


def test_a_page_is_two_queries_however_many_nodes_there_are(world: World) -> None:
    for number in range(40):
        world.say(f"llm::{number:02}", *(f"q{turn}" for turn in range(12)))
    caller = world.client("caller")
    caller.get(world.path())
    sent: list[str] = []

    def note(*each: Any) -> None:
        sent.append(each[2])

    engine = process.database().engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert len(caller.get(world.path(limit=40)).json["items"]) == 40
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert sum("FROM workflow_node_history" in " ".join(statement.split()) for statement in sent) == 2
    # The version read, the draft that there is nothing published beside, and those.
    assert len(sent) == 4
