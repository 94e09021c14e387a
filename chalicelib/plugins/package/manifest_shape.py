"""The shape of manifest.json as a JSON Schema; what a schema cannot say is checked in `manifest`."""

from __future__ import annotations

from typing import Any

NAME = r"^[a-z][a-z0-9_-]{1,63}$"
ACTION_NAME = r"^[a-z][a-zA-Z0-9_-]{0,63}$"

PLUGIN_TYPES = {
    "notify": "notify",
    "deploy": "deploy",
    "test": "test",
    "build": "build",
    "custom": "custom",
    "ci": "build",
    "cd": "deploy",
}
"""What a manifest may say, and what it means: `ci` and `cd` are older names."""

# Shown as links by user interfaces: a javascript: address there would run in the reader's session.
_LINK: dict[str, Any] = {"type": "string", "maxLength": 500, "format": "uri", "pattern": "^https?://"}
_REPOSITORY = {**_LINK, "pattern": r"^(https?|ssh|git|git\+https|git\+ssh)://"}
_TEXT: dict[str, Any] = {
    "type": "string",
    "maxLength": 2000,
    "pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$",
}
_SHORT: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "pattern": r"^[^\x00-\x1f\x7f]*$",
}
_PATH: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 255}
_SCHEMA: dict[str, Any] = {"type": ["object", "boolean"]}

# An exact host, lower case, an optional port; no wildcard and no address: an administrator grants names that
# can be read, and only those.
HOST = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?(:[1-9][0-9]{0,4})?$"

_DEPENDENCY = {
    "type": ["string", "object"],
    "maxLength": 350,
    "properties": {
        "name": {"type": "string", "pattern": NAME},
        "range": {"type": "string", "maxLength": 256},
        "optional": {"type": "boolean"},
    },
    "required": ["name"],
    "additionalProperties": False,
}

_ACTION = {
    "type": "object",
    "properties": {"description": _TEXT, "paramsSchema": _SCHEMA, "returnsSchema": _SCHEMA},
}

_RESOURCES = {
    "type": "object",
    "properties": {
        "cpu": {"type": ["string", "number"], "maxLength": 20},
        "memory": {"type": "string", "maxLength": 20},
        "disk": {"type": "string", "maxLength": 20},
        "timeoutMs": {"type": "integer", "minimum": 1, "maximum": 25_000},
    },
    "additionalProperties": False,
}

_PERMISSIONS = {
    "type": "object",
    "properties": {
        "network": {
            "type": "array",
            "maxItems": 20,
            "uniqueItems": True,
            "items": {"type": "string", "maxLength": 260, "pattern": HOST},
        }
    },
    # What no administrator can grant must not be asked for: the plugin would wait for ever.
    "additionalProperties": False,
}

MANIFEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": NAME},
        "version": {"type": "string"},
        "pluginType": {"enum": list(PLUGIN_TYPES)},
        "entryPoint": _PATH,
        "description": _TEXT,
        "author": _SHORT,
        "homepage": _LINK,
        "repository": _REPOSITORY,
        "documentation": _LINK,
        "icon": {"type": "string", "minLength": 1, "maxLength": 500},
        "license": {"type": "string", "maxLength": 200},
        "tags": {"type": "array", "maxItems": 20, "uniqueItems": True, "items": {**_SHORT, "maxLength": 50}},
        "dependencies": {"type": "array", "maxItems": 50, "items": _DEPENDENCY},
        "configSchema": _SCHEMA,
        "paramsSchema": _SCHEMA,
        "defaultConfig": {"type": "object"},
        "actions": {
            "type": "object",
            "maxProperties": 100,
            "propertyNames": {"pattern": ACTION_NAME},
            "additionalProperties": _ACTION,
        },
        "minVersion": {"type": "string"},
        "maxVersion": {"type": "string"},
        "resources": _RESOURCES,
        "permissions": _PERMISSIONS,
    },
    "required": ["name", "version", "pluginType", "entryPoint"],
}
"""Members that it does not name are kept and mean nothing."""
