"""JSON Schemas of runs, as the endpoints take and return them."""

from __future__ import annotations

from typing import Any

from chalicelib.api.flow_schemas import TEXT, TIME, VERSION
from chalicelib.api.parameters import resource
from chalicelib.flows.runs.names import AUTO, DURABLE, EXPRESS, STATES

MAX_WAIT_S = 25
# A tenant's own text, kept in columns and compared byte for byte.
_PERSON: dict[str, Any] = {"type": "string", "maxLength": 255, "pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
WAIT: dict[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "maximum": MAX_WAIT_S,
    "description": "Seconds to wait for the end.",
}
_MODE: dict[str, Any] = {
    "type": "string",
    "enum": [AUTO, EXPRESS, DURABLE],
    "default": AUTO,
    "description": "`auto` is express, unless the flow asks a question or `waitSeconds` is 0.",
}
_ASKED: dict[str, Any] = {
    "parameters": {"type": "object", "default": {}},
    "uid": {**_PERSON, "description": "The end user, whose variables and history are used."},
    "chatId": {**_PERSON, "description": "The conversation of that user."},
    "history": {"type": "boolean", "default": True},
    "mode": _MODE,
    "waitSeconds": {**WAIT, "default": MAX_WAIT_S},
    "callbackUrl": {"type": "string", "minLength": 1, "maxLength": 2048, "pattern": "^https?://"},
}
NEW_RUN: dict[str, Any] = {
    "title": "NewRun",
    "type": "object",
    "additionalProperties": False,
    "properties": {**_ASKED, "version": VERSION},
}
NEW_DEBUG_RUN: dict[str, Any] = {
    "title": "NewDebugRun",
    "type": "object",
    "additionalProperties": False,
    "properties": _ASKED,
}
NODE_DEBUG: dict[str, Any] = {
    "title": "NodeDebug",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "inputs": {"type": "object", "default": {}},
        "uid": _ASKED["uid"],
        "chatId": _ASKED["chatId"],
    },
}
RESUME: dict[str, Any] = {
    "title": "Resume",
    "type": "object",
    "additionalProperties": False,
    "required": ["eventId", "action"],
    "properties": {
        "eventId": {"type": "string", "minLength": 1, "maxLength": 128},
        "action": {"type": "string", "enum": ["resume", "ignore", "abort"]},
        "content": {"description": "The answer: a text, an option's id or name, or any JSON value."},
        "waitSeconds": {**WAIT, "default": 0},
    },
}

_ANY: dict[str, Any] = {"type": "object", "additionalProperties": True}
_OPTIONAL_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
_ERROR: dict[str, Any] = {
    "type": ["object", "null"],
    "required": ["code", "message"],
    "properties": {"code": {"type": "integer"}, "message": TEXT, "nodeId": {"type": ["string", "null"]}},
}
_LISTED: dict[str, Any] = {
    "runId": TEXT,
    "flowId": TEXT,
    "version": {"type": ["string", "null"], "description": "null for a draft"},
    "mode": {"type": "string", "enum": [EXPRESS, DURABLE]},
    "state": {"type": "string", "enum": list(STATES)},
    "progress": {"type": "number", "minimum": 0, "maximum": 1},
    "error": _ERROR,
    "usage": _ANY,
    "uid": TEXT,
    "chatId": TEXT,
    "createdAt": TIME,
    "startedAt": _OPTIONAL_TIME,
    "finishedAt": _OPTIONAL_TIME,
}
LISTED_RUN = resource("ListedRun", _LISTED)
RUN = resource(
    "Run",
    {**_LISTED, "content": TEXT, "outputs": _ANY, "event": {"type": ["object", "null"]}},
)
RUN_NODE = resource(
    "RunNode",
    {
        "position": {"type": "integer", "minimum": 0},
        "nodeKey": TEXT,
        "nodeId": TEXT,
        "nodeType": TEXT,
        "aliasName": TEXT,
        "attempt": {"type": "integer", "minimum": 1},
        "state": {"type": "string", "enum": ["succeeded", "failed"]},
        "inputs": _ANY,
        "outputs": _ANY,
        "error": _ERROR,
        "usage": {"type": ["object", "null"]},
        "startedAt": _OPTIONAL_TIME,
        "durationMs": {"type": "number", "minimum": 0},
    },
)
FRAMES = resource(
    "RunEvents",
    {
        "items": {"type": "array", "items": _ANY},
        "next": {"type": "integer", "minimum": 0, "description": "What to send as `after` next time."},
        "state": {"type": "string", "enum": list(STATES)},
        "isComplete": {"type": "boolean", "description": "The run has ended, and nothing follows."},
    },
)
