"""JSON Schemas of the plugin resources, as the endpoints return them."""

from __future__ import annotations

from typing import Any

from chalicelib.api.parameters import resource

TEXT: dict[str, Any] = {"type": "string"}
OPTIONAL_TEXT: dict[str, Any] = {"type": ["string", "null"]}
NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
OPTIONAL_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
ANY_OBJECT: dict[str, Any] = {"type": "object"}
OPTIONAL_OBJECT: dict[str, Any] = {"type": ["object", "boolean", "null"]}
HOSTS: dict[str, Any] = {
    "type": "object",
    "required": ["network"],
    "additionalProperties": False,
    "properties": {
        "network": {
            "type": "array",
            "maxItems": 64,
            "items": {"type": "string", "minLength": 1, "maxLength": 260, "pattern": "^[a-z0-9.:-]+$"},
        }
    },
}

_SUMMARY: dict[str, Any] = {
    "pluginId": TEXT,
    "appId": TEXT,
    "name": TEXT,
    "version": TEXT,
    "description": TEXT,
    "author": TEXT,
    "pluginType": {"enum": ["notify", "deploy", "test", "build", "custom"]},
    "entryPoint": TEXT,
    "runtime": {"enum": ["wasm", "python", "none"]},
    "executable": {"type": "boolean"},
    "visibility": {"enum": ["private", "shared"]},
    "isEnabled": {"enum": [0, 1, 2]},
    "status": {"enum": ["disabled", "enabled", "error"]},
    "isBuiltin": {"const": 0},
    "checksum": TEXT,
    "source": {"enum": ["local", "market", "s3"]},
    "registerStatus": {"enum": [0, 1, 2, 3]},
    "registerError": OPTIONAL_TEXT,
    "generation": TEXT,
    "updateAvailable": OPTIONAL_TEXT,
    "installTime": TIME,
    "updateTime": TIME,
}

PLUGIN_SUMMARY = resource("PluginSummary", _SUMMARY)
PLUGIN = resource(
    "Plugin",
    _SUMMARY
    | {
        "icon": TEXT,
        "repository": TEXT,
        "documentation": TEXT,
        "configSchema": OPTIONAL_OBJECT,
        "paramsSchema": OPTIONAL_OBJECT,
        "defaultConfig": OPTIONAL_OBJECT,
        "actions": ANY_OBJECT,
        "dependencies": {"type": "array"},
        "permissions": HOSTS,
        "grants": HOSTS,
        "s3Path": TEXT,
        "manifest": ANY_OBJECT,
    },
)
VERSION = resource(
    "PluginVersion",
    {
        "pluginId": TEXT,
        "version": TEXT,
        "active": {"type": "boolean"},
        "checksum": TEXT,
        "size": {"type": "integer"},
        "runtime": TEXT,
        "signedBy": OPTIONAL_TEXT,
        "createdBy": OPTIONAL_TEXT,
        "createdAt": TIME,
        "manifest": ANY_OBJECT,
    },
)
HISTORY = resource(
    "PluginHistory",
    {
        "id": TEXT,
        "action": TEXT,
        "version": TEXT,
        "fromVersion": OPTIONAL_TEXT,
        "outcome": TEXT,
        "detail": TEXT,
        "credentialId": OPTIONAL_TEXT,
        "requestId": TEXT,
        "at": TIME,
    },
)
INSTALL_STATES = (
    "awaiting_upload", "verifying", "registered", "rejected", "failed", "cancelled", "expired",
)  # fmt: skip
_INSTALL: dict[str, Any] = {
    "installId": TEXT,
    "source": TEXT,
    "filename": TEXT,
    "state": {"enum": list(INSTALL_STATES)},
    "step": TEXT,
    "progress": {"type": "integer", "minimum": 0, "maximum": 100},
    "attempts": {"type": "integer"},
    "errors": {"type": "array", "items": ANY_OBJECT},
    "errorCode": OPTIONAL_TEXT,
    "timings": ANY_OBJECT,
    "pluginId": OPTIONAL_TEXT,
    "version": OPTIONAL_TEXT,
    "size": {"type": ["integer", "null"]},
    "sha256": OPTIONAL_TEXT,
    "uploadExpiresAt": OPTIONAL_TIME,
    "createdAt": TIME,
    "updatedAt": TIME,
}
INSTALL = resource("Install", _INSTALL)
UPLOAD = resource(
    "Upload",
    {"url": TEXT, "fields": {"type": "object", "additionalProperties": TEXT}, "expiresAt": TIME},
)
# A task whose package is uploaded by the client also says where to.
OPENED_INSTALL: dict[str, Any] = {
    "title": "OpenedInstall",
    "type": "object",
    "required": list(_INSTALL),
    "additionalProperties": False,
    "properties": _INSTALL | {"upload": UPLOAD},
}
VALIDATION = resource(
    "ManifestValidation",
    {"valid": {"const": True}, "manifest": ANY_OBJECT, "warnings": {"type": "array", "items": TEXT}},
)
