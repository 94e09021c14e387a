"""JSON-RPC 2.0 messages as MCP restricts them: ids are strings or integers, params are objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# MCP's own (2026-07-28, "Error Codes").
HEADER_MISMATCH = -32020
UNSUPPORTED_PROTOCOL_VERSION = -32022

MAX_ID_LENGTH = 256
MAX_METHOD_LENGTH = 128

Id = str | int


class Failure(Exception):
    """A request that ends in a JSON-RPC error.

    Parameters
    ----------
    code
        One of the codes above.
    message
        One sentence. Never repeats more of the request than a bounded piece.
    data
        Further JSON for programs.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Malformed(Failure):
    """What is no message at all; `id` is that of the request as far as it could be read."""

    def __init__(self, code: int, message: str, id: Id | None = None) -> None:
        super().__init__(code, message)
        self.id = id


@dataclass(frozen=True)
class Message:
    """A request, or a notification where `id` is None."""

    id: Id | None
    method: str
    params: dict[str, Any]


def read_message(value: Any) -> Message | None:
    """Return the request or notification in a parsed body, None for a response: this server never asks, so nothing
    waits for it.

    Raises
    ------
    Malformed
        `INVALID_REQUEST`, or `INVALID_PARAMS` for params that are no object.
    """
    if not isinstance(value, dict):
        raise Malformed(INVALID_REQUEST, "A message is a JSON object.")
    found = request_id(value)
    if value.get("jsonrpc") != "2.0":
        raise Malformed(INVALID_REQUEST, 'The member jsonrpc must be "2.0".', found)
    if "method" not in value and ("result" in value) != ("error" in value):
        return None
    method = value.get("method")
    if not isinstance(method, str) or not 0 < len(method) <= MAX_METHOD_LENGTH:
        raise Malformed(
            INVALID_REQUEST, f"The method must be a string of 1 to {MAX_METHOD_LENGTH} characters.", found
        )
    if "id" in value and found is None:
        raise Malformed(
            INVALID_REQUEST, f"The id must be an integer or a string of at most {MAX_ID_LENGTH} characters."
        )
    # An explicit null is what some clients write for "none".
    params = value.get("params")
    if params is not None and not isinstance(params, dict):
        raise Malformed(INVALID_PARAMS, "The params must be an object.", found)
    return Message(found, method, params or {})


def request_id(value: Any) -> Id | None:
    """Return the id of a parsed message, None where it has none that may be repeated. MCP admits neither null nor
    fractions; true would come back as 1 from a careless comparison."""
    found = value.get("id") if isinstance(value, dict) else None
    if isinstance(found, str):
        return found if len(found) <= MAX_ID_LENGTH else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def success(id: Id, result: dict[str, Any]) -> dict[str, Any]:
    """Return a response with a result."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id: Id | None, error: Failure) -> dict[str, Any]:
    """Return a response with an error; the id is null where the request's could not be read."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    return {"jsonrpc": "2.0", "id": id, "error": told}
