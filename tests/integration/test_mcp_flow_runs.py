"""Flows over MCP: which are listed and to whom, what a call gives, what that costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from chalicelib.core import process
from chalicelib.core.caller import Caller
from chalicelib.core.hotcache import HotCache
from chalicelib.mcp.flow_runs import FlowRuns
from tests.flow_builders import END, START, edge, end, flow, node, output, ref, start, text_joiner
from tests.flow_rows import flow_deployment, graph
from tests.http import Client, Deployment, Response

FLOWS, MCP = "/api/v1/flows", "/api/v1/mcp"
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("mcp")) as found:
        yield found


@pytest.fixture
def acme() -> str:
    return f"mcp-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(acme, "publisher"))


@pytest.fixture
def other(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(f"other-{acme}", "publisher"))


def greeting() -> Any:
    return flow(
        [
            start(output("query", required=True)),
            text_joiner("text-joiner::1", "Hello {{q}}!", ref("q", START, "query")),
            end(ref("text", "text-joiner::1", "output"), template="{{text}}"),
        ]
    )


def caller(client: Client) -> Caller:
    who = client.get("/api/v1/me").json
    return Caller(int(who["appId"]), who["aliasId"], 1, "caller", "request-1")


def published(client: Client, name: str = "Greeter", data: Any = None, **more: Any) -> str:
    made = client.post(FLOWS, {"name": name, "data": data or greeting(), **more})
    assert made.status == 201, made.body
    put = client.post(f"{FLOWS}/{made.json['flowId']}/publish", {"version": "v1"})
    assert put.status == 200, put.body
    return str(made.json["flowId"])


def rpc(client: Client, method: str, params: Any = None, version: str = "2025-11-25") -> Response:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    return client.post(MCP, message, headers={"mcp-protocol-version": version})


def tools(client: Client) -> dict[str, Any]:
    """Every tool by its name, page by page."""
    found: dict[str, Any] = {}
    cursor: dict[str, str] = {}
    while True:
        page = rpc(client, "tools/list", cursor).json["result"]
        found |= {tool["name"]: tool for tool in page["tools"]}
        if "nextCursor" not in page:
            return found
        cursor = {"cursor": page["nextCursor"]}


def call(client: Client, name: str, arguments: Any = None, version: str = "2025-11-25") -> Any:
    return rpc(client, "tools/call", {"name": name, "arguments": arguments or {}}, version).json["result"]


def statements(work: Callable[[], object]) -> list[str]:
    """What `work` sends to the database."""
    sent: list[str] = []

    def note(*told: Any) -> None:
        sent.append(told[2])

    engine = process.database().engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return sent


def test_a_flow_is_listed_with_the_schema_of_its_start(publisher: Client) -> None:
    published(publisher, "Say hello", description="Greets somebody.")
    ((name, tool),) = tools(publisher).items()
    assert name == "flow_Say_hello"
    assert (tool["title"], tool["description"]) == ("Say hello", "Greets somebody.")
    assert tool["inputSchema"] == {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
        "additionalProperties": False,
    }


def test_a_call_is_an_express_run(publisher: Client) -> None:
    flow_id = published(publisher)
    done = call(publisher, "flow_Greeter", {"query": "Ada"})
    assert done["isError"] is False
    assert done["content"] == [{"type": "text", "text": "Hello Ada!"}]
    assert done["structuredContent"] == {"text": "Hello Ada!"}
    assert done["_meta"]["hotplug/version"] == "v1"
    (run,) = publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"]
    assert (run["runId"], run["mode"], run["state"]) == (
        done["_meta"]["hotplug/runId"],
        "express",
        "succeeded",
    )


def test_an_older_client_gets_the_text_alone(publisher: Client) -> None:
    published(publisher)
    done = call(publisher, "flow_Greeter", {"query": "Ada"}, "2025-03-26")
    assert (done["content"][0]["text"], "structuredContent" in done) == ("Hello Ada!", False)


def test_a_run_that_fails_is_an_error_with_its_code(publisher: Client) -> None:
    published(publisher)
    failed = call(publisher, "flow_Greeter", {"other": 1})
    assert failed["isError"] is True
    assert failed["content"][0]["text"] == (
        "other is no parameter; query is required (22500) at node-start::1"
    )
    assert failed["structuredContent"]["code"] == 22500
    assert failed["structuredContent"]["state"] == "failed"
    assert failed["_meta"]["hotplug/runId"]


def test_a_flow_that_asks_says_why_it_cannot_be_run(publisher: Client) -> None:
    question = node("question-answer::1", {"question": "Sure?", "answerType": "direct"})
    data = flow([start(), question, end()], [edge(START, question["id"]), edge(question["id"], END)])
    flow_id = published(publisher, "Asks", data)
    refused = call(publisher, "flow_Asks")
    assert refused["isError"] is True
    assert refused["structuredContent"]["code"] == "run.needs_durable"
    assert refused["structuredContent"]["errors"] == []
    assert publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"] == []


def test_who_is_licensed_sees_a_flow_and_runs_it_and_nobody_else(
    publisher: Client, other: Client, acme: str
) -> None:
    flow_id = published(publisher)
    assert tools(other) == {}
    unknown = rpc(other, "tools/call", {"name": "flow_Greeter", "arguments": {}}).json
    assert unknown["error"]["code"] == -32602
    path = f"{FLOWS}/{flow_id}/licenses/other-{acme}"
    assert publisher.put(path, {"status": 1}).status == 200
    assert list(tools(other)) == ["flow_Greeter"]
    assert call(other, "flow_Greeter", {"query": "Bo"})["content"][0]["text"] == "Hello Bo!"
    # The run is that of the app that called.
    assert publisher.get(f"{FLOWS}/{flow_id}/runs").json["items"] == []
    assert publisher.put(path, {"status": 0}).status == 200
    assert tools(other) == {}
    # The owner needs a licence as everybody does.
    assert publisher.put(f"{FLOWS}/{flow_id}/licenses/{acme}", {"status": 0}).status == 200
    assert tools(publisher) == {}


def test_the_list_follows_every_change_at_once(publisher: Client) -> None:
    made = publisher.post(FLOWS, {"name": "Draft", "data": greeting()}).json["flowId"]
    path = f"{FLOWS}/{made}"
    assert tools(publisher) == {}
    etag = {"If-Match": str(publisher.get(path).headers["etag"])}
    assert publisher.post(f"{path}/publish", {"version": "v1"}).status == 200
    assert list(tools(publisher)) == ["flow_Draft"]
    # A version that only stands beside the published ones is not listed, and the draft's new name is not yet.
    assert publisher.put(path, {"name": "Newer", "data": greeting()}, headers=etag).status == 200
    compared = publisher.put(f"{path}/comparisons/v9", {"data": graph("other")})
    assert compared.status < 300, compared.body
    assert list(tools(publisher)) == ["flow_Draft"]
    assert publisher.post(f"{path}/publish", {"version": "v2"}).status == 200
    assert list(tools(publisher)) == ["flow_Newer"]
    assert publisher.post(f"{path}/take-off", {"platform": 1}).status == 200
    assert tools(publisher) == {}
    assert publisher.post(f"{path}/publish", {"version": "v2"}).status == 200
    assert list(tools(publisher)) == ["flow_Newer"]


def test_flows_of_one_name_keep_apart_and_long_names_are_cut(publisher: Client) -> None:
    for name in ("Twin", "Twin", "\u00e4" * 100, "Long " * 20):
        published(publisher, name)
    found = list(tools(publisher))
    assert len(found) == len(set(found)) == 4
    assert all(len(name) <= 64 for name in found)
    twins = [name for name in found if name.startswith("flow_Twin_")]
    assert len(twins) == 2
    assert [call(publisher, name, {"query": "x"})["isError"] for name in twins] == [False, False]


def test_a_hundred_and_twenty_flows_are_two_pages_of_few_statements(
    publisher: Client,
) -> None:
    database, who = process.database(), caller(publisher)
    for number in range(120):
        published(publisher, f"Flow {number}")
    first = rpc(publisher, "tools/list").json["result"]
    assert (len(first["tools"]), "nextCursor" in first) == (100, True)
    assert len(tools(publisher)) == 120
    cache = HotCache(database)
    cache.refresh()
    offered = FlowRuns(database, cache)
    assert len(statements(lambda: offered.index(who))) == 1
    assert statements(lambda: offered.index(who)) == []
    index = offered.index(who)
    page = [(name, index.keys[name]) for name in index.names[:100]]
    assert len(statements(lambda: offered.describe(who, page))) == 1
    assert statements(lambda: offered.describe(who, page)) == []


def test_another_process_follows(publisher: Client) -> None:
    who = caller(publisher)
    caches = [HotCache(process.database()) for _ in range(2)]

    def seen() -> list[tuple[str, ...]]:
        for cache in caches:
            cache.refresh()
        return [FlowRuns(process.database(), cache).index(who).names for cache in caches]

    assert seen() == [(), ()]
    flow_id = published(publisher)
    assert seen() == [("flow_Greeter",)] * 2
    assert publisher.post(f"{FLOWS}/{flow_id}/take-off", {"platform": 1}).status == 200
    assert seen() == [(), ()]
