"""What `nodeParam` of each node type must be, as JSON Schemas (Draft 2020-12).

Members that are not named are let through: editors keep their own there. Names in snake_case have become camelCase
before a value is held against these.
"""

from __future__ import annotations

from typing import Any

from chalicelib.flows.dsl.limits import MAX_ID_LENGTH, MAX_LOOP_COUNT, MAX_TEMPLATE_BYTES
from chalicelib.flows.dsl.versions import VERSION_PATTERN

Schema = dict[str, Any]

OPERATORS = (
    "contains", "not_contains", "empty", "not_empty", "is", "is_not", "start_with", "end_with",
    "eq", "ne", "gt", "ge", "lt", "le", "null", "not_null",
)  # fmt: skip
UNARY_OPERATORS = frozenset({"empty", "not_empty", "null", "not_null"})
DEFAULT_LEVEL = 999
"""The `level` of the case that is taken when no other is."""
DEFAULT_KIND, OTHER_KIND = 1, 2
"""`intentType` and an option's `type`: the one that is taken when no other is, and the others."""
MAX_CODE_LENGTH = 256 * 1024

_MAX_BRANCHES = 200
_MAX_CONDITIONS = 100


def _text(longest: int = 255, shortest: int = 1) -> Schema:
    return {"type": "string", "minLength": shortest, "maxLength": longest}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _object(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema, most: int, least: int = 1) -> Schema:
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


def _when(name: str, value: object, *required: str) -> Schema:
    """What is required once `name` has `value`."""
    return {
        "if": {"required": [name], "properties": {name: {"const": value}}},
        "then": {"required": list(required)},
    }


def _branch_id(prefix: str) -> Schema:
    # Never one that contains the mark of failure edges: its edge would be read as one of these.
    characters = f"^(intent_chain\\|)?{prefix}::[0-9A-Za-z-]{{1,128}}$"
    return {"type": "string", "pattern": characters}


_TEMPLATE = _text(MAX_TEMPLATE_BYTES, 0)
_NODE_ID = _text(MAX_ID_LENGTH)
_CONDITION = _object(
    ("leftVarIndex", "compareOperator"),
    leftVarIndex=_text(),
    rightVarIndex={"type": ["string", "null"], "maxLength": 255},
    compareOperator={"enum": list(OPERATORS)},
)
_CONDITIONS: dict[str, Schema] = {
    "logicalOperator": {"enum": ["and", "or"]},
    "conditions": _list(_CONDITION, _MAX_CONDITIONS, 0),
}
_LLM: dict[str, Schema] = {
    "model": _text(),
    "domain": _text(),
    "fallback": _text(),
    "url": _text(2_048, 0),
    "credential": _text(255, 0),
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "maxTokens": _whole(1, 1_000_000),
    "topK": _whole(1, 1_000),
    "template": _TEMPLATE,
    "systemTemplate": _TEMPLATE,
    "respFormat": {"enum": [0, 1, 2]},
    "enableChatHistory": {"type": "boolean"},
    "enableChatHistoryV2": _object(isEnabled={"type": "boolean"}, rounds=_whole(0, 100)),
}
_INTENT = _object(
    ("id", "name"),
    id=_branch_id("intent-one-of"),
    name=_text(shortest=0),
    description=_text(4_096, 0),
    intentType={"enum": [DEFAULT_KIND, OTHER_KIND]},
)
_OPTION = _object(
    ("id",),
    id=_branch_id("option-one-of"),
    name=_text(shortest=0),
    type={"enum": [DEFAULT_KIND, OTHER_KIND]},
    content=_text(4_096, 0),
)
_FREE = _object()
_ENDING = _object(outputMode={"enum": [0, 1]}, template=_TEMPLATE) | _when("outputMode", 1, "template")

PARAMS: dict[str, Schema] = {
    "node-start": _FREE,
    "node-end": _ENDING,
    "message": _object(("template",), template=_TEMPLATE),
    "text-joiner": _object(("mode",), mode={"enum": [0, 1]}, prompt=_TEMPLATE, separator=_text(1_024))
    | {"allOf": [_when("mode", 0, "prompt"), _when("mode", 1, "separator")]},
    "if-else": _object(
        ("cases",),
        cases=_list(
            _object(("id",), id=_branch_id("branch_one_of"), level=_whole(0, DEFAULT_LEVEL), **_CONDITIONS),
            _MAX_BRANCHES,
        ),
    ),
    "iteration": _object(
        ("IterationStartNodeId",), IterationStartNodeId=_NODE_ID, maxConcurrency=_whole(1, 1_000)
    ),
    "iteration-node-start": _FREE,
    "iteration-node-end": _ENDING,
    "loop": _object(
        ("LoopStartNodeId", "maxCount"),
        LoopStartNodeId=_NODE_ID,
        maxCount=_whole(1, MAX_LOOP_COUNT),
        until=_object(**_CONDITIONS),
    ),
    "loop-node-start": _FREE,
    "loop-node-end": _ENDING,
    "node-variable": _object(("method",), method={"enum": ["set", "get"]}),
    "plugin": _object(
        ("pluginId", "operationId"),
        pluginId=_text(128),
        operationId=_text(),
        version=_text(32),
        businessInput=_list(_object(("name",), name=_text()), 200, 0),
    ),
    "hotplug-plugin": _object(
        ("pluginId", "action"), pluginId=_text(128), action=_text(128), configId=_text(128, 0)
    ),
    "flow": _object(
        ("flowId",),
        flowId=_text(64),
        version={"anyOf": [{"const": ""}, {"type": "string", "pattern": VERSION_PATTERN}]},
    ),
    "agent": _object(("agentName",), agentName=_text(128), context={"type": "object"}),
    "llm": _object(("template",), **_LLM),
    "decision-making": _object(("intentChains",), intentChains=_list(_INTENT, _MAX_BRANCHES), **_LLM),
    "extractor-parameter": _object(instruction=_TEMPLATE, **_LLM),
    "question-answer": _object(
        ("question", "answerType"),
        question=_TEMPLATE,
        answerType={"enum": ["direct", "option"]},
        timeout={"type": "number", "exclusiveMinimum": 0, "maximum": 30 * 24 * 60},
        needReply={"type": "boolean"},
        optionAnswer=_list(_OPTION, _MAX_BRANCHES, 0),
    )
    | _when("answerType", "option", "optionAnswer"),
    "code": _object(("code",), codeLanguage={"enum": ["python"]}, code=_text(MAX_CODE_LENGTH)),
}
"""The schema of `nodeParam` by type: the list of all types there are."""

OUTPUT_COUNTS: dict[str, tuple[int, int | None]] = {
    "text-joiner": (1, 1),
    "llm": (1, None),
    "extractor-parameter": (1, None),
    "node-variable": (0, None),
    "iteration": (1, None),
}
"""Types that need outputs: least and largest number of those declared."""
