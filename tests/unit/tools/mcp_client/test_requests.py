from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.shared.exceptions import MCPError

from chalicelib.core.errors import UpstreamFailed
from chalicelib.tools.mcp_client import requests
from chalicelib.tools.mcp_client.dialect import Dialect, ServerInfo

SERVER = ServerInfo(Dialect("streamable_http", "2026-07-28"), "n", "1", None)


class FakeConnection:
    """Answers each request with its next answer, or raises it."""

    def __init__(self, *answers: dict[str, Any] | Exception, is_stateless: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.listed: list[str | None] = []
        self.is_stateless = is_stateless
        self.server = SERVER
        self.client = SimpleNamespace(list_tools=self.list_tools)

    async def request(self, request: mcp_types.ClientRequest) -> dict[str, Any]:
        self.asked.append(request.model_dump(by_alias=True, exclude_none=True))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list_tools(self, cursor: str | None) -> mcp_types.ListToolsResult:
        self.listed.append(cursor)
        tool = mcp_types.Tool(name=f"t{len(self.listed)}", input_schema={"type": "object"})
        return mcp_types.ListToolsResult(tools=[tool], next_cursor=str(len(self.listed)))


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", **schema}}


def mirrored(header: str) -> dict[str, Any]:
    return {"properties": {"a": {"type": "string", "x-mcp-header": header}}}


def test_pages_are_followed_and_joined() -> None:
    connection = FakeConnection({"tools": [tool("a")], "nextCursor": "2"}, {"tools": [tool("b")]})
    listing = anyio.run(requests.list_tools, connection)
    assert listing.tools == (tool("a"), tool("b"))
    assert listing.server == SERVER
    assert [asked["params"] for asked in connection.asked] == [{}, {"cursor": "2"}]


@pytest.mark.parametrize(("is_stateless", "names"), [(True, ["good"]), (False, ["good", "bad"])])
def test_tools_with_headers_that_no_client_may_send_are_dropped(is_stateless: bool, names: list[str]) -> None:
    page = {"tools": [tool("good", **mirrored("City")), tool("bad", **mirrored("a b"))]}
    listing = anyio.run(requests.list_tools, FakeConnection(page, is_stateless=is_stateless))
    assert [one["name"] for one in listing.tools] == names


def test_500_tools_are_a_listing_and_501_are_not() -> None:
    whole = {"tools": [tool("a")] * 500}
    assert len(anyio.run(requests.list_tools, FakeConnection(whole)).tools) == 500
    with pytest.raises(UpstreamFailed) as caught:
        anyio.run(requests.list_tools, FakeConnection({"tools": [tool("a")] * 501}))
    assert caught.value.code == "mcp.listing_too_long"


@pytest.mark.parametrize(
    "result",
    [
        {"content": []},
        {"content": [], "resultType": "complete", "isError": True, "unknown": {"x": None}},
    ],
)
def test_a_result_is_returned_as_it_came(result: dict[str, Any]) -> None:
    connection = FakeConnection(result)
    assert anyio.run(requests.call_tool, connection, "t", {"a": None}) == result
    assert connection.asked[0]["params"] == {"name": "t", "arguments": {"a": None}}


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"resultType": "input_required", "requestState": "x"}, "mcp.input_required"),
        ({"resultType": "task", "content": []}, "mcp.protocol_error"),
        ({"content": [], "x": float("nan")}, "mcp.protocol_error"),
        ({"content": [], "x": "\ud800"}, "mcp.protocol_error"),
    ],
)
def test_what_is_no_result_is_refused(result: dict[str, Any], code: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        anyio.run(requests.call_tool, FakeConnection(result), "t", {})
    assert caught.value.code == code


def test_a_header_that_is_missing_is_looked_up_once() -> None:
    mismatch = MCPError(code=mcp_types.HEADER_MISMATCH, message="x")
    connection = FakeConnection(mismatch, {"content": []})
    assert anyio.run(requests.call_tool, connection, "t2", {}) == {"content": []}
    assert connection.listed == [None, "1"]
    with pytest.raises(MCPError):
        anyio.run(requests.call_tool, FakeConnection(mismatch, mismatch), "t1", {})


def test_a_tool_that_is_not_listed_is_looked_for_within_bounds() -> None:
    mismatch = MCPError(code=mcp_types.HEADER_MISMATCH, message="x")
    connection = FakeConnection(mismatch, {"content": []})
    anyio.run(requests.call_tool, connection, "nowhere", {})
    assert len(connection.listed) == requests.MAX_PAGES


def test_a_server_of_the_handshake_has_no_such_headers() -> None:
    mismatch = MCPError(code=mcp_types.HEADER_MISMATCH, message="x")
    with pytest.raises(MCPError):
        anyio.run(requests.call_tool, FakeConnection(mismatch, is_stateless=False), "t", {})
