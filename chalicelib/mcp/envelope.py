"""What a modern request carries beside its method: its version and capabilities in `_meta`, and the headers that repeat
parts of the body for whoever routes without reading it.

A header that disagrees with the body is refused: a gateway that lets `Mcp-Name: harmless` pass must not have let
another tool pass (2026-07-28, Streamable HTTP, "Server Validation").
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from chalicelib.mcp.jsonrpc import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    UNSUPPORTED_PROTOCOL_VERSION,
    Failure,
    Message,
)
from chalicelib.mcp.versions import BY_NAME, SUPPORTED

VERSION_HEADER = "mcp-protocol-version"
METHOD_HEADER = "mcp-method"
NAME_HEADER = "mcp-name"
PREFIX = "io.modelcontextprotocol/"
VERSION_KEY = f"{PREFIX}protocolVersion"
CAPABILITIES_KEY = f"{PREFIX}clientCapabilities"
CLIENT_KEY = f"{PREFIX}clientInfo"
SERVER_KEY = f"{PREFIX}serverInfo"
# Which member of params the name header repeats.
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENCODED = ("=?base64?", "?=")
MAX_SHOWN = 64


def claimed_version(value: Any) -> Any:
    """Return the version that a parsed body's envelope claims, None where it has no envelope. Its key is reserved by
    the specification, so no older client writes it by chance."""
    params = value.get("params") if isinstance(value, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta.get(VERSION_KEY) if isinstance(meta, dict) else None


def check_envelope(request: Message, headers: Mapping[str, str]) -> None:
    """Check a modern request's envelope, and that its headers repeat it.

    Parameters
    ----------
    headers
        By lower-case name.

    Raises
    ------
    Failure
        `INVALID_PARAMS` for what is missing or of a wrong type, `HEADER_MISMATCH`, `UNSUPPORTED_PROTOCOL_VERSION`; in
        this order, so that a client that contradicts itself learns that first.
    """
    meta = _checked_meta(request)
    for header, value in ((VERSION_HEADER, meta[VERSION_KEY]), (METHOD_HEADER, request.method)):
        if headers.get(header) != value:
            raise _mismatch(header)
    member = _NAMED_BY.get(request.method)
    if member is not None:
        told = headers.get(NAME_HEADER)
        if told is None or decoded(told) != request.params.get(member):
            raise _mismatch(NAME_HEADER)
    version = BY_NAME.get(meta[VERSION_KEY])
    if version is None or not version.modern:
        raise unsupported(meta[VERSION_KEY])


def _checked_meta(request: Message) -> dict[str, Any]:
    meta = request.params.get("_meta")
    if not isinstance(meta, dict):
        raise Failure(
            INVALID_PARAMS, f"params._meta must be an object with {VERSION_KEY} and {CAPABILITIES_KEY}."
        )
    kinds: dict[str, type] = {VERSION_KEY: str, CAPABILITIES_KEY: dict}
    if CLIENT_KEY in meta:
        kinds[CLIENT_KEY] = dict
    bad = [name for name, kind in kinds.items() if not isinstance(meta.get(name), kind)]
    if bad:
        raise Failure(INVALID_PARAMS, f"Missing or of a wrong type in params._meta: {', '.join(bad)}.")
    return meta


def _mismatch(header: str) -> Failure:
    return Failure(HEADER_MISMATCH, f"The header {header} is missing or does not match the body.")


def unsupported(requested: str) -> Failure:
    """Return the failure that tells a client which versions it may ask for instead."""
    data = {"supported": list(SUPPORTED), "requested": requested[:MAX_SHOWN]}
    return Failure(UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version.", data)


def decoded(value: str) -> str | None:
    """Return what a header value stands for: itself, or the text in `=?base64?…?=`; None where that is malformed, so
    that it matches nothing."""
    begin, end = _ENCODED
    if not (value.startswith(begin) and value.endswith(end) and len(value) >= len(begin) + len(end)):
        return value
    payload = value[len(begin) : -len(end)]
    try:
        raw = base64.b64decode(payload, validate=True)
        text = raw.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    # One text, one spelling: loose trailing bits would let two readers see different values.
    return text if base64.b64encode(raw).decode() == payload else None
