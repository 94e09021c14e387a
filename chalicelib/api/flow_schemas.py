"""JSON Schemas of flows, their versions and licences, as the endpoints take and return them."""

from __future__ import annotations

from typing import Any

from chalicelib.api.parameters import resource
from chalicelib.apps.models import ALIAS_PATTERN
from chalicelib.core.settings import ONE_MIB
from chalicelib.flows.dsl.versions import VERSION_PATTERN
from chalicelib.flows.names import EVERY_PLATFORM, PLATFORMS

# A flow's data is no larger itself. A function is handed at most 6 MB, in which every quotation mark counts twice.
FLOW_LIMIT = 5 * ONE_MIB
TEXT: dict[str, Any] = {"type": "string"}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
SWITCH: dict[str, Any] = {"type": "integer", "enum": [0, 1]}
NAME: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
}
DESCRIPTION: dict[str, Any] = {"type": "string", "maxLength": 1024, "pattern": "^[^\\u0000]*$"}
DATA: dict[str, Any] = {"type": "object", "description": "The graph: `nodes` and `edges`."}
SOURCE: dict[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "maximum": EVERY_PLATFORM,
    "default": EVERY_PLATFORM,
    "description": "Platforms that the flow may ever be published on, a sum of 1 workbench, 2 open platform, 4 device.",
}
PLATFORM: dict[str, Any] = {
    "type": "integer",
    "enum": list(PLATFORMS),
    "description": "1 workbench, 2 open platform, 4 device",
}
VERSION: dict[str, Any] = {
    "type": "string",
    "maxLength": 28,
    "pattern": VERSION_PATTERN,
    "description": "Versions compare as numbers: v1.10 is above v1.9, v1 is v1.0.",
}

FINDING = resource("FlowFinding", dict.fromkeys(("node", "field", "rule", "message", "pointer"), TEXT))
FINDINGS: dict[str, Any] = {"type": "array", "items": FINDING}
_LISTED: dict[str, Any] = {
    "flowId": TEXT,
    "appId": TEXT,
    "name": TEXT,
    "description": TEXT,
    "source": {"type": "integer"},
    "revision": COUNT,
    "checksum": {"type": "string", "description": "SHA-256 of the data in canonical form."},
    "createdAt": TIME,
    "updatedAt": TIME,
}
LISTED_FLOW = resource("ListedFlow", _LISTED)
_FLOW: dict[str, Any] = {
    **_LISTED,
    "warnings": {**FINDINGS, "description": "What was wrong or doubtful when it was saved, at most 100."},
}
FLOW = resource("Flow", _FLOW)
FLOW_WITH_DATA = resource("FlowWithData", {**_FLOW, "data": {"type": "object"}})
_VERSION: dict[str, Any] = {
    "flowId": TEXT,
    "version": TEXT,
    "name": TEXT,
    "description": TEXT,
    "isPublished": {"type": "boolean"},
    "releaseStatus": {
        **COUNT,
        "description": "Bits: published on the workbench 1, the open platform 4, devices 32; as API 8; taken off"
        " 2, 16, 64.",
    },
    "releaseApi": {**COUNT, "description": "The platforms that have it as API, as bits."},
    "operations": {**COUNT, "description": "Durable operations in the worst case."},
    "checksum": TEXT,
    "createdAt": TIME,
    "updatedAt": TIME,
}
FLOW_VERSION = resource("FlowVersion", _VERSION)
PUBLICATION = resource("FlowPublication", {**_VERSION, "warnings": FINDINGS})
PUBLISHED_FLOW = resource(
    "PublishedFlow",
    {
        "flowId": TEXT,
        "version": TEXT,
        "name": TEXT,
        "description": TEXT,
        "inputSchema": {"type": "object"},
        "checksum": TEXT,
    },
)
_COMPARISON: dict[str, Any] = {
    "flowId": TEXT,
    "version": TEXT,
    "name": TEXT,
    "description": TEXT,
    "checksum": TEXT,
    "warnings": FINDINGS,
    "createdAt": TIME,
    "updatedAt": TIME,
}
COMPARISON = resource("FlowComparison", _COMPARISON)
COMPARISON_WITH_DATA = resource("FlowComparisonWithData", {**_COMPARISON, "data": {"type": "object"}})
LICENSE = resource(
    "FlowLicense",
    {
        "flowId": TEXT,
        "aliasId": {"type": "string", "pattern": ALIAS_PATTERN},
        "status": SWITCH,
        "createdAt": TIME,
        "updatedAt": TIME,
    },
)
TAKEN_OFF = resource("FlowTakenOff", {"flowId": TEXT, "platform": PLATFORM, "takenOff": COUNT})
PERSON: dict[str, Any] = {
    "type": "string",
    "maxLength": 255,
    "pattern": "^[^\\u0000-\\u001f\\u007f]*$",
    "default": "",
    "description": "As the runs name it; those that name none share the empty one.",
}
NODE_HISTORY = resource(
    "NodeHistory",
    {
        "nodeId": TEXT,
        "chatHistory": {
            "type": "array",
            "maxItems": 20,
            "items": resource(
                "NodeMessage", {"role": {"type": "string", "enum": ["user", "assistant"]}, "content": TEXT}
            ),
            "description": "The oldest message first; as much of the newest ten turns as the node's budget holds.",
        },
    },
)
VALIDATION = resource(
    "FlowValidation",
    {
        "isValid": {"type": "boolean"},
        "violations": FINDINGS,
        "violationCount": {**COUNT, "description": "Also those beyond the first 1,000, which are listed."},
        "warnings": FINDINGS,
        "inputSchema": {"type": "object"},
        "operations": COUNT,
    },
)


def _body(title: str, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }


NEW_FLOW = _body(
    "NewFlow", ["name"], {"name": NAME, "description": DESCRIPTION, "data": DATA, "source": SOURCE}
)
FLOW_DRAFT = _body("FlowDraft", ["name", "data"], {"name": NAME, "description": DESCRIPTION, "data": DATA})
FLOW_DATA = _body("FlowData", [], {"data": {**DATA, "description": "The draft's where none is given."}})
PUBLISH = _body(
    "PublishFlow",
    ["version"],
    {
        "version": VERSION,
        "platform": {**PLATFORM, "default": 1},
        "api": {"type": "boolean", "default": False, "description": "As API."},
    },
)
TAKE_OFF = _body(
    "TakeFlowOff",
    ["platform"],
    {
        "platform": PLATFORM,
        "version": {**VERSION, "description": "All that the platform has, where none is named."},
    },
)
LICENSE_STATUS = _body(
    "FlowLicenseStatus", ["status"], {"status": {**SWITCH, "description": "0 refuses every run."}}
)
