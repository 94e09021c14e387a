"""Hotplug as an MCP server, judged by the official SDK: its client lists and calls, its schemas check every answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from mcp import Client as McpClient
from mcp.shared.exceptions import MCPError
from mcp_types import jsonrpc_message_adapter
from mcp_types.methods import SERVER_RESULTS, validate_server_result

from chalicelib.api.problem import MEDIA_TYPE
from chalicelib.mcp.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND
from tests.http import Response, settings
from tests.integration.plugin_world import INSTALL, PLUGINS, World, package, world
from tests.mcp_client import AppTransport, connected
from tests.plugin_rows import answer, failure

PATH = "/api/v1/mcp"
NEW = "2026-07-28"
# How a client comes, and what is settled.
WAYS = [
    ("legacy", "2024-11-05", "2024-11-05"),
    ("legacy", "2025-03-26", "2025-03-26"),
    ("legacy", "2025-06-18", "2025-06-18"),
    ("legacy", "2025-11-25", "2025-11-25"),
    ("auto", None, NEW),
    (NEW, None, NEW),
]
WORDS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
COUNTED = {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]}
ACTIONS = {
    "count": {"description": "Counts words.", "paramsSchema": WORDS, "returnsSchema": COUNTED},
    "list": {"returnsSchema": {"type": "array"}},
}


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(f"sqlite:///{tmp_path_factory.mktemp('mcp')}/hotplug.db") as made:
        yield made


@pytest.fixture
def made(shared_world: World) -> Iterator[World]:
    """A world in which the app `acme` has one enabled plugin."""
    shared_world.replies.clear()
    publisher = shared_world.deployment.credential("acme", "publisher")
    enable(shared_world, "counter", actions=ACTIONS)
    yield shared_world
    for plugin in shared_world.client.get(PLUGINS, credential=publisher).json["items"]:
        shared_world.client.delete(f"{PLUGINS}/{plugin['pluginId']}", credential=publisher)


def enable(made: World, name: str, **manifest: Any) -> str:
    """Install and enable a plugin of acme and return its id."""
    publisher = made.deployment.credential("acme", "publisher")
    # A version that was uninstalled may come back with the same bytes only.
    installed = made.client.post(
        INSTALL,
        form={"source": "local"},
        files={"file": ("p.zip", package(name, **manifest))},
        credential=publisher,
    )
    assert installed.status == 201, installed.body
    plugin_id: str = installed.json["pluginId"]
    enabled = made.client.post(f"{PLUGINS}/{plugin_id}/enable", credential=publisher)
    assert enabled.status == 200, enabled.body
    return plugin_id


def transport(made: World, speaks: str | None = None, role: str = "caller") -> AppTransport:
    credential = made.deployment.credential("acme", role)
    return AppTransport(type(made.client)(made.client.app, credential), speaks)


def talk(way: AppTransport, work: Callable[[McpClient], Awaitable[Any]], mode: str = "auto") -> Any:
    """Run `work` with a connected client; then let the SDK's schemas judge every answer."""

    async def run() -> Any:
        async with connected(way, mode) as client:
            return client.protocol_version, await work(client)

    version, found = anyio.run(run)
    for exchange in way.exchanges:
        judge(exchange.body, exchange.answer, version)
    return found


def judge(asked: dict[str, Any], told: Response, version: str) -> None:
    if told.status == 202:
        assert (told.body, "content-type" in told.headers) == ("", False)
        return
    assert told.headers["content-type"] == "application/json"
    jsonrpc_message_adapter.validate_python(told.json)
    assert told.json["id"] == asked["id"]
    if "result" in told.json:
        assert (asked["method"], version) in SERVER_RESULTS
        validate_server_result(asked["method"], version, told.json["result"])


@pytest.mark.parametrize(("mode", "speaks", "version"), WAYS)
def test_the_client_connects_lists_and_calls(
    made: World, mode: str, speaks: str | None, version: str
) -> None:
    made.replies += [answer(result={"words": 2}), answer(result=["a"])]

    async def work(client: McpClient) -> Any:
        listed = await client.list_tools()
        counted = await client.call_tool("plugin_counter_count", {"text": "one two"})
        other = await client.call_tool("plugin_counter_list")
        server = (client.protocol_version, client.server_info, client.instructions)
        return server, listed, counted, other

    (settled, info, instructions), listed, counted, other = talk(transport(made, speaks), work, mode)
    assert settled == version
    if mode != NEW:
        # Who adopts a version without asking learns nothing of the server but its tools.
        assert (info.name, "Hotplug" in instructions) == ("hotplug", True)
    count, list_ = listed.tools
    assert (count.name, count.description) == ("plugin_counter_count", "Counts words.")
    assert count.input_schema == WORDS
    assert list_.input_schema == {"type": "object"}
    structured = version >= "2025-06-18"
    assert (count.title, count.output_schema) == (("counter: count", COUNTED) if structured else (None, None))
    assert list_.output_schema == ({"type": "array"} if version == NEW else None)
    assert (count.annotations is None) == (version == "2024-11-05")
    assert listed.next_cursor is None

    assert (counted.is_error, [block.text for block in counted.content]) == (False, ['{"words": 2}'])
    assert counted.structured_content == ({"words": 2} if structured else None)
    assert other.structured_content == (["a"] if version == NEW else None)
    assert [call.payload["params"] for call in made.functions.invocations[-2:]] == [{"text": "one two"}, {}]


@pytest.mark.parametrize(("mode", "speaks", "version"), WAYS)
def test_a_tools_failure_is_a_result(made: World, mode: str, speaks: str | None, version: str) -> None:
    made.replies += [failure("plugin", "quota", "no more today")]

    async def work(client: McpClient) -> Any:
        await client.list_tools()
        wrong = await client.call_tool("plugin_counter_count", {"text": 1})
        return wrong, await client.call_tool("plugin_counter_count", {"text": "x"})

    wrong, failed = talk(transport(made, speaks), work, mode)
    assert (wrong.is_error, failed.is_error) == (True, True)
    assert "/arguments/text" in wrong.content[0].text
    assert "quota: no more today" in failed.content[0].text
    if version >= "2025-06-18":
        assert wrong.structured_content["code"] == "plugin.params_invalid"
        assert [one["pointer"] for one in wrong.structured_content["errors"]] == ["/arguments/text"]
        assert failed.structured_content["error"]["code"] == "quota"


@pytest.mark.parametrize(("mode", "speaks", "version"), WAYS)
def test_an_unknown_tool_and_method_are_protocol_errors(
    made: World, mode: str, speaks: str | None, version: str
) -> None:
    async def work(client: McpClient) -> list[int]:
        codes = []
        for asked in (
            client.call_tool("plugin_nothing_x"),
            client.list_prompts(),
            client.list_tools(cursor="x"),
        ):
            with pytest.raises(MCPError) as refused:
                await asked
            codes.append(refused.value.code)
        return codes

    assert talk(transport(made, speaks), work, mode) == [INVALID_PARAMS, METHOD_NOT_FOUND, INVALID_PARAMS]


def test_the_list_changes_the_moment_something_is_enabled_or_disabled(made: World) -> None:
    publisher = made.deployment.credential("acme", "publisher")

    async def work(client: McpClient) -> list[list[str]]:
        async def names() -> list[str]:
            return [tool.name for tool in (await client.list_tools()).tools]

        seen = [await names()]
        plugin_id = enable(made, "greeter")
        seen.append(await names())
        made.client.post(f"{PLUGINS}/{plugin_id}/disable", credential=publisher)
        seen.append(await names())
        with pytest.raises(MCPError):
            await client.call_tool("plugin_greeter_default")
        return seen

    both = ["plugin_counter_count", "plugin_counter_list"]
    assert talk(transport(made), work) == [both, [*both, "plugin_greeter_default"], both]


def test_a_client_that_pages_sees_everything_once(made: World) -> None:
    enable(made, "many", actions={f"a{number:03}": {} for number in range(100)})
    enable(made, "more", actions={f"a{number:03}": {} for number in range(100)})

    async def work(client: McpClient) -> list[str]:
        names: list[str] = []
        page = await client.list_tools()
        names += [tool.name for tool in page.tools]
        while page.next_cursor:
            page = await client.list_tools(cursor=page.next_cursor)
            names += [tool.name for tool in page.tools]
        return names

    names = talk(transport(made), work)
    assert len(names) == len(set(names)) == 202
    assert names == sorted(names)


# -- the edge --------------------------------------------------------------------------------------------------------


def post(made: World, body: Any, role: str | None = "caller", **headers: str) -> Response:
    credential = None if role is None else made.deployment.credential("acme", role)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers}
    return made.client.request("POST", PATH, content=content, headers=sent, credential=credential)


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.mark.parametrize(("role", "status"), [(None, 401), ("viewer", 403)])
def test_whoever_may_not_call_gets_a_problem(made: World, role: str | None, status: int) -> None:
    told = post(made, PING, role)
    assert (told.status, told.headers["content-type"]) == (status, MEDIA_TYPE)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_are_no_streams_and_no_sessions(made: World, method: str) -> None:
    credential = made.deployment.credential("acme", "caller")
    told = made.client.request(method, PATH, credential=credential)
    assert (told.status, told.headers["allow"], told.json["code"]) == (405, "POST", "method_not_allowed")


@pytest.mark.parametrize("body", [b"", b"{", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', b"[" * 5000])
def test_what_is_no_json_is_a_json_rpc_error(made: World, body: bytes) -> None:
    told = post(made, body)
    assert (told.status, told.headers["content-type"]) == (400, "application/json")
    assert (told.json["id"], told.json["error"]["code"]) == (None, -32700)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, PING, 415),
        ({}, b" " * (1024 * 1024 + 1), 413),
        ({"accept": "text/html"}, PING, 406),
        ({"origin": "https://evil.example"}, PING, 403),
        ({"mcp-protocol-version": "1999-01-01"}, PING, 400),
        ({}, PING, 200),
        ({}, [PING], 200),
        ({"mcp-protocol-version": "2025-11-25"}, [PING], 400),
        ({"idempotency-key": "k"}, PING, 200),
    ],
)
def test_statuses(made: World, headers: dict[str, str], body: Any, status: int) -> None:
    told = post(made, body, **headers)
    assert told.status == status, told.body
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["x-request-id"]


def test_an_allowed_origin_may_speak(made: World) -> None:
    origin = "https://app.example.com"
    credential = made.deployment.credential("acme", "caller")
    with settings(HOTPLUG_ALLOWED_ORIGINS=f"{origin}, http://localhost:3000"):
        for sent, status in ((origin, 200), ("http://localhost:3000", 200), ("https://evil.example", 403)):
            told = made.client.post(PATH, PING, headers={"origin": sent}, credential=credential)
            assert told.status == status, told.body


def test_a_batch_is_answered_as_one(made: World) -> None:
    call = {"name": "plugin_counter_count", "arguments": {"text": "x"}}
    made.replies += [answer(result={"words": 1})]
    told = post(made, [PING, {**PING, "id": 2, "method": "tools/call", "params": call}])
    assert [body["id"] for body in told.json] == [1, 2]
    assert told.json[1]["result"]["content"] == [{"type": "text", "text": '{"words": 1}'}]


def test_a_run_is_kept_like_any_other(made: World) -> None:
    plugin_id = made.client.get(PLUGINS, credential=made.deployment.credential("acme", "viewer")).json[
        "items"
    ][0]["pluginId"]
    made.replies += [answer(result={"words": 1})]
    call = {"name": "plugin_counter_count", "arguments": {"text": "x"}}
    headers = {"mcp-protocol-version": "2025-11-25"}
    told = post(made, {**PING, "method": "tools/call", "params": call}, **headers).json["result"]
    execution_id = told["_meta"]["hotplug/executionId"]
    kept = made.client.get(
        f"{PLUGINS}/{plugin_id}/executions/{execution_id}",
        credential=made.deployment.credential("acme", "viewer"),
    )
    assert (kept.json["action"], kept.json["outcome"]) == ("count", "success")


def test_the_log_has_a_line_per_request_and_no_arguments(
    made: World, capsys: pytest.CaptureFixture[str]
) -> None:
    made.replies += [answer(result={"words": 1})]
    call = {"name": "plugin_counter_count", "arguments": {"text": "classified"}}
    post(made, {**PING, "method": "tools/call", "params": call})
    written = capsys.readouterr().out
    [line] = [json.loads(one) for one in written.splitlines() if '"mcp.request"' in one]
    assert (line["method"], line["tool"], line["version"], line["outcome"]) == (
        "tools/call", "plugin_counter_count", "2025-03-26", "success",
    )  # fmt: skip
    assert "classified" not in written
