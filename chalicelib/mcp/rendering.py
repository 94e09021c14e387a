"""Tools and results as each protocol revision writes them: nothing that it does not know, nothing that it forbids."""

from __future__ import annotations

from typing import Any

from chalicelib.core.settings import VERSION
from chalicelib.mcp.envelope import SERVER_KEY
from chalicelib.mcp.offers import ABSENT, Offer, ToolResult
from chalicelib.mcp.versions import SUPPORTED, Version

# Beyond this, text that only repeats the structured result is left out: it would count twice.
MAX_REPEATED_BYTES = 256 * 1024
INSTRUCTIONS = (
    "Each tool is an action of a plugin, an operation of an HTTP API or a flow of this Hotplug deployment. The list"
    " changes as they are enabled and published: list again when a tool is unknown."
)
_CAPABILITIES: dict[str, Any] = {"tools": {"listChanged": False}}


def server_info(version: Version) -> dict[str, str]:
    """Return who answers."""
    info = {"name": "hotplug", "version": VERSION}
    return info if version.structured == "none" else {**info, "title": "Hotplug"}


def initialized(version: Version) -> dict[str, Any]:
    """Return the result of `initialize`."""
    return {
        "protocolVersion": version.name,
        "capabilities": _CAPABILITIES,
        "serverInfo": server_info(version),
        "instructions": INSTRUCTIONS,
    }


def discovered(version: Version) -> dict[str, Any]:
    """Return the result of `server/discover`."""
    discovery = {
        "supportedVersions": list(SUPPORTED),
        "capabilities": _CAPABILITIES,
        "instructions": INSTRUCTIONS,
    }
    return _completed(version, {**discovery, **_uncached()})


def tool_list(version: Version, offers: list[Offer], next_cursor: str | None) -> dict[str, Any]:
    """Return the result of `tools/list`."""
    listed: dict[str, Any] = {"tools": [tool(version, offer) for offer in offers]}
    if next_cursor is not None:
        listed["nextCursor"] = next_cursor
    if version.modern:
        listed |= _uncached()
    return _completed(version, listed)


def tool(version: Version, offer: Offer) -> dict[str, Any]:
    """Return one tool's definition."""
    shown: dict[str, Any] = {
        "name": offer.name,
        "description": offer.description,
        "inputSchema": dict(offer.input_schema),
    }
    if version.annotations and offer.annotations:
        shown["annotations"] = dict(offer.annotations)
    if version.structured != "none":
        shown["title"] = offer.title
        if _shows_schema(version, offer):
            shown["outputSchema"] = dict(offer.output_schema or {})
    return shown


def _shows_schema(version: Version, offer: Offer) -> bool:
    if offer.output_schema is None:
        return False
    return version.structured == "any" or offer.output_schema.get("type") == "object"


def tool_result(version: Version, result: ToolResult) -> dict[str, Any]:
    """Return the result of `tools/call`."""
    told: dict[str, Any] = {"content": [dict(block) for block in result.content], "isError": result.is_error}
    if _is_shown(version, result.structured):
        told["structuredContent"] = result.structured
        if _repeated_bytes(result) > MAX_REPEATED_BYTES:
            text = "The result is too long to be repeated as text: see structuredContent."
            told["content"] = [{"type": "text", "text": text}]
    if result.meta:
        told["_meta"] = dict(result.meta)
    return _completed(version, told)


def _is_shown(version: Version, structured: Any) -> bool:
    if structured is ABSENT or version.structured == "none":
        return False
    return version.structured == "any" or isinstance(structured, dict)


def _repeated_bytes(result: ToolResult) -> int:
    return sum(len(block["text"].encode()) for block in result.content if block.get("type") == "text")


def _completed(version: Version, result: dict[str, Any]) -> dict[str, Any]:
    if not version.modern:
        return result
    meta = {**result.get("_meta", {}), SERVER_KEY: server_info(version)}
    return {"resultType": "complete", **result, "_meta": meta}


def completed(version: Version) -> dict[str, Any]:
    """Return an empty result."""
    return _completed(version, {})


def _uncached() -> dict[str, Any]:
    # The list changes the moment something is enabled, and each app has its own.
    return {"ttlMs": 0, "cacheScope": "private"}
