"""Server-side request forgery (CWE-918) through MCP: servers that are changed or move, and tools called over MCP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core import process
from tests.http import Client
from tests.internet import A, Internet, client
from tests.mcp_by_hand import by_hand, rpc_result
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, INVALID, VECTORS
from tests.tool_documents import document
from tests.tool_world import TOOLS, World, reply, world

SERVERS = "/api/v1/mcp/servers"
NAME = "mcp.example"
EARLY = {INVALID, "request.invalid", "request.json"}
BY_KIND = {vector.kind: vector for vector in VECTORS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mcp-ssrf")
    with world(f"sqlite:///{folder}/hotplug.db", folder, reply("ok")) as running:
        yield running


@pytest.fixture
def server(made: World, internet: Internet) -> Iterator[str]:
    """The path of a registered server that is known as mcp.example."""
    listed = rpc_result({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
    said = rpc_result({"content": [{"type": "text", "text": "hello"}]})
    internet.serve(NAME, 80, by_hand({"tools/list": listed, "tools/call": said}))
    process.use_http(client(internet))
    answer = made.client.post(SERVERS, {"name": "Known", "url": f"http://{NAME}/mcp"})
    assert answer.status == 201, answer.body
    yield f"{SERVERS}/{answer.json['serverId']}"
    process.use_http(None)


def test_no_server_is_moved_to_forbidden_ground(made: World, server: str) -> None:
    before = made.client.get(server).json
    with Trap() as trap:
        process.use_http(trap.client())
        for vector in VECTORS:
            refused = made.client.patch(server, {"url": vector.url})
            code = refused.json["code"]
            assert (code, refused.status) == (FORBIDDEN, 403) or code in EARLY, vector.id
            assert code == vector.code or code in EARLY, vector.id
        trap.assert_untouched()
    assert made.client.get(server).json == before


def test_a_server_whose_name_moves_is_not_followed_to_forbidden_ground(
    made: World, internet: Internet, server: str
) -> None:
    call = f"{server}/tools/echo/call"
    assert made.client.post(call, {"arguments": {"a": 1}}).status == 200
    dialled = list(internet.dialled)
    for addresses in (("127.0.0.1",), (A, "10.0.0.1"), ("169.254.169.254",), ("::ffff:127.0.0.1",)):
        internet.names[NAME] = [addresses]
        for refused in (made.client.post(call, {"arguments": {"a": 1}}), made.client.patch(server, {})):
            assert (refused.status, refused.json["code"]) == (403, FORBIDDEN)
    assert internet.dialled == dialled
    internet.names[NAME] = [(A,)]
    assert made.client.post(call, {"arguments": {"a": 1}}).status == 200


def test_no_tool_that_is_called_over_mcp_leads_to_forbidden_ground(made: World) -> None:
    caller = Client(made.deployment.client.app, made.deployment.credential("overmcp", "publisher"))
    seen: dict[str, str] = {}
    with Trap() as trap:
        process.use_http(trap.client())
        try:
            for number, vector in enumerate(BY_KIND.values()):
                body = {"name": f"T{number}", "openapi": document(vector.url)}
                if (registered := caller.post(TOOLS, body)).status == 201:
                    seen[vector.kind] = called(caller, f"tool_T{number}_getPet")
                    caller.delete(f"{TOOLS}/{registered.json['toolId']}")
        finally:
            process.use_http(None)
        trap.assert_untouched()
    assert len(seen) >= 15
    assert seen == {kind: BY_KIND[kind].code for kind in seen}


def called(caller: Client, name: str) -> str:
    """Call a tool over MCP; return the code of its error."""
    params = {"name": name, "arguments": {"path": {"petId": 1}}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    answer: Any = caller.post("/api/v1/mcp", message, headers=headers).json
    assert answer["result"]["isError"] is True
    return str(answer["result"]["structuredContent"]["code"])
