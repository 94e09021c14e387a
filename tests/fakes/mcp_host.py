"""A host for the MCP dispatcher, and a provider, with tools in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.paging import bad_cursor
from chalicelib.mcp.offers import Index, Key, Offer, ToolResult
from chalicelib.mcp.protocol import Page, UnknownTool

OBJECT = {"type": "object"}
ECHO = Offer("echo", "Echo", "Says it again.", OBJECT, OBJECT, {"openWorldHint": False})
COUNT = Offer("count", "Count", "Counts.", OBJECT, {"type": "integer"})


def echo(arguments: dict[str, Any]) -> ToolResult:
    return ToolResult([{"type": "text", "text": "said"}], arguments)


@dataclass
class MemoryHost:
    """Keeps what it was asked and what it was told."""

    tools: dict[str, Callable[[dict[str, Any]], ToolResult]] = field(default_factory=lambda: {"echo": echo})
    offers: list[Offer] = field(default_factory=lambda: [COUNT, ECHO])
    next_cursor: str | None = None
    listing: Callable[[], None] = lambda: None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    log: list[tuple[str, str | None, str, str]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def list_tools(self, cursor: str | None) -> Page:
        self.listing()
        if cursor not in (None, "good"):
            raise bad_cursor()
        return Page(self.offers, self.next_cursor)

    def call_tool(self, name: str, arguments: dict[str, Any], meta: Mapping[str, Any]) -> ToolResult:
        if name not in self.tools:
            raise UnknownTool(name)
        self.calls.append((name, arguments))
        return self.tools[name](arguments)

    def answered(self, method: str, tool: str | None, version: str, outcome: str) -> None:
        self.log.append((method, tool, version, outcome))

    def failed(self, error: Exception) -> dict[str, Any]:
        self.errors.append(error)
        return {"requestId": "r-1"}


@dataclass
class MemoryProvider:
    """Offers the tools that it was given: name → what a call does."""

    kind: str
    tools: dict[str, Callable[[dict[str, Any]], ToolResult]]
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    gone: set[str] = field(default_factory=set)
    described: list[list[str]] = field(default_factory=list)

    def index(self, caller: Caller) -> Index:
        return Index(tuple(sorted(self.tools)), {name: (name,) for name in self.tools})

    def describe(self, caller: Caller, named: Sequence[tuple[str, Key]]) -> list[Offer]:
        self.described.append([name for name, _ in named])
        return [Offer(name, name, "", self.schema) for name, _ in named if name not in self.gone]

    def call(
        self, caller: Caller, key: Key, arguments: dict[str, Any], meta: Mapping[str, Any]
    ) -> ToolResult:
        return self.tools[key[0]](arguments)
