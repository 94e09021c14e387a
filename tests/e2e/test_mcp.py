"""Hotplug as an MCP server, over the real front: the official SDK's client on several API processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from infra.local.stack import LocalStack
from tests.e2e.conftest import UNLIMITED
from tests.e2e.tenants import Api, Tenant, fresh_name, new_tenant
from tests.flow_rows import graph
from tests.internet import Server
from tests.least_privilege.watched import WatchedStack
from tests.tool_documents import document

pytestmark = pytest.mark.slow

API_PROCESSES = 4
MODES = ("legacy", "auto", "2026-07-28")
BODY = json.dumps({"id": 7, "name": "Tom"})
PET = (
    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    server = Server(PET)
    yield server
    server.close()


@pytest.fixture(scope="module")
def mcp_stack(tmp_path_factory: pytest.TempPathFactory, upstream: Server) -> Iterator[LocalStack]:
    folder = tmp_path_factory.mktemp("mcp") / "local"
    environment = {**UNLIMITED, "HOTPLUG_PRIVATE_ENDPOINTS": f"127.0.0.1:{upstream.port}"}
    with WatchedStack(
        folder, api_processes=API_PROCESSES, schedules=False, environment=environment
    ) as running:
        yield running


@pytest.fixture
def tenant(mcp_stack: LocalStack) -> Iterator[Tenant]:
    root = Api(mcp_stack.url, mcp_stack.admin_credential)
    made = new_tenant(mcp_stack, root)
    yield made
    made.close()
    root.close()


def speak(stack: LocalStack, credential: str, mode: str, work: Any) -> Any:
    """Connect the SDK's client and return what `work(client)` returns."""

    async def converse() -> Any:
        headers = {"Authorization": f"Bearer {credential}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=40) as http,
            McpClient(
                streamable_http_client(f"{stack.url}/api/v1/mcp", http_client=http), mode=mode
            ) as client,
        ):
            return await work(client)

    return anyio.run(converse)


async def names(client: McpClient) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.parametrize("mode", MODES)
def test_the_official_client_lists_and_calls(
    mcp_stack: LocalStack, tenant: Tenant, upstream: Server, mode: str
) -> None:
    plugin = fresh_name("greeter")
    action = {"description": "Says hello", "paramsSchema": {"type": "object"}}
    tenant.install(plugin, actions={"default": action})
    pets = document(f"http://127.0.0.1:{upstream.port}")
    tenant.admin("POST", "/api/v1/tools", 201, json={"name": "Pets", "openapi": pets})

    async def work(client: McpClient) -> Any:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        called = await client.call_tool("tool_Pets_getPet", {"path": {"petId": 7}})
        wrong = await client.call_tool("tool_Pets_getPet", {"path": {"petId": "x"}})
        ran = await client.call_tool(f"plugin_{plugin}_default", {})
        return listed, called, wrong, ran

    listed, called, wrong, ran = speak(mcp_stack, tenant.keys["caller"], mode, work)
    assert sorted(listed) == [f"plugin_{plugin}_default", "tool_Pets_getPet"]
    schema = listed["tool_Pets_getPet"].input_schema
    assert schema["required"] == ["path"]
    assert schema["properties"]["path"]["properties"]["petId"] == {"type": "integer"}
    assert (called.is_error, called.structured_content) == (False, {"id": 7, "name": "Tom"})
    assert json.loads(called.content[0].text) == {"id": 7, "name": "Tom"}
    assert wrong.is_error and wrong.structured_content["errors"][0]["pointer"] == "/arguments/path/petId"
    assert not ran.is_error


@pytest.mark.parametrize("mode", MODES)
def test_a_published_flow_is_called_as_a_tool(mcp_stack: LocalStack, tenant: Tenant, mode: str) -> None:
    flow = {"name": "Say hello", "data": graph("Hello!", who="string")}
    made = tenant.admin("POST", "/api/v1/flows", 201, json=flow).json()
    tenant.admin("POST", f"/api/v1/flows/{made['flowId']}/publish", 200, json={"version": "v1"})

    async def work(client: McpClient) -> Any:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        said = await client.call_tool("flow_Say_hello", {"who": "Ada"})
        return listed, said, await client.call_tool("flow_Say_hello", {"who": 1})

    listed, said, wrong = speak(mcp_stack, tenant.keys["caller"], mode, work)
    assert listed["flow_Say_hello"].input_schema["required"] == ["who"]
    assert (said.is_error, said.content[0].text, said.structured_content) == (False, "Hello!", {})
    assert wrong.is_error and wrong.structured_content["code"] == 22500


def test_the_list_changes_with_the_next_request_of_every_process(
    mcp_stack: LocalStack, tenant: Tenant, upstream: Server
) -> None:
    def listed() -> list[list[str]]:
        # More connections than processes: the front takes turns.
        return [
            speak(mcp_stack, tenant.keys["caller"], "2026-07-28", names) for _ in range(2 * API_PROCESSES)
        ]

    assert listed() == [[]] * 8
    pets = document(f"http://127.0.0.1:{upstream.port}", ping={"at": ("get", "/ping")})
    tool = tenant.admin("POST", "/api/v1/tools", 201, json={"name": "Pets", "openapi": pets}).json()
    assert listed() == [["tool_Pets_getPet", "tool_Pets_ping"]] * 8
    smaller = {"version": "V2", "openapi": document(f"http://127.0.0.1:{upstream.port}")}
    tenant.admin("POST", f"/api/v1/tools/{tool['toolId']}/versions", 201, json=smaller)
    assert listed() == [["tool_Pets_getPet"]] * 8
    tenant.admin("DELETE", f"/api/v1/tools/{tool['toolId']}", 204)
    assert listed() == [[]] * 8


@pytest.mark.parametrize("credential", [None, "nobody:nothing"])
def test_nobody_is_refused_as_everywhere(mcp_stack: LocalStack, credential: str | None) -> None:
    api = Api(mcp_stack.url, credential)
    refused = api("POST", "/api/v1/mcp", 401, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert refused.headers["content-type"] == "application/problem+json"
    api.close()


def test_a_viewer_may_not_call(mcp_stack: LocalStack, tenant: Tenant) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert tenant.apis["viewer"]("POST", "/api/v1/mcp", 403, json=body).json()["code"] == "auth.role"
    for method in ("GET", "DELETE"):
        refused = tenant.apis["caller"](method, "/api/v1/mcp", 405)
        assert refused.headers["allow"] == "POST"
