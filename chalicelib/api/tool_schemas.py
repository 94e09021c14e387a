"""JSON Schemas of tools, MCP servers and what belongs to them, as the endpoints take and return them."""

from __future__ import annotations

from typing import Any

from chalicelib.api.parameters import resource
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools.execution_log import OUTCOMES
from chalicelib.tools.models import DEF_VER
from chalicelib.tools.names import MOST_CREDENTIALS, SCHEME_PATTERN
from chalicelib.tools.versions import VERSION_PATTERN

MOST_TOOLS = 20
# A document, or a batch of them. A function is handed at most 6 MB, in which every quotation mark counts twice.
DOCUMENT_LIMIT = 5 * ONE_MIB
TEXT: dict[str, Any] = {"type": "string"}
OPTIONAL_TEXT: dict[str, Any] = {"type": ["string", "null"]}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
VISIBILITY: dict[str, Any] = {"enum": ["private", "shared"]}
NAME: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
}
DESCRIPTION: dict[str, Any] = {"type": "string", "maxLength": 512, "pattern": "^[^\\u0000]*$"}
DOCUMENT: dict[str, Any] = {
    "type": ["object", "string"],
    "description": "An OpenAPI 3.0 or 3.1 document: a JSON object, or text in JSON or YAML.",
}
SHARED: dict[str, Any] = {"type": "boolean", "description": "With every app; admins only."}
VERSION: dict[str, Any] = {
    "type": "string",
    "maxLength": 32,
    "pattern": VERSION_PATTERN,
    "description": "Versions compare as numbers: V1.10 is above V1.9.",
}

OPERATION: dict[str, Any] = {
    "type": "object",
    "required": ["operationId", "method", "path", "summary", "deprecated", "tags"],
    "additionalProperties": False,
    "properties": {
        "operationId": TEXT,
        "method": TEXT,
        "path": TEXT,
        "summary": TEXT,
        "deprecated": {"type": "boolean"},
        "tags": {"type": "array", "items": TEXT},
    },
}
_LISTED: dict[str, Any] = {
    "toolId": TEXT,
    "appId": TEXT,
    "name": TEXT,
    "description": TEXT,
    "version": TEXT,
    "visibility": VISIBILITY,
    "createdAt": TIME,
    "updatedAt": TIME,
}
LISTED_TOOL = resource("ListedTool", _LISTED)
_TOOL: dict[str, Any] = {
    **_LISTED,
    "operations": {"type": "array", "items": OPERATION},
    "securitySchemes": {
        "type": "array",
        "items": resource("ToolSecurityScheme", {"name": TEXT, "kind": TEXT}),
    },
    "checksum": {"type": "string", "description": "SHA-256 of the stored document."},
    "size": COUNT,
}
TOOL = resource("Tool", _TOOL)
# With `?document=true` the document itself stands in it too.
TOOL_WITH_DOCUMENT: dict[str, Any] = {
    **TOOL,
    "title": "ToolWithDocument",
    "properties": {**_TOOL, "openapi": {"type": "object"}},
}
TOOL_VERSION = resource(
    "ToolVersion",
    {
        "toolId": TEXT,
        "version": TEXT,
        "name": TEXT,
        "description": TEXT,
        "operationCount": COUNT,
        "checksum": TEXT,
        "size": COUNT,
        "createdAt": TIME,
        "updatedAt": TIME,
    },
)
_ONE: dict[str, Any] = {
    "type": "object",
    "required": ["name", "openapi"],
    "additionalProperties": False,
    "properties": {"name": NAME, "description": DESCRIPTION, "openapi": DOCUMENT, "shared": SHARED},
}
_BATCH: dict[str, Any] = {
    "type": "object",
    "required": ["tools"],
    "additionalProperties": False,
    "properties": {"tools": {"type": "array", "minItems": 1, "maxItems": MOST_TOOLS, "items": _ONE}},
}
NEW_TOOLS: dict[str, Any] = {
    "title": "NewTools",
    "description": f"One tool, or up to {MOST_TOOLS}, of which all are registered as {DEF_VER} or none is.",
    "type": "object",
    # Not oneOf: whoever sends a batch wants to hear what is wrong with it, not with the other form.
    "if": {"required": ["tools"]},
    "then": _BATCH,
    "else": _ONE,
}
TOOLS = resource("RegisteredTools", {"tools": {"type": "array", "items": TOOL}})
NEW_VERSION: dict[str, Any] = {
    "title": "NewToolVersion",
    "type": "object",
    "required": ["version", "openapi"],
    "additionalProperties": False,
    "properties": {"version": VERSION, "name": NAME, "description": DESCRIPTION, "openapi": DOCUMENT},
}
TOOL_CHANGES: dict[str, Any] = {
    "title": "ToolChanges",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {"name": NAME, "description": DESCRIPTION, "openapi": DOCUMENT, "shared": SHARED},
}
CREDENTIAL = resource("ToolCredential", {"scheme": TEXT, "kind": TEXT, "updatedAt": TIME})
CREDENTIALS: dict[str, Any] = {
    "title": "ToolCredentials",
    "type": "object",
    "minProperties": 1,
    "maxProperties": MOST_CREDENTIALS,
    "propertyNames": {"pattern": SCHEME_PATTERN},
    "additionalProperties": {"type": "object"},
    "description": "By scheme: `{value}` for apiKey, `{username, password}` for basic, `{token}` for bearer,"
    " `{clientId, clientSecret, scopes?}` for oauth2 client credentials.",
}
EXECUTION = resource(
    "ToolExecution",
    {
        "executionId": TEXT,
        "toolId": TEXT,
        "version": TEXT,
        "operation": TEXT,
        "outcome": {"enum": list(OUTCOMES)},
        "errorCode": OPTIONAL_TEXT,
        "status": {"type": ["integer", "null"]},
        "durationMs": {"type": "number", "minimum": 0},
        "requestId": TEXT,
        "startedAt": TIME,
    },
)
