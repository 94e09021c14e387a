"""The Model Context Protocol over stateless streamable HTTP: one POST in, one JSON answer out.

Our own dispatcher, because a function that answers three methods should not import an SDK for a second first. It knows
no database and no plugin: a `Host` lists and calls tools. Written from the specification's revisions 2024-11-05 to
2026-07-28 (modelcontextprotocol.io/specification); the official SDK's client judges it in the tests.

Statuses: what is no acceptable message is 400, a notification 202. A request's own errors are JSON-RPC errors: with 200
before 2026-07-28, whose clients give up on others, and since then with the status that revision names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.core import strict_json
from chalicelib.core.answers import MAX_ANSWER_BYTES, wire_bytes
from chalicelib.core.errors import BadRequest, HotplugError, Invalid
from chalicelib.mcp import rendering
from chalicelib.mcp.envelope import VERSION_HEADER, check_envelope, claimed_version, unsupported
from chalicelib.mcp.jsonrpc import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    Failure,
    Id,
    Malformed,
    Message,
    failure,
    read_message,
    request_id,
    success,
)
from chalicelib.mcp.offers import Offer, ToolResult
from chalicelib.mcp.versions import ASSUMED, BY_NAME, MODERN, Version, negotiate

MAX_BATCH = 20
MAX_CURSOR_LENGTH = 1024
MAX_SHOWN = 64
_HANDSHAKE_METHODS = frozenset({"initialize", "ping", "tools/list", "tools/call"})
_MODERN_METHODS = frozenset({"server/discover", "tools/list", "tools/call"})
# 2026-07-28, Streamable HTTP; the rest is 200.
_MODERN_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_PROTOCOL_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
# A media range of Accept that takes JSON, unless its weight is zero (RFC 9110 §12.5.1).
_JSON_RANGES = frozenset({"application/json", "application/*", "*/*"})
_ZERO_WEIGHT = re.compile(r"q=0(\.0{0,3})?", re.ASCII)


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `body` is a JSON value, None for an empty body."""

    status: int
    body: Any = None


@dataclass(frozen=True)
class Page:
    """One page of a caller's tools."""

    offers: list[Offer]
    next_cursor: str | None


class UnknownTool(Exception):
    """The caller has no tool of this name."""


class Host(Protocol):
    """What lists and calls the tools of one caller."""

    def list_tools(self, cursor: str | None) -> Page:
        """Return a page; raises errors.BadRequest for a cursor that is not the caller's."""

    def call_tool(self, name: str, arguments: dict[str, Any], meta: Mapping[str, Any]) -> ToolResult:
        """Run a tool; a failure of its own is a result. `meta` is what the client, not its model, adds. Raises
        UnknownTool."""

    def answered(self, method: str, tool: str | None, version: str, outcome: str) -> None:
        """Take note of an answered request: the method where it is a known one, the tool where there is one, and
        `success`, `tool_error` or the JSON-RPC code. Nothing in it was made up by the client."""

    def failed(self, error: Exception) -> dict[str, Any]:
        """Log an error that is nobody's input, and return what the client may know of it (its request id)."""


# -- the way in ----------------------------------------------------------------------------------------------------


def answer(
    raw: bytes, headers: Mapping[str, str], host: Host, *, allowed_origins: Collection[str], max_bytes: int
) -> Reply:
    """Answer the body of one POST.

    Parameters
    ----------
    headers
        Found by lower-case name.
    allowed_origins
        Web origins (`https://app.example.com`) whose pages may call; others are refused with 403. Whoever sends no
        Origin is not a page.
    max_bytes
        Of the body.
    """
    refused = _refusal(headers, allowed_origins)
    if refused is not None:
        return refused
    try:
        message = strict_json.parse(raw, max_bytes=max_bytes)
    except Invalid as error:
        data = {"errors": [violation.as_dict() for violation in error.errors]}
        return Reply(400, failure(None, Failure(PARSE_ERROR, "The body is not acceptable JSON.", data)))
    return handle(message, headers, host)


def _refusal(headers: Mapping[str, str], allowed_origins: Collection[str]) -> Reply | None:
    origin = headers.get("origin")
    if origin is not None and origin not in allowed_origins:
        # A page whose name was rebound to this address sends its own origin.
        return Reply(403, failure(None, Failure(INVALID_REQUEST, "This origin is not allowed.")))
    if not _takes_json(headers.get("accept")):
        return Reply(406, failure(None, Failure(INVALID_REQUEST, "The client must accept application/json.")))
    return None


def _takes_json(accept: str | None) -> bool:
    """True where JSON is acceptable. The specification also wants text/event-stream listed, which is never sent here,
    so a client that does without is served."""
    if accept is None:
        return True
    for media_range in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        if kind in _JSON_RANGES and not any(_ZERO_WEIGHT.fullmatch(one) for one in parameters):
            return True
    return False


def handle(message: Any, headers: Mapping[str, str], host: Host) -> Reply:
    """Answer a parsed body: a message, or a batch of them where the revision has batches."""
    try:
        version = _version(message, headers)
        if isinstance(message, list):
            return _batch(message, version, host)
        received = read_message(message)
    except Malformed as error:
        return Reply(400, failure(error.id, error))
    except Failure as error:
        return Reply(400, failure(request_id(message), error))
    if received is None and version.modern:
        told = Failure(INVALID_REQUEST, "A client sends no responses.")
        return Reply(400, failure(None, told))
    if received is None or received.id is None:
        return Reply(202)
    body = _respond(received, received.id, version, headers, host, MAX_ANSWER_BYTES)
    code = body["error"]["code"] if "error" in body else 0
    return Reply(_MODERN_STATUS.get(code, 200) if version.modern else 200, body)


def _version(message: Any, headers: Mapping[str, str]) -> Version:
    """Return the revision that a body is to be read by: that of its header, or of its envelope, which `check_envelope`
    then compares with the header."""
    named, claimed = headers.get(VERSION_HEADER), claimed_version(message)
    if claimed is not None and claimed != named:
        return MODERN
    if named is None:
        return ASSUMED
    version = BY_NAME.get(named)
    if version is None and claimed is not None:
        return MODERN
    if version is None:
        raise unsupported(named)
    return version


def _batch(messages: list[Any], version: Version, host: Host) -> Reply:
    if not version.batches:
        raise Malformed(INVALID_REQUEST, f"Revision {version.name} has no batches.")
    if not 0 < len(messages) <= MAX_BATCH:
        raise Malformed(INVALID_REQUEST, f"A batch has 1 to {MAX_BATCH} messages.")
    ids = Counter(one for one in map(request_id, messages) if one is not None)
    if any(count > 1 for count in ids.values()):
        # Whoever asked could not tell the answers apart.
        raise Malformed(INVALID_REQUEST, "Two messages of the batch have the same id.")
    bodies: list[dict[str, Any]] = []
    room = MAX_ANSWER_BYTES
    for message in messages:
        body = _batched(message, version, host, room)
        if body is not None:
            room -= wire_bytes(body)
            bodies.append(body)
    return Reply(200, bodies) if bodies else Reply(202)


def _batched(message: Any, version: Version, host: Host, room: int) -> dict[str, Any] | None:
    try:
        received = read_message(message)
    except Malformed as error:
        return failure(error.id, error)
    if received is None or received.id is None:
        return None
    if received.method == "initialize":
        # 2025-03-26, "Initialization": it must not be part of a batch.
        return failure(received.id, Failure(INVALID_REQUEST, "initialize stands alone."))
    return _respond(received, received.id, version, {}, host, room)


# -- one request ---------------------------------------------------------------------------------------------------


def _respond(
    request: Message,
    id: Id,
    version: Version,
    headers: Mapping[str, str],
    host: Host,
    room: int,
) -> dict[str, Any]:
    """Return the response to a request.

    Parameters
    ----------
    room
        Bytes that it may add to the answer.
    """
    tool: str | None = None
    outcome = "success"
    try:
        if version.modern:
            check_envelope(request, headers)
        result, tool = _result(request, version, host)
        body = success(id, result)
        if wire_bytes(body) > room:
            raise Failure(INTERNAL_ERROR, "The answer is larger than one answer may be.")
        if result.get("isError"):
            outcome = "tool_error"
    except Failure as error:
        outcome, body = str(error.code), failure(id, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client learns its request id and no more
        told = Failure(INTERNAL_ERROR, "Something went wrong on our side.", host.failed(error))
        outcome, body = str(INTERNAL_ERROR), failure(id, told)
    known = request.method if request.method in _methods(version) else "unknown"
    host.answered(known, tool, version.name, outcome)
    return body


def _methods(version: Version) -> frozenset[str]:
    return _MODERN_METHODS if version.modern else _HANDSHAKE_METHODS


def _result(request: Message, version: Version, host: Host) -> tuple[dict[str, Any], str | None]:
    """Return the result, and the tool that gave it."""
    if request.method not in _methods(version):
        # Prompts, resources, logging and the rest are not announced; ping ended with 2025-11-25.
        raise Failure(METHOD_NOT_FOUND, f"There is no method {request.method[:MAX_SHOWN]}.")
    match request.method:
        case "initialize":
            return _initialize(request.params), None
        case "ping":
            return rendering.completed(version), None
        case "server/discover":
            return rendering.discovered(version), None
        case "tools/list":
            return _list(request.params, version, host), None
        case _:
            return _call(request.params, version, host)


def _initialize(params: dict[str, Any]) -> dict[str, Any]:
    _check_members(params, {"protocolVersion": str, "capabilities": dict, "clientInfo": dict})
    return rendering.initialized(negotiate(params["protocolVersion"]))


def _list(params: dict[str, Any], version: Version, host: Host) -> dict[str, Any]:
    cursor = params.get("cursor")
    if cursor is not None and not (isinstance(cursor, str) and 0 < len(cursor) <= MAX_CURSOR_LENGTH):
        raise Failure(INVALID_PARAMS, "The cursor must be one that tools/list gave.")
    try:
        page = host.list_tools(cursor)
    except BadRequest as error:
        raise Failure(INVALID_PARAMS, error.detail, {"code": error.code}) from None
    except HotplugError as error:
        raise Failure(INTERNAL_ERROR, error.detail, {"code": error.code, **host.failed(error)}) from error
    return rendering.tool_list(version, page.offers, page.next_cursor)


def _call(params: dict[str, Any], version: Version, host: Host) -> tuple[dict[str, Any], str]:
    _check_members(params, {"name": str})
    name, arguments = params["name"], params.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise Failure(INVALID_PARAMS, "The arguments must be an object.")
    meta = params.get("_meta")
    try:
        result = host.call_tool(name, arguments or {}, meta if isinstance(meta, dict) else {})
    except UnknownTool:
        raise Failure(INVALID_PARAMS, f"Unknown tool: {name[:MAX_SHOWN]}") from None
    return rendering.tool_result(version, result), name


def _check_members(params: dict[str, Any], kinds: Mapping[str, type]) -> None:
    bad = [name for name, kind in kinds.items() if not isinstance(params.get(name), kind)]
    if bad:
        raise Failure(INVALID_PARAMS, f"Missing or of a wrong type in params: {', '.join(bad)}.")
