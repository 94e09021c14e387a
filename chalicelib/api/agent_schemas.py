"""JSON Schemas of agents and what belongs to them, as the endpoints take and return them."""

from __future__ import annotations

from typing import Any

from chalicelib.agents.models import MODES, MOVE_STATES
from chalicelib.agents.moves.service import KEEP_DAYS, MOST_KEEP_DAYS
from chalicelib.agents.names import MAX_MESSAGE, THREAD_ID_PATTERN
from chalicelib.agents.tables.catalog import MAX_DAYS, MAX_ROWS
from chalicelib.agents.tables.states import STATES
from chalicelib.api.parameters import resource

TEXT: dict[str, Any] = {"type": "string"}
OPTIONAL_TEXT: dict[str, Any] = {"type": ["string", "null"]}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
OPTIONAL_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
MODE: dict[str, Any] = {"enum": list(MODES)}
OPTIONAL_MODE: dict[str, Any] = {"enum": [*MODES, None]}
TABLE_STATE: dict[str, Any] = {
    "enum": list(STATES),
    "description": "As the last deployment left it. `foreign` belongs to another agent; `unknown`: no agent of this "
    "release declares it.",
}

_AGENT: dict[str, Any] = {
    "agentName": TEXT,
    "version": OPTIONAL_TEXT,
    "description": TEXT,
    "author": TEXT,
    "state": {"enum": ["enabled", "disabled", "error"]},
    "loadError": {"anyOf": [resource("AgentLoadError", {"code": TEXT, "detail": TEXT}), {"type": "null"}]},
    "warnings": {**TEXTS, "description": "What its author should mend."},
    "tools": {**TEXTS, "description": "Tools that it may call: ids, or names in the calling app."},
    "plugins": {**TEXTS, "description": "Plugins that it may run: ids, or names in the calling app."},
    "historyMode": {**OPTIONAL_MODE, "description": "Which table its messages are in; null for none."},
    "movingTo": {**OPTIONAL_MODE, "description": "Where its history is being moved to."},
    "reloads": COUNT,
    "updatedAt": OPTIONAL_TIME,
}
AGENT = resource("Agent", _AGENT)
AGENT_DETAIL = resource(
    "AgentDetail",
    {
        **_AGENT,
        "tables": {
            "type": "array",
            "items": resource(
                "AgentTableUse",
                {
                    "table": TEXT,
                    "mode": MODE,
                    "state": TABLE_STATE,
                    "rows": {
                        "type": ["integer", "null"],
                        "minimum": 0,
                        "description": "The app's rows, counted up to 10,000; null where the table is not ready, or "
                        "has no index to count by.",
                    },
                },
            ),
        },
    },
)
INVOKE: dict[str, Any] = {
    "title": "AgentInvocation",
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "message": {"type": "string", "minLength": 1, "maxLength": MAX_MESSAGE, "pattern": "^[^\\u0000]*$"},
        "threadId": {
            "type": "string",
            "maxLength": 255,
            "pattern": THREAD_ID_PATTERN,
            "description": "The conversation to go on with; a new one begins where it is left out.",
        },
        "context": {"type": "object", "maxProperties": 1_000, "description": "For the agent; not stored."},
    },
}
USAGE = resource(
    "LlmUsage", {"inputTokens": COUNT, "outputTokens": COUNT, "totalTokens": COUNT, "calls": COUNT}
)
METADATA: dict[str, Any] = {"type": ["object", "null"], "description": "What the agent says of its answer."}
ANSWER = resource(
    "AgentAnswer",
    {
        "threadId": TEXT,
        "message": TEXT,
        "metadata": METADATA,
        "isNewConversation": {"type": "boolean"},
        "usage": USAGE,
    },
)
THREAD = resource("AgentThread", {"threadId": TEXT, "createdAt": TIME, "lastMessageAt": TIME})
MESSAGE = resource(
    "AgentMessage",
    {"messageId": TEXT, "role": TEXT, "content": TEXT, "metadata": METADATA, "createdAt": TIME},
)
_TABLE: dict[str, Any] = {
    "table": TEXT,
    "owner": {**TEXT, "description": "An agent's name; `shared` for a table that all share."},
    "mode": MODE,
    "retainDays": {"type": ["integer", "null"]},
    "retainRows": {"type": ["integer", "null"]},
    "problems": {**TEXTS, "description": "What the last deployment could not change by itself."},
    "updatedAt": TIME,
}
TABLE = resource("AgentTable", _TABLE)
CHECKED_TABLE = resource(
    "CheckedAgentTable",
    {
        **_TABLE,
        "state": TABLE_STATE,
        "checks": {
            "type": "array",
            "items": resource("TableCheck", {"name": TEXT, "type": TEXT, "success": {"type": "boolean"}}),
            "description": "The table, compared with its model now.",
        },
    },
)
RETENTION: dict[str, Any] = {
    "title": "AgentTableRetention",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "retainDays": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_DAYS},
        "retainRows": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_ROWS},
    },
    "description": "What the daily job keeps; null keeps all, what is left out stays as it is.",
}
MOVE = resource(
    "AgentMove",
    {
        "moveId": TEXT,
        "agentName": TEXT,
        "target": MODE,
        "state": {"enum": list(MOVE_STATES)},
        "total": {**COUNT, "description": "Rows when it began."},
        "copied": COUNT,
        "verified": COUNT,
        "sourceDigest": OPTIONAL_TEXT,
        "targetDigest": OPTIONAL_TEXT,
        "keepUntil": {
            **OPTIONAL_TIME,
            "description": "When the rows that were moved go from where they were.",
        },
        "error": OPTIONAL_TEXT,
        "createdAt": TIME,
        "updatedAt": TIME,
        "finishedAt": OPTIONAL_TIME,
    },
)
NEW_MOVE: dict[str, Any] = {
    "title": "NewAgentMove",
    "type": "object",
    "required": ["target"],
    "additionalProperties": False,
    "properties": {
        "target": MODE,
        "keepDays": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_KEEP_DAYS,
            "default": KEEP_DAYS,
            "description": "How long the rows stay where they were.",
        },
    },
}
