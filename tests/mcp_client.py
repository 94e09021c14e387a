"""The official MCP SDK's client, talking to the application in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from tests.http import Client, Response

URL = "https://hotplug.example/api/v1/mcp"


@dataclass(frozen=True)
class Exchange:
    """One HTTP request of the client and its answer."""

    method: str
    headers: dict[str, str]
    body: Any
    answer: Response


@dataclass
class AppTransport(httpx2.AsyncBaseTransport):
    """Hands requests to the application instead of a socket.

    Parameters
    ----------
    client
        With the credential to use.
    speaks
        What the client proposes in its handshake, as an older one does; None for what the SDK proposes.
    """

    client: Client
    speaks: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        body = json.loads(content) if content else None
        if self.speaks is not None and isinstance(body, dict) and body.get("method") == "initialize":
            body["params"]["protocolVersion"] = self.speaks
            content = json.dumps(body).encode()
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower() != "host"}
        answer = self.client.request(
            request.method, request.url.path, content=content or None, headers=headers
        )
        self.exchanges.append(Exchange(request.method, headers, body, answer))
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body.encode())


@asynccontextmanager
async def connected(transport: AppTransport, mode: str = "auto") -> AsyncIterator[McpClient]:
    """Connect the SDK's client, negotiating as `mode` says: `legacy`, `auto` or a modern version."""
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        McpClient(streamable_http_client(URL, http_client=http), mode=mode) as client,
    ):
        yield client
