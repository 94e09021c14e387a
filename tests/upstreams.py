"""What the tools of these tests lead to: an HTTP API and an MCP server on ports of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from tests import mcp_servers
from tests.internet import Server
from tests.tool_documents import document

PET = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{"id": 7, "name": "Tom"}'
)
KEY = {"type": "apiKey", "in": "header", "name": "X-Key"}


@dataclass(frozen=True)
class Upstreams:
    """Where they are.

    Parameters
    ----------
    api, mcp
        The URLs to register.
    endpoints
        Both, as `HOTPLUG_PRIVATE_ENDPOINTS` wants them.
    """

    api: str
    mcp: str
    endpoints: str

    def document(self) -> dict[str, Any]:
        """Return the API's document: `getPet` needs no credential, and one can be stored under `key`."""
        described = document(self.api)
        described["components"]["securitySchemes"] = {"key": KEY}
        described["paths"]["/pets/{petId}"]["get"]["security"] = [{"key": []}, {}]
        return described


@contextmanager
def serving_upstreams() -> Iterator[Upstreams]:
    """Serve both until the block ends."""
    with (
        closing(Server(PET)) as api,
        mcp_servers.serving(mcp_servers.official(), "stateless_json") as served,
    ):
        endpoints = f"127.0.0.1:{api.port},{served.endpoint}"
        yield Upstreams(f"http://127.0.0.1:{api.port}", served.url, endpoints)
