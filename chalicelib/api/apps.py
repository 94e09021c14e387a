"""Apps, their credentials and their secrets: for admins."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of, resource
from chalicelib.api.request import Answer, Request
from chalicelib.apps import credentials, service
from chalicelib.apps.models import ALIAS_PATTERN, SECRET_NAME_PATTERN
from chalicelib.core.caller import ROLES

blueprint = Blueprint(__name__)

ID = {"type": "string", "pattern": "^[0-9]+$"}
AUTHOR = {"type": ["string", "null"], "pattern": "^[0-9]+$"}
TIME = {"type": "string", "format": "date-time"}
TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
FLAG = {"type": "integer", "enum": [0, 1]}
PLATFORM = {"type": "integer", "enum": [1, 2, 4], "description": "1 workbench, 2 open platform, 4 device"}
# Control characters would end up in logs and terminals.
NAME = {"type": "string", "minLength": 1, "maxLength": 30, "pattern": "^[^\\u0000-\\u001f\\u007f]+$"}
DESCRIPTION = {"type": "string", "maxLength": 255, "pattern": "^[^\\u0000-\\u0008\\u000e-\\u001f\\u007f]*$"}
LABEL = {"type": "string", "maxLength": 64, "pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
RFC3339 = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
SECRET_LIMIT = 16_384

SETTABLE: dict[str, Any] = {
    "name": NAME,
    "description": DESCRIPTION,
    "isTenant": FLAG,
    "platReleaseAuth": {
        "type": "integer",
        "minimum": 0,
        "maximum": 7,
        "description": "platforms that the app may publish to: a sum of 1 workbench, 2 open platform, 4 device",
    },
    "auditPolicy": FLAG | {"description": "1 also records reads"},
}

APP = resource(
    "App",
    {
        "id": ID,
        "aliasId": {"type": "string", "pattern": ALIAS_PATTERN},
        "name": {"type": "string"},
        "description": {"type": "string"},
        "isTenant": {"type": "integer"},
        "source": {"type": "integer"},
        "actualSource": {"type": "integer"},
        "platReleaseAuth": {"type": "integer"},
        "status": {"type": "integer"},
        "auditPolicy": {"type": "integer"},
        "createBy": AUTHOR,
        "updateBy": AUTHOR,
        "createdAt": TIME,
        "updatedAt": TIME,
    },
)

NEW_APP: dict[str, Any] = {
    "title": "NewApp",
    "type": "object",
    "additionalProperties": False,
    "required": ["aliasId", "name"],
    "properties": {
        "aliasId": {"type": "string", "pattern": ALIAS_PATTERN},
        **SETTABLE,
        "source": PLATFORM,
        "actualSource": PLATFORM,
    },
}

APP_CHANGES: dict[str, Any] = {
    "title": "AppChanges",
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "properties": {**SETTABLE, "status": FLAG | {"description": "0 refuses every request of the app"}},
}

_CREDENTIAL: dict[str, Any] = {
    "id": ID,
    "apiKey": {"type": "string"},
    "role": {"enum": list(ROLES)},
    "label": {"type": "string"},
    "status": {"type": "integer"},
    "expiresAt": TIME_OR_NULL,
    "createdBy": AUTHOR,
    "createdAt": TIME,
}

CREDENTIAL = resource(
    "Credential", {**_CREDENTIAL, "lastUsedAt": TIME_OR_NULL | {"description": "to five minutes"}}
)

CREDENTIAL_WITH_SECRET = resource(
    "CredentialWithSecret", {**_CREDENTIAL, "apiSecret": {"type": "string", "description": "shown this once"}}
)

NEW_CREDENTIAL: dict[str, Any] = {
    "title": "NewCredential",
    "type": "object",
    "additionalProperties": False,
    "required": ["role"],
    "properties": {
        "role": {"enum": list(ROLES)},
        "label": LABEL,
        "expiresAt": {"type": "string", "pattern": RFC3339},
    },
}

SECRET = resource(
    "Secret",
    {
        "name": {"type": "string", "pattern": SECRET_NAME_PATTERN},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "updatedAt": TIME,
    },
)

SECRET_VALUE: dict[str, Any] = {
    "title": "SecretValue",
    "type": "object",
    "additionalProperties": False,
    "required": ["value"],
    "properties": {
        "value": {"type": "string", "minLength": 1, "maxLength": SECRET_LIMIT},
        "hosts": {
            "type": "array",
            "maxItems": 16,
            "items": {"type": "string", "minLength": 1, "maxLength": 260},
            "default": [],
            "description": "Where flows may have it sent: `api.example.com`, or with a port.",
        },
    },
}

WEBHOOK_SECRET = resource(
    "WebhookSecret",
    {
        "secret": {"type": "string", "pattern": "^whsec_", "description": "shown this once"},
        "updatedAt": TIME,
    },
)


@endpoint(
    blueprint,
    "POST",
    "/apps",
    role="admin",
    summary="Create an app",
    body=NEW_APP,
    returns={201: APP},
    errors=(409,),
    idempotent=True,
)
def create_app(request: Request) -> Answer:
    fields = dict(request.body)
    alias_id = fields.pop("aliasId")
    location = {"Location": f"{BASE}/apps/{alias_id}"}
    return request.write(
        lambda session: Answer(
            service.create_app(session, request.caller, alias_id, fields), status=201, headers=location
        )
    )


@endpoint(
    blueprint,
    "GET",
    "/apps",
    role="admin",
    summary="List all apps",
    query=PAGE,
    returns={200: page_of(APP)},
)
def list_apps(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return service.list_apps(session, request.page())


@endpoint(blueprint, "GET", "/apps/{aliasId}", role="admin", summary="Show an app", returns={200: APP})
def get_app(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return service.get_app(session, request.path["aliasId"])


@endpoint(
    blueprint,
    "PATCH",
    "/apps/{aliasId}",
    role="admin",
    summary="Rename, disable or enable an app, grant platforms",
    body=APP_CHANGES,
    returns={200: APP},
    errors=(409,),
    if_match="honoured",
)
def patch_app(request: Request) -> Answer:
    alias_id = request.path["aliasId"]
    return request.write(
        lambda session: service.patch_app(session, request.caller, alias_id, request.body, request.if_match)
    )


@endpoint(
    blueprint,
    "DELETE",
    "/apps/{aliasId}",
    role="admin",
    summary="Delete an app that owns nothing",
    returns={204: None},
    errors=(409,),
    if_match="honoured",
)
def delete_app(request: Request) -> Answer:
    from chalicelib.flows import licensing
    from chalicelib.flows import ownership as flows
    from chalicelib.plugins import ownership as plugins
    from chalicelib.tools import ownership as tools

    def owned(session: Any, app_id: int) -> list[str]:
        domains = (plugins, tools, flows)
        return [kind for domain in domains for kind in domain.owned_by_app(session, app_id)]

    def work(session: Any) -> Answer:
        alias_id = request.path["aliasId"]
        service.delete_app(session, request.caller, alias_id, request.if_match, owned, licensing.forget_app)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint,
    "POST",
    "/apps/{aliasId}/credentials",
    role="admin",
    summary="Add a credential; its secret is shown once",
    body=NEW_CREDENTIAL,
    returns={201: CREDENTIAL_WITH_SECRET},
    errors=(409,),
    idempotent=True,
    secret_answer=True,
)
def create_credential(request: Request) -> Answer:
    body, alias_id = request.body, request.path["aliasId"]

    def work(session: Any) -> Answer:
        made = credentials.add_credential(
            session,
            request.caller,
            alias_id,
            role=body["role"],
            label=body.get("label", ""),
            expires_at=body.get("expiresAt"),
        )
        shown = made.resource | {"apiSecret": made.api_secret}
        location = f"{request.url_path}/{made.resource['id']}"
        return Answer(shown, status=201, headers={"Location": location}, tagged=made.resource)

    return request.write(work)


@endpoint(
    blueprint,
    "GET",
    "/apps/{aliasId}/credentials",
    role="admin",
    summary="List an app's credentials",
    query=PAGE,
    returns={200: page_of(CREDENTIAL)},
)
def list_credentials(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return credentials.list_credentials(session, request.path["aliasId"], request.page())


@endpoint(
    blueprint,
    "DELETE",
    "/apps/{aliasId}/credentials/{credentialId}",
    role="admin",
    summary="Delete a credential",
    returns={204: None},
    errors=(409,),
    if_match="honoured",
)
def delete_credential(request: Request) -> Answer:
    alias_id, credential_id = request.path["aliasId"], int(request.path["credentialId"])

    def work(session: Any) -> Answer:
        credentials.delete_credential(session, request.caller, alias_id, credential_id, request.if_match)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint,
    "POST",
    "/apps/{aliasId}/webhook-secret",
    role="admin",
    summary="Make a new webhook secret; it is shown once",
    returns={201: WEBHOOK_SECRET},
    errors=(409,),
    idempotent=True,
    secret_answer=True,
    rights=("database", "seal_secrets"),
)
def create_webhook_secret(request: Request) -> Answer:
    from chalicelib.apps import secrets

    alias_id = request.path["aliasId"]
    box = secrets.app_box(request.database, alias_id)

    def work(session: Any) -> Answer:
        resource, secret = secrets.new_webhook_secret(session, request.caller, alias_id, box)
        return Answer(resource | {"secret": secret}, status=201, tagged=resource)

    return request.write(work)


@endpoint(
    blueprint,
    "GET",
    "/apps/{aliasId}/secrets",
    role="admin",
    summary="List the names of an app's secrets",
    returns={200: page_of(SECRET)},
)
def list_secrets(request: Request) -> dict[str, Any]:
    from chalicelib.apps import secrets

    with request.reads() as session:
        return secrets.list_secrets(session, request.path["aliasId"])


@endpoint(
    blueprint,
    "PUT",
    "/apps/{aliasId}/secrets/{name}",
    role="admin",
    summary="Store a secret, encrypted",
    body=SECRET_VALUE,
    returns={200: SECRET},
    errors=(409,),
    if_match="honoured",
    rights=("database", "seal_secrets"),
)
def put_secret(request: Request) -> Answer:
    from chalicelib.apps import secrets

    alias_id, name = request.path["aliasId"], request.path["name"]
    hosts = secrets.checked_hosts(request.body.get("hosts", ()))
    box = secrets.app_box(request.database, alias_id)
    return request.write(
        lambda session: secrets.put_secret(
            session, request.caller, alias_id, name, request.body["value"], box, request.if_match, hosts
        )
    )


@endpoint(
    blueprint,
    "DELETE",
    "/apps/{aliasId}/secrets/{name}",
    role="admin",
    summary="Delete a secret",
    returns={204: None},
    if_match="honoured",
)
def delete_secret(request: Request) -> Answer:
    from chalicelib.apps import secrets

    alias_id, name = request.path["aliasId"], request.path["name"]

    def work(session: Any) -> Answer:
        secrets.delete_secret(session, request.caller, alias_id, name, request.if_match)
        return Answer(status=204)

    return request.write(work)
