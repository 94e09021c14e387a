"""/api/v1/plugins/{pluginId}/configs: the values that a plugin runs with."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of, resource
from chalicelib.api.plugin_schemas import OPTIONAL_TEXT, TEXT, TIME
from chalicelib.api.request import Answer, Request
from chalicelib.plugins import catalog
from chalicelib.plugins.configs import store
from chalicelib.plugins.configs.scopes import SCOPES, SUBJECT_PATTERN

blueprint = Blueprint(__name__)

# Drafting a config may ask the key service.
WRITES_SECRETS = ("database", "seal_secrets")
NAME: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
SUBJECT: dict[str, Any] = {"type": "string", "pattern": SUBJECT_PATTERN}
VALUES: dict[str, Any] = {
    "type": "object",
    "description": "By the plugin's configSchema. A secret is shown as ***, and *** on write keeps what is stored.",
}
CONFIG = resource(
    "PluginConfig",
    {
        "configId": TEXT,
        "pluginId": TEXT,
        "name": TEXT,
        "scope": {"enum": list(SCOPES)},
        "subject": OPTIONAL_TEXT,
        "isDefault": {"type": "boolean"},
        "configItems": VALUES,
        "createdBy": OPTIONAL_TEXT,
        "createTime": TIME,
        "updateTime": TIME,
    },
)
NEW: dict[str, Any] = {
    "type": "object",
    "required": ["name", "configItems"],
    "additionalProperties": False,
    "properties": {
        "name": NAME,
        "scope": {"enum": list(SCOPES), "default": "app"},
        "subject": SUBJECT,
        "isDefault": {
            "type": "boolean",
            "description": "Without it the first config of a scope becomes its default.",
        },
        "configItems": VALUES,
    },
}
CHANGE: dict[str, Any] = {
    "type": "object",
    "required": ["configItems"],
    "additionalProperties": False,
    "properties": {"name": NAME, "isDefault": {"type": "boolean"}, "configItems": VALUES},
}


def _plugin(request: Request) -> catalog.Registration:
    return catalog.find(request.cache, request.caller, request.path["pluginId"])


@endpoint(
    blueprint, "POST", "/plugins/{pluginId}/configs", role="publisher", idempotent=True, body=NEW,
    errors=(409,), rights=WRITES_SECRETS, returns={201: CONFIG},
    summary="Store values; scope global needs an admin of the plugin's owner",
)  # fmt: skip
def create_config(request: Request) -> Answer:
    body = request.body
    draft = store.draft_new(
        request.database,
        request.cache,
        request.caller,
        _plugin(request),
        scope=body.get("scope", "app"),
        subject=body.get("subject"),
        name=body["name"],
        values=body["configItems"],
        is_default=body.get("isDefault"),
    )
    location = {"Location": f"{BASE}/plugins/{draft.plugin_id}/configs/{draft.config_id}"}
    return request.write(lambda session: Answer(store.create(session, request.caller, draft), 201, location))


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/configs", role="viewer",
    query={**PAGE, "scope": {"type": "string", "enum": list(SCOPES)}, "subject": SUBJECT},
    returns={200: page_of(CONFIG)}, summary="The app's configs of a plugin and its global ones, newest first",
)  # fmt: skip
def list_configs(request: Request) -> dict[str, Any]:
    found, query = _plugin(request), request.query
    with request.reads() as session:
        return store.list_configs(
            session,
            request.caller,
            found,
            request.page(),
            scope=query.get("scope"),
            subject=query.get("subject"),
        )


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/configs/{configId}", role="viewer",
    returns={200: CONFIG}, summary="One config, its secrets masked",
)  # fmt: skip
def get_config(request: Request) -> dict[str, Any]:
    found = _plugin(request)
    with request.reads() as session:
        return store.read(session, request.caller, found, request.path["configId"])


@endpoint(
    blueprint, "PUT", "/plugins/{pluginId}/configs/{configId}", role="publisher", if_match="honoured", body=CHANGE,
    errors=(409,), rights=WRITES_SECRETS, returns={200: CONFIG}, summary="Replace the values of a config",
)  # fmt: skip
def put_config(request: Request) -> Answer:
    body = request.body
    draft = store.draft_change(
        request.database,
        request.cache,
        request.caller,
        _plugin(request),
        request.path["configId"],
        name=body.get("name"),
        values=body["configItems"],
        is_default=body.get("isDefault"),
    )
    return request.write(lambda session: store.replace(session, request.caller, draft, request.if_match))


@endpoint(
    blueprint, "DELETE", "/plugins/{pluginId}/configs/{configId}", role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete a config; a scope whose default goes has none",
)  # fmt: skip
def delete_config(request: Request) -> Answer:
    found = _plugin(request)

    def work(session: Any) -> Answer:
        store.delete(session, request.caller, found, request.path["configId"], request.if_match)
        return Answer(status=204)

    return request.write(work)
