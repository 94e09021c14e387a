"""/api/v1/tools: calling them, and what was called."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, SINCE, moment, page_of, resource
from chalicelib.api.request import Answer, Request
from chalicelib.api.tool_schemas import (
    CREDENTIALS,
    DOCUMENT,
    DOCUMENT_LIMIT,
    EXECUTION,
    TEXT,
    VERSION,
)
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools import catalog, execution_log

blueprint = Blueprint(__name__)

CALLS_OUT = ("database", "open_secrets", "internet")
# A document that is not registered is called with credentials that came with it: none that is stored is opened.
DEBUGS = ("database", "internet")
MAX_BODY_BYTES = 5 * ONE_MIB
CALLS: dict[str, Any] = {
    "outcome": {"type": "string", "enum": list(execution_log.OUTCOMES)},
    "since": SINCE,
}
MAX_TIMEOUT_MS, DEFAULT_TIMEOUT_MS = 25_000, 20_000
_VALUES: dict[str, Any] = {"type": "object", "maxProperties": 1_000}
_ARGUMENTS: dict[str, Any] = {
    "operationId": {"type": "string", "minLength": 1, "maxLength": 128},
    "path": _VALUES,
    "query": _VALUES,
    "header": _VALUES,
    "cookie": _VALUES,
    "body": {"description": "Any JSON value. Octets are written as {base64, filename?, contentType?}."},
    "contentType": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "description": "Which of the operation's request media types; the first JSON one where it is left out.",
    },
    "options": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "timeoutMs": {
                "type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS, "default": DEFAULT_TIMEOUT_MS,
            },
            "strict": {
                "type": "boolean",
                "default": True,
                "description": "Refuse an answer that differs from the document (502); false reports `violations`.",
            },
            "repairNulls": {
                "type": "boolean",
                "default": False,
                "description": "Take a null where a simple type is declared for that type's empty value.",
            },
        },
    },
}  # fmt: skip
RUN: dict[str, Any] = {
    "title": "ToolRun",
    "type": "object",
    "required": ["operationId"],
    "additionalProperties": False,
    "properties": {"version": VERSION, **_ARGUMENTS},
}
DEBUG: dict[str, Any] = {
    "title": "ToolDebugRun",
    "type": "object",
    "required": ["openapi", "operationId"],
    "additionalProperties": False,
    "properties": {"openapi": DOCUMENT, "credentials": CREDENTIALS, **_ARGUMENTS},
}
_ANSWER: dict[str, Any] = {
    "status": {"type": "integer", "description": "2xx; any other is 502 with `upstream`."},
    "headers": {"type": "object", "additionalProperties": TEXT},
    "body": {
        "description": "JSON as its value, text as a string (or the number, boolean or null that its schema declares "
        "and it spells), octets as {base64, contentType}."
    },
    "durationMs": {"type": "number", "minimum": 0},
    "violations": {
        "type": "array",
        "items": {"type": "object"},
        "description": "What differs from the document, where `strict` is false.",
    },
    "repaired": {"type": "array", "items": TEXT, "description": "Pointers of nulls that were replaced."},
}
ANSWER = resource("ToolAnswer", {"executionId": TEXT, "version": TEXT, **_ANSWER})
DEBUG_ANSWER = resource(
    "ToolDebugAnswer",
    {
        **_ANSWER,
        "warnings": {
            "type": "array",
            "items": TEXT,
            "description": "What of the operation's document is not enforced, and why.",
        },
    },
)


def _arguments(body: dict[str, Any]) -> Any:
    from chalicelib.tools.binding.arguments import ABSENT, Arguments

    return Arguments(
        path=body.get("path", {}),
        query=body.get("query", {}),
        header=body.get("header", {}),
        cookie=body.get("cookie", {}),
        body=body.get("body", ABSENT),
        content_type=body.get("contentType"),
    )


def _options(body: dict[str, Any]) -> Any:
    from chalicelib.tools.calling import Options

    given = body.get("options", {})
    return Options(
        timeout_ms=given.get("timeoutMs", DEFAULT_TIMEOUT_MS),
        strict=given.get("strict", True),
        repair_nulls=given.get("repairNulls", False),
    )


@endpoint(
    blueprint, "POST", "/tools/{toolId}/run", role="caller", idempotent=True, body=RUN, max_body_bytes=MAX_BODY_BYTES,
    errors=(409, 502, 503, 504), rights=CALLS_OUT, memory_mb=1769,
    returns={200: ANSWER}, summary="Call an operation of a tool",
)  # fmt: skip
def run_tool(request: Request) -> Answer:
    from chalicelib.tools import running
    from chalicelib.tools.services import tool_services

    body = request.body
    arguments = _arguments(body)
    answer, call = running.run(
        tool_services(),
        request.caller,
        request.path["toolId"],
        version=body.get("version"),
        operation_id=body["operationId"],
        arguments=lambda _: arguments,
        options=_options(body),
    )

    def work(session: Any) -> dict[str, Any]:
        execution_log.store(session, call)
        return {"executionId": call.execution_id, "version": call.version, **answer.as_dict()}

    return request.write(work)


@endpoint(
    blueprint, "POST", "/tools/debug", role="publisher", body=DEBUG, max_body_bytes=DOCUMENT_LIMIT,
    errors=(409, 502, 503, 504), rights=DEBUGS, memory_mb=1769,
    returns={200: DEBUG_ANSWER}, summary="Call an operation of a document that is not registered; nothing is stored",
)  # fmt: skip
def debug_tool(request: Request) -> dict[str, Any]:
    from chalicelib.tools import running
    from chalicelib.tools.services import tool_services

    body = request.body
    answer, warnings = running.debug(
        tool_services(),
        request.caller,
        document=body["openapi"],
        operation_id=body["operationId"],
        arguments=_arguments(body),
        options=_options(body),
        given=body.get("credentials", {}),
    )
    return {**answer.as_dict(), "warnings": list(warnings)}


@endpoint(
    blueprint, "GET", "/tools/{toolId}/executions", role="viewer",
    query={**PAGE, **CALLS},
    returns={200: page_of(EXECUTION)}, summary="The app's calls of a tool, newest first",
)  # fmt: skip
def list_tool_executions(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["toolId"])
    return calls_of(request, found.tool_id)


def calls_of(request: Request, tool_id: str) -> dict[str, Any]:
    """Return a page of the app's calls of a tool or an MCP server, as the query asks."""
    outcome, since = request.query.get("outcome"), moment("since", request.query.get("since"))
    with request.reads() as session:
        return execution_log.list_executions(
            session, request.caller, tool_id, request.page(), outcome=outcome, since=since
        )
