"""MCP servers of the official SDK on ports of this machine, with a tool for each kind of content.

`serving(official())` is a server that a client can be registered with; `Served.requests` tells what it was asked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Kind = Literal["stateful", "stateful_json", "stateless", "stateless_json", "sse"]
KINDS: tuple[Kind, ...] = ("stateful", "stateful_json", "stateless", "stateless_json", "sse")

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n not much of a picture").decode()
WAV = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVE").decode()
START_S = 10.0
STOP_S = 5.0

# What each tool answers, as it must arrive: the JSON of a CallToolResult.
RESULTS: dict[str, dict[str, Any]] = {
    "text": {"content": [{"type": "text", "text": "grüße, 世界"}]},
    "image": {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]},
    "audio": {"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]},
    "link": {
        "content": [
            {"type": "resource_link", "name": "report", "uri": "file:///report.txt", "mimeType": "text/plain"}
        ]
    },
    "embedded": {
        "content": [
            {"type": "resource", "resource": {"uri": "file:///a.txt", "mimeType": "text/plain", "text": "a"}},
            {"type": "resource", "resource": {"uri": "file:///b.bin", "blob": PNG}},
        ]
    },
    "structured": {
        "content": [{"type": "text", "text": "21.5"}],
        "structuredContent": {"celsius": 21.5, "station": {"id": 7, "name": None}},
        "_meta": {"example.org/took": 3},
    },
    "annotated": {
        "content": [
            {
                "type": "text",
                "text": "for you",
                "annotations": {"audience": ["user"], "priority": 0.5},
                "_meta": {"example.org/part": 1},
            }
        ]
    },
    "failing": {"content": [{"type": "text", "text": "no such city"}], "isError": True},
}
OTHER_TOOLS = ("echo", "slow", "refusing", "asking", "sampling")


@dataclass
class Asked:
    """One HTTP request that a server got; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Served:
    """A running server."""

    port: int
    url: str
    requests: list[Asked] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """What the outbound client's list of private endpoints must name."""
        return f"127.0.0.1:{self.port}"


def official(page_size: int = 100, header_tool: bool = False) -> Server[Any]:
    """Return a server with one tool per entry of RESULTS, and OTHER_TOOLS.

    Parameters
    ----------
    page_size
        Tools in each page of its listing.
    header_tool
        Whether `echo` wants its argument `city` repeated in a header (2026-07-28).
    """
    tools = [_tool(name) for name in (*RESULTS, *OTHER_TOOLS)]
    if header_tool:
        city = {"type": "string", "x-mcp-header": "City"}
        tools = [
            tool.model_copy(update={"input_schema": {"type": "object", "properties": {"city": city}}})
            if tool.name == "echo"
            else tool
            for tool in tools
        ]

    async def on_list_tools(
        context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        end = start + page_size
        return types.ListToolsResult(
            tools=tools[start:end], next_cursor=str(end) if end < len(tools) else None, ttl_ms=0
        )

    schemas = {tool.name: tool.input_schema for tool in tools}
    return Server(
        "official",
        version="1.2.3",
        instructions="Ask for the weather.",
        on_list_tools=on_list_tools,
        on_call_tool=_on_call_tool,
        get_tool_input_schema=schemas.get,
    )


def application(server: Server[Any], kind: Kind) -> ASGIApp:
    """Return the ASGI application of a server: at `/mcp`, or `/sse` for the older transport."""
    if kind == "sse":
        return _sse_application(server)
    return server.streamable_http_app(
        stateless_http=kind.startswith("stateless"), json_response=kind.endswith("_json")
    )


@contextmanager
def serving(server: Server[Any], kind: Kind = "stateless", only_handshake: bool = False) -> Iterator[Served]:
    """Run a server.

    Parameters
    ----------
    only_handshake
        Whether it is one from before 2026-07-28, which answers that version with 400.
    """
    app = application(server, kind)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        served = Served(port, f"http://127.0.0.1:{port}/{'sse' if kind == 'sse' else 'mcp'}")
        config = uvicorn.Config(
            _recorded(app, served, only_handshake),
            log_config=None,
            log_level="critical",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        runner = uvicorn.Server(config)
        loop = asyncio.new_event_loop()
        serve = loop.create_task(runner.serve(sockets=[listener]))
        thread = threading.Thread(target=_run, args=(loop, serve))
        thread.start()
        try:
            _wait_until_started(runner)
            yield served
        finally:
            runner.should_exit = True
            thread.join(STOP_S)
            if thread.is_alive():
                # Its sessions end with their streams, and a client that was killed has left one open.
                loop.call_soon_threadsafe(serve.cancel)
                thread.join(STOP_S)
            assert not thread.is_alive()


def _run(loop: asyncio.AbstractEventLoop, serve: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError), contextlib.closing(loop):
        loop.run_until_complete(serve)


def _wait_until_started(runner: uvicorn.Server) -> None:
    ends = time.monotonic() + START_S
    while not runner.started:
        if time.monotonic() > ends:
            raise TimeoutError("the MCP server has not started")
        time.sleep(0.01)


def _tool(name: str) -> types.Tool:
    return types.Tool(name=name, description=f"Answers with {name}.", input_schema={"type": "object"})


async def _on_call_tool(
    context: ServerRequestContext[Any], params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    match params.name:
        case "echo":
            return types.CallToolResult(content=[], structured_content={"arguments": params.arguments})
        case "slow":
            await anyio.sleep(60)
        case "refusing":
            raise MCPError(code=-32602, message="no such argument: town")
        case "asking":
            return types.InputRequiredResult(request_state="opaque")
        case "sampling":
            wish = types.CreateMessageRequestParams(messages=[], max_tokens=1)
            await context.session.send_request(
                types.CreateMessageRequest(params=wish),
                types.CreateMessageResult,
                metadata=ServerMessageMetadata(related_request_id=context.request_id),
            )
    if params.name not in RESULTS:
        raise MCPError(code=-32602, message=f"Unknown tool: {params.name}")
    return types.CallToolResult.model_validate(RESULTS[params.name])


def _sse_application(server: Server[Any]) -> Starlette:
    transport = SseServerTransport("/messages/")

    async def connect(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    return Starlette(
        routes=[
            Route("/sse", endpoint=connect, methods=["GET"]),
            Mount("/messages/", app=transport.handle_post_message),
        ]
    )


def _recorded(app: ASGIApp, served: Served, only_handshake: bool) -> ASGIApp:
    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            served.requests.append(Asked(scope["method"], scope["path"], headers))
            if only_handshake and headers.get("mcp-protocol-version", "") > "2026":
                await _bad_request(send)
                return
        await app(scope, receive, send)

    return recorded


async def _bad_request(send: Send) -> None:
    start: Message = {"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]}
    await send(start)
    await send({"type": "http.response.body", "body": b""})
