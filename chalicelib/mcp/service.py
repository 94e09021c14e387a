"""The tools of one caller, from everything that offers some: listed in pages, called by name."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from chalicelib.core import paging, telemetry
from chalicelib.core.answers import wire_bytes
from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.settings import ONE_MIB
from chalicelib.mcp.offers import Key, Offer, Provider, ToolResult
from chalicelib.mcp.protocol import Page, UnknownTool

PAGE_LIMIT = 100
# A schema has up to 256 KiB: a hundred of them would not fit into an answer.
PAGE_BYTES = ONE_MIB
# A tool may take 25 s of the gateway's 29: one that begins later in a batch would be cut off, its outcome unknown.
LATEST_START_S = 3.0
MAX_EXPLAINED = 20
# Characters of what a server said against a call; all of it stands in the structured part.
MAX_UPSTREAM_TEXT = 2_000


@dataclass
class ToolServer:
    """Lists and calls the tools of one caller, for one request.

    Parameters
    ----------
    providers
        Their kinds differ.
    cursor_key
        Secret of the deployment that cursors are signed with.
    admit
        Takes one request from the app's budget, or raises errors.TooManyRequests; the HTTP request itself has paid for
        the first call.
    """

    caller: Caller
    providers: Sequence[Provider]
    cursor_key: bytes
    admit: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _calls: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self.providers = sorted(self.providers, key=lambda provider: provider.kind)

    # -- listing ---------------------------------------------------------------------------------------------------

    def list_tools(self, cursor: str | None) -> Page:
        """Return a page of tools in the order of their names.

        The cursor is the last name shown, so a tool that comes or goes meanwhile shifts nothing.

        Raises
        ------
        errors.BadRequest
            A cursor of another caller, or of nobody.
        """
        page = paging.Page(PAGE_LIMIT, cursor, self._binding(), self.cursor_key)
        position = page.position(1)
        after = "" if position is None else str(position[0])
        named = list(islice(self._names_after(after), PAGE_LIMIT + 1))
        shown, last = self._fitting(named[:PAGE_LIMIT])
        more = bool(named) and last != named[-1][1]
        return Page(shown, page.encode([last]) if more else None)

    def _binding(self) -> dict[str, Any]:
        return {"$app": self.caller.app_id, "$credential": self.caller.credential_id, "$path": "mcp"}

    def _names_after(self, after: str) -> Iterator[tuple[Provider, str, Key]]:
        # Names begin with their provider's kind, so one provider after the other is the order of all.
        for provider in self.providers:
            index = provider.index(self.caller)
            for name in index.names[bisect_right(index.names, after) :]:
                yield provider, name, index.keys[name]

    def _fitting(self, named: Sequence[tuple[Provider, str, Key]]) -> tuple[list[Offer], str]:
        """Return as many offers as fit into an answer, at least one, and the last name that was looked at."""
        offers = {offer.name: offer for offer in self._described(named)}
        shown: list[Offer] = []
        room, last = PAGE_BYTES, ""
        for _, name, _ in named:
            offer = offers.get(name)
            if offer is not None:
                room -= wire_bytes([offer.description, offer.input_schema, offer.output_schema])
                if shown and room < 0:
                    break
                shown.append(offer)
            last = name
        return shown, last

    def _described(self, named: Sequence[tuple[Provider, str, Key]]) -> Iterator[Offer]:
        for provider in self.providers:
            own = [(name, key) for one, name, key in named if one is provider]
            if own:
                yield from provider.describe(self.caller, own)

    # -- calling ---------------------------------------------------------------------------------------------------

    def call_tool(self, name: str, arguments: dict[str, Any], meta: Mapping[str, Any]) -> ToolResult:
        """Run a tool. Whatever refuses it or lets it fail is told in the result, where a model can read it.

        Raises
        ------
        protocol.UnknownTool
        """
        provider, key = self._find(name)
        try:
            self._start()
            return provider.call(self.caller, key, arguments, meta)
        except HotplugError as error:
            return explained(error, self.caller.request_id)

    def _find(self, name: str) -> tuple[Provider, Key]:
        kind = name.partition("_")[0]
        for provider in self.providers:
            if provider.kind == kind:
                key = provider.index(self.caller).keys.get(name)
                if key is not None:
                    return provider, key
        raise UnknownTool(name)

    def _start(self) -> None:
        self._calls += 1
        if self._calls == 1:
            return
        if self.clock() - self._began > LATEST_START_S:
            raise Unavailable(
                "It was not started: the calls before it in this batch took too long. Call it again, alone.",
                code="mcp.no_time",
                retry_after=1,
            )
        self.admit()

    # -- what the log and the client learn -----------------------------------------------------------------------------

    def answered(self, method: str, tool: str | None, version: str, outcome: str) -> None:
        """Write one line, and count calls: metrics cost 50 ms of import, which a list need not pay."""
        telemetry.event("mcp.request", method=method, tool=tool, version=version, outcome=outcome)
        if method == "tools/call":
            telemetry.metric("mcp.calls", 1)
            telemetry.metric("mcp.errors", 0 if outcome == "success" else 1)

    def failed(self, error: Exception) -> dict[str, Any]:
        """Log an unexpected error."""
        telemetry.exception("mcp.failed", error)
        return {"requestId": self.caller.request_id}


def explained(error: HotplugError, request_id: str) -> ToolResult:
    """Return the result that tells a model what went wrong, and a program the code and every violation."""
    lines = [f"{error.detail} ({error.code})"]
    own = error.extensions.get("error")
    if isinstance(own, dict):
        lines.append(f"{own.get('code')}: {own.get('message')}")
    upstream = error.extensions.get("upstream")
    if isinstance(upstream, dict):
        lines.append(json.dumps(upstream.get("body"), ensure_ascii=False)[:MAX_UPSTREAM_TEXT])
    violations = [one.as_dict() for one in error.errors]
    lines += [f"- {one['pointer'] or '/'}: {one['message']}" for one in violations[:MAX_EXPLAINED]]
    if len(error.errors) > MAX_EXPLAINED:
        lines.append(f"- and {len(error.errors) - MAX_EXPLAINED} more")
    if error.retry_after is not None:
        lines.append(f"Trying again after {error.retry_after} s makes sense.")
    structured: dict[str, Any] = {
        # The logs are for whoever runs the plugin by hand; a model needs no more than the reason.
        **{name: value for name, value in error.extensions.items() if name != "logs"},
        "code": error.code,
        "status": error.status,
        "detail": error.detail,
        "requestId": request_id,
        "errors": violations,
    }
    return ToolResult([{"type": "text", "text": "\n".join(lines)}], structured, is_error=True)
