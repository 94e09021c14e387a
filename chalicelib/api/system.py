"""Health, the API's own description, who is calling, the audit log and the warm instances."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint
from sqlalchemy import text

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, page_of, resource
from chalicelib.api.request import Answer, Request
from chalicelib.apps.models import ALIAS_PATTERN
from chalicelib.core.caller import ROLES
from chalicelib.core.settings import VERSION, settings

blueprint = Blueprint(__name__)

ID = {"type": "string", "pattern": "^[0-9]+$"}
TIME = {"type": "string", "format": "date-time"}
DIGEST = {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}

HEALTH = resource(
    "Health",
    {
        "status": {"const": "ok"},
        "version": {"type": "string"},
        "database": {"const": "ok"},
    },
)

ME = resource(
    "Me",
    {
        "appId": ID,
        "aliasId": {"type": "string", "pattern": ALIAS_PATTERN},
        "credentialId": ID,
        "role": {"enum": list(ROLES)},
        "auditsReads": {"type": "boolean"},
        "limits": {
            "type": "object",
            "required": ["requestsPerSecond", "burst", "maxPluginBytes"],
            "properties": {
                "requestsPerSecond": {"type": "number"},
                "burst": {"type": "integer"},
                "maxPluginBytes": {"type": "integer"},
            },
        },
    },
)

AUDIT_ROW = resource(
    "AuditRow",
    {
        "id": ID,
        "appId": ID,
        "appAlias": {"type": ["string", "null"], "description": "null where the app was deleted since"},
        "credentialId": ID,
        "action": {"type": "string"},
        "objectType": {"type": "string"},
        "objectId": {"type": "string"},
        "beforeDigest": DIGEST,
        "afterDigest": DIGEST,
        "requestId": {"type": "string"},
        "at": TIME,
    },
)

INSTANCE = resource(
    "Instance",
    {
        "instanceId": {"type": "string"},
        "function": {"type": "string"},
        "tenant": {"type": ["string", "null"]},
        "versions": {"type": "object", "additionalProperties": {"type": "integer"}},
        "loaded": {"type": "array"},
        "loadError": {"type": ["string", "null"]},
        "memoryBytes": {"type": "integer"},
        "startedAt": TIME,
        "seenAt": TIME,
        "state": {"enum": ["current", "stale", "idle"]},
    },
)

AUDIT_FILTER: dict[str, Any] = {
    "objectType": {"type": "string", "pattern": "^[a-z][a-z_]{0,31}$"},
    "objectId": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "action": {"type": "string", "pattern": "^[a-z][a-z_.]{0,63}$"},
    "appAlias": {"type": "string", "pattern": ALIAS_PATTERN},
}


@endpoint(
    blueprint,
    "GET",
    "/health",
    base="",
    role=None,
    summary="Whether the service and its database answer",
    returns={200: HEALTH},
)
def health(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        session.execute(text("SELECT 1"))
    return {"status": "ok", "version": VERSION, "database": "ok"}


@endpoint(
    blueprint,
    "GET",
    "/openapi.json",
    base="",
    role=None,
    summary="This description",
    returns={200: {"type": "object"}},
    rights=(),
)
def openapi(request: Request) -> dict[str, Any]:
    from chalicelib.api.openapi import document

    return document()


@endpoint(blueprint, "GET", "/me", role="viewer", summary="The calling app and credential", returns={200: ME})
def me(request: Request) -> dict[str, Any]:
    caller, limits = request.caller, settings()
    return {
        "appId": str(caller.app_id),
        "aliasId": caller.alias_id,
        "credentialId": str(caller.credential_id),
        "role": caller.role,
        "auditsReads": caller.audits_reads,
        "limits": {
            "requestsPerSecond": limits.rate_per_s,
            "burst": limits.burst,
            "maxPluginBytes": limits.max_plugin_size,
        },
    }


@endpoint(
    blueprint,
    "GET",
    "/audit",
    role="admin",
    summary="Who changed what, the newest first",
    query=PAGE | AUDIT_FILTER,
    returns={200: page_of(AUDIT_ROW)},
)
def list_audit(request: Request) -> dict[str, Any]:
    from chalicelib.apps.audit_trail import list_audit

    filters = {name: value for name, value in request.query.items() if name in AUDIT_FILTER}
    with request.reads() as session:
        return list_audit(session, request.page(), filters)


@endpoint(
    blueprint,
    "GET",
    "/instances",
    role="admin",
    summary="Which warm function runs which versions",
    query=PAGE,
    returns={200: page_of(INSTANCE)},
)
def list_instances(request: Request) -> Answer | dict[str, Any]:
    from chalicelib.core.instances import list_instances

    with request.reads() as session:
        return list_instances(session, request.page())
