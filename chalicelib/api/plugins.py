"""/api/v1/plugins: what is installed, and what happens to it.

What changes a plugin is imported by the handlers that do so: it takes longer than a cold read as a whole may add to its
libraries' imports.
"""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, SINCE, VERSION_PATTERN, moment, page_of
from chalicelib.api.plugin_schemas import HISTORY, HOSTS, PLUGIN, PLUGIN_SUMMARY, VERSION
from chalicelib.api.request import Answer, Request
from chalicelib.core.errors import Forbidden
from chalicelib.plugins import catalog

blueprint = Blueprint(__name__)

# A load is handed the configuration in force, decrypted.
RUNS_PLUGINS = ("database", "open_secrets", "presign", "invoke_runtime")
CASCADE: dict[str, Any] = {"cascade": {"type": "boolean", "default": False}}
NOTHING: dict[str, Any] = {"type": "object", "additionalProperties": False, "maxProperties": 0}
FILTERS: dict[str, Any] = {
    "pluginType": {"type": "string", "enum": ["notify", "deploy", "test", "build", "custom"]},
    "status": {"type": "integer", "enum": [0, 1, 2]},
    "source": {"type": "string", "enum": ["local", "market", "s3"]},
    "q": {"type": "string", "minLength": 1, "maxLength": 64},
    "updatedSince": SINCE,
}


@endpoint(
    blueprint, "GET", "/plugins", role="viewer", query={**PAGE, **FILTERS},
    returns={200: page_of(PLUGIN_SUMMARY)}, summary="The app's own and the shared plugins, newest first",
)  # fmt: skip
def list_plugins(request: Request) -> dict[str, Any]:
    query = request.query
    with request.reads() as session:
        return catalog.list_plugins(
            session,
            request.caller,
            request.page(),
            plugin_type=query.get("pluginType"),
            status=query.get("status"),
            source=query.get("source"),
            q=query.get("q"),
            updated_since=moment("updatedSince", query.get("updatedSince")),
        )


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}", role="viewer",
    returns={200: PLUGIN}, summary="One plugin, as registered now",
)  # fmt: skip
def get_plugin(request: Request) -> Answer:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    return Answer(found.resource, headers={"ETag": found.etag})


@endpoint(
    blueprint, "PATCH", "/plugins/{pluginId}", role="publisher", if_match="honoured", errors=(409,),
    body={
        "type": "object", "required": ["visibility"], "additionalProperties": False,
        "properties": {"visibility": {"enum": ["private", "shared"]}},
    },
    returns={200: PLUGIN}, summary="Share a plugin with every app (admins only), or take that back",
)  # fmt: skip
def patch_plugin(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle

    visibility = request.body["visibility"]
    if visibility == catalog.SHARED and not request.caller.may("admin"):
        raise Forbidden("Sharing with every app needs the role admin.", code="auth.role")
    return request.write(
        lambda session: lifecycle.share(
            session, request.caller, request.path["pluginId"], request.if_match, visibility
        )
    )


@endpoint(
    blueprint, "DELETE", "/plugins/{pluginId}", role="publisher", query=CASCADE, if_match="honoured",
    errors=(409,), returns={204: None}, summary="Uninstall: gone for every reader at once",
)  # fmt: skip
def uninstall_plugin(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle

    def work(session: Any) -> Answer:
        lifecycle.uninstall(
            session,
            request.caller,
            request.path["pluginId"],
            request.if_match,
            cascade=request.query["cascade"],
        )
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint, "POST", "/plugins/{pluginId}/enable", role="publisher", idempotent=True, if_match="honoured",
    body=NOTHING, body_optional=True, errors=(409, 422, 502, 504), rights=RUNS_PLUGINS,
    returns={200: PLUGIN}, summary="Load and initialise once, then enable",
)  # fmt: skip
def enable_plugin(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle
    from chalicelib.plugins.services import plugin_services

    return lifecycle.enable(
        plugin_services(), request.caller, request.path["pluginId"], request.if_match, request.write
    )


@endpoint(
    blueprint, "POST", "/plugins/{pluginId}/disable", role="publisher", idempotent=True, query=CASCADE,
    if_match="honoured", body=NOTHING, body_optional=True, errors=(409,),
    returns={200: PLUGIN}, summary="Disable; files and configs stay",
)  # fmt: skip
def disable_plugin(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle

    return request.write(
        lambda session: lifecycle.disable(
            session,
            request.caller,
            request.path["pluginId"],
            request.if_match,
            cascade=request.query["cascade"],
        )
    )


@endpoint(
    blueprint, "POST", "/plugins/{pluginId}/rollback", role="publisher", idempotent=True, if_match="honoured",
    body={
        "type": "object", "additionalProperties": False,
        "properties": {"version": {"type": "string", "pattern": VERSION_PATTERN}},
    },
    body_optional=True, errors=(409, 422, 502, 504), rights=(*RUNS_PLUGINS, "read_artifacts"),
    returns={200: PLUGIN}, summary="Make an earlier version active again, without an upload",
)  # fmt: skip
def rollback_plugin(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle
    from chalicelib.plugins.services import plugin_services

    return lifecycle.rollback(
        plugin_services(),
        request.caller,
        request.path["pluginId"],
        request.body.get("version"),
        request.if_match,
        request.write,
    )


@endpoint(
    blueprint, "PUT", "/plugins/{pluginId}/grants", role="admin", body=HOSTS, if_match="honoured", errors=(409,),
    returns={200: PLUGIN}, summary="Which hosts a plugin may reach",
)  # fmt: skip
def put_grants(request: Request) -> Answer:
    from chalicelib.plugins import lifecycle

    return request.write(
        lambda session: lifecycle.grant(
            session, request.caller, request.path["pluginId"], request.if_match, request.body["network"]
        )
    )


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/versions", role="viewer", query=PAGE,
    returns={200: page_of(VERSION)}, summary="A plugin's versions, newest first",
)  # fmt: skip
def list_versions(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    with request.reads() as session:
        return catalog.list_versions(session, request.caller, found, request.page())


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/versions/{version}", role="viewer",
    returns={200: VERSION}, summary="One version",
)  # fmt: skip
def get_version(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    with request.reads() as session:
        return catalog.get_version(session, request.caller, found, request.path["version"])


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/history", role="viewer", query=PAGE,
    returns={200: page_of(HISTORY)}, summary="Who did what to a plugin, newest first",
)  # fmt: skip
def list_history(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    with request.reads() as session:
        return catalog.list_history(session, request.caller, found, request.page())


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/download", role="caller", rights=("database", "presign_packages"),
    query={"version": {"type": "string", "pattern": VERSION_PATTERN}},
    returns={302: None}, summary="Redirect to the package, for a few minutes",
)  # fmt: skip
def download_plugin(request: Request) -> Answer:
    from chalicelib.plugins import downloads
    from chalicelib.plugins.services import plugin_services

    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    with request.reads() as session:
        version = catalog.read_version(session, found, request.query.get("version", found.version))
    link = downloads.link(plugin_services().storage, version)
    return Answer(status=302, headers={"Location": link.url, "Repr-Digest": link.digest})
