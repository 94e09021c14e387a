"""What every node has around its parameters, as JSON Schemas (Draft 2020-12)."""

from __future__ import annotations

from typing import Any

from chalicelib.flows.dsl.limits import MAX_INPUTS, MAX_NAME_LENGTH
from chalicelib.flows.dsl.paths import NAME_CHARACTERS
from chalicelib.flows.dsl.values import TYPES

Schema = dict[str, Any]

MAX_ATTEMPT_S = 900
"""Longest `timeout` of an attempt, in seconds: what a function may run."""

_NAME = {"type": "string", "maxLength": MAX_NAME_LENGTH, "pattern": f"^{NAME_CHARACTERS}+$"}
_TYPE = {"enum": list(TYPES)}
_MEMBERS: Schema = {
    "type": _TYPE,
    "properties": {"type": "object", "additionalProperties": {"$ref": "#/$defs/declared"}},
    "items": {"$ref": "#/$defs/declared"},
    "required": {"type": ["array", "boolean"], "items": {"type": "string"}},
}
_DEFS: Schema = {"declared": {"type": "object", "required": ["type"], "properties": _MEMBERS}}

_REF: Schema = {
    "type": "object",
    "required": ["nodeId", "name"],
    "properties": {
        "nodeId": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1, "maxLength": 1_024},
    },
}
_VALUE: Schema = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["ref", "literal"]}},
    "if": {"required": ["type"], "properties": {"type": {"const": "ref"}}},
    "then": {"required": ["content"], "properties": {"content": _REF}},
}

INPUT: Schema = {
    "$defs": _DEFS,
    "type": "object",
    "required": ["name", "schema"],
    "properties": {
        "id": {"type": "string", "maxLength": MAX_NAME_LENGTH},
        "name": _NAME,
        "schema": {
            "type": "object",
            "required": ["type"],
            "properties": {**_MEMBERS, "value": _VALUE},
        },
    },
}
OUTPUT: Schema = {
    "$defs": _DEFS,
    "type": "object",
    "required": ["name", "schema"],
    "properties": {
        "id": {"type": "string", "maxLength": MAX_NAME_LENGTH},
        "name": _NAME,
        "schema": {"$ref": "#/$defs/declared"},
        "required": {"type": "boolean"},
    },
}
META: Schema = {
    "type": "object",
    "properties": {"nodeType": {"type": "string"}, "aliasName": {"type": "string", "maxLength": 255}},
}
RETRY: Schema = {
    "type": "object",
    "properties": {
        "shouldRetry": {"type": "boolean"},
        "maxRetries": {"type": "integer", "minimum": 0, "maximum": 5},
        "errorStrategy": {"enum": [0, 1, 2]},
        "customOutput": {"type": "object"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_ATTEMPT_S},
        "backoff": {"type": "number", "minimum": 0, "maximum": 60},
    },
}


def _many(item: Schema) -> Schema:
    plain = {name: value for name, value in item.items() if name != "$defs"}
    return {"$defs": _DEFS, "type": "array", "maxItems": MAX_INPUTS, "items": plain}


INPUTS = _many(INPUT)
OUTPUTS = _many(OUTPUT)

EDGE: Schema = {
    "type": "object",
    "required": ["sourceNodeId", "targetNodeId"],
    "properties": {
        "sourceNodeId": {"type": "string"},
        "targetNodeId": {"type": "string"},
        "sourceHandle": {"type": ["string", "null"], "maxLength": 255},
    },
}
