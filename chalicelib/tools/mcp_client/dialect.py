"""What is known of an MCP server: how it is spoken to, who it says it is, which tools it lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Transport = Literal["streamable_http", "sse"]


@dataclass(frozen=True)
class Dialect:
    """How a server is spoken to, as a probe found it; kept, it saves the negotiation of every later call.

    Parameters
    ----------
    transport
        `streamable_http`, or the `sse` transport that it replaced (HTTP+SSE of 2024-11-05).
    protocol_version
        The revision that was negotiated, `2025-11-25`.
    """

    transport: Transport
    protocol_version: str


@dataclass(frozen=True)
class ServerInfo:
    """A server as it describes itself; nothing in it is to be trusted.

    `name` and `version` are None where it does not say: since 2026-07-28 they are optional.
    """

    dialect: Dialect
    name: str | None
    version: str | None
    instructions: str | None


@dataclass(frozen=True)
class ToolListing:
    """The tools of a server, each as the JSON that came over the wire, and the server they came from."""

    server: ServerInfo
    tools: tuple[dict[str, Any], ...]
