"""/api/v1/tools: what is registered, in which versions, and what happens to it.

What parses documents is imported by the handlers that do so.
"""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.api.tool_schemas import (
    DOCUMENT_LIMIT,
    LISTED_TOOL,
    NEW_TOOLS,
    NEW_VERSION,
    TOOL,
    TOOL_CHANGES,
    TOOL_VERSION,
    TOOL_WITH_DOCUMENT,
    TOOLS,
    VERSION,
)
from chalicelib.core.errors import Forbidden
from chalicelib.tools import catalog

blueprint = Blueprint(__name__)

# A document of 5 MB is a hundred times as much in memory while it is checked.
CHECKS_DOCUMENTS: dict[str, Any] = {"memory_mb": 1769, "max_body_bytes": DOCUMENT_LIMIT}


def _may_share(request: Request, *shared: Any) -> None:
    if any(shared) and not request.caller.may("admin"):
        raise Forbidden("Sharing with every app needs the role admin.", code="auth.role")


def _location(tool: dict[str, Any]) -> dict[str, str]:
    return {"Location": f"{BASE}/tools/{tool['toolId']}?version={tool['version']}"}


@endpoint(
    blueprint, "POST", "/tools", role="publisher", idempotent=True, body=NEW_TOOLS, **CHECKS_DOCUMENTS,
    returns={201: {"title": "RegisteredToolOrTools", "anyOf": [TOOL, TOOLS]}},
    summary="Register a tool, or up to twenty at once",
)  # fmt: skip
def create_tools(request: Request) -> Answer:
    from chalicelib.tools import drafts, registry

    body = request.body
    batch = "tools" in body
    given = body["tools"] if batch else [body]
    _may_share(request, *[one.get("shared") for one in given])
    places = [f"/tools/{index}/openapi" for index in range(len(given))] if batch else ["/openapi"]
    documents = drafts.draft_all([one["openapi"] for one in given], places)
    new = [
        registry.NewTool(one["name"], one.get("description", ""), document, one.get("shared", False))
        for one, document in zip(given, documents, strict=True)
    ]

    def work(session: Any) -> Answer:
        made = registry.create(session, request.caller, new)
        return Answer({"tools": made}, 201) if batch else Answer(made[0], 201, _location(made[0]))

    return request.write(work)


@endpoint(
    blueprint, "GET", "/tools", role="viewer",
    query={**PAGE, "q": {"type": "string", "minLength": 1, "maxLength": 64}},
    returns={200: page_of(LISTED_TOOL)},
    summary="The app's own and the shared tools, each in its newest version, newest first",
)  # fmt: skip
def list_tools(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return catalog.list_tools(session, request.caller, request.page(), q=request.query.get("q"))


@endpoint(
    blueprint, "GET", "/tools/{toolId}", role="viewer",
    query={
        "version": VERSION,
        "document": {"type": "boolean", "default": False, "description": "Also the document, as `openapi`."},
    },
    returns={200: TOOL_WITH_DOCUMENT}, summary="One tool, in its newest version or the one that is named",
)  # fmt: skip
def get_tool(request: Request) -> Answer:
    version = request.query.get("version")
    found = catalog.read_tool(request.cache, request.caller, request.path["toolId"], version)
    if not request.query["document"]:
        return Answer(found.resource, headers={"ETag": found.etag})
    with request.reads() as session:
        document = catalog.read_document(session, found.row_id)
    return Answer({**found.resource, "openapi": document}, headers={"ETag": found.etag})


@endpoint(
    blueprint, "GET", "/tools/{toolId}/versions/{version}", errors=(422,), role="viewer", returns={200: TOOL},
    summary="One version, without its document",
)  # fmt: skip
def get_version(request: Request) -> Answer:
    path = request.path
    found = catalog.read_tool(request.cache, request.caller, path["toolId"], path["version"])
    return Answer(found.resource, headers={"ETag": found.etag})


@endpoint(
    blueprint, "DELETE", "/tools/{toolId}", role="publisher", if_match="honoured",
    query={"version": VERSION},
    returns={204: None}, summary="Delete a tool, or one version of it; its versions can be restored",
)  # fmt: skip
def delete_tool(request: Request) -> Answer:
    return _delete(request, request.query.get("version"))


def _delete(request: Request, version: str | None) -> Answer:
    from chalicelib.tools import registry

    def work(session: Any) -> Answer:
        registry.delete(session, request.caller, request.path["toolId"], version, request.if_match)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint, "GET", "/tools/{toolId}/versions", role="viewer", query=PAGE,
    returns={200: page_of(TOOL_VERSION)}, summary="A tool's versions, the highest number first",
)  # fmt: skip
def list_versions(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["toolId"])
    with request.reads() as session:
        return catalog.list_versions(session, found, request.page())


@endpoint(
    blueprint, "POST", "/tools/{toolId}/versions", role="publisher", idempotent=True, body=NEW_VERSION,
    errors=(409,), returns={201: TOOL}, summary="Add a version", **CHECKS_DOCUMENTS,
)  # fmt: skip
def add_version(request: Request) -> Answer:
    from chalicelib.tools import drafts, registry

    body = request.body
    document = drafts.draft(body["openapi"])

    def work(session: Any) -> Answer:
        made = registry.add_version(
            session,
            request.caller,
            request.path["toolId"],
            body["version"],
            name=body.get("name"),
            description=body.get("description"),
            document=document,
        )
        return Answer(made, 201, _location(made))

    return request.write(work)


@endpoint(
    blueprint, "PATCH", "/tools/{toolId}/versions/{version}", role="publisher", if_match="required",
    body=TOOL_CHANGES, returns={200: TOOL}, summary="Change a version in place", **CHECKS_DOCUMENTS,
)  # fmt: skip
def patch_version(request: Request) -> Answer:
    from chalicelib.tools import drafts, registry

    body = request.body
    _may_share(request, body.get("shared"))
    wanted = registry.Change(
        name=body.get("name"),
        description=body.get("description"),
        document=drafts.draft(body["openapi"]) if "openapi" in body else None,
        shared=body.get("shared"),
    )
    return request.write(
        lambda session: registry.change(
            session,
            request.caller,
            request.path["toolId"],
            request.path["version"],
            request.if_match,
            wanted,
        )
    )


@endpoint(
    blueprint, "DELETE", "/tools/{toolId}/versions/{version}", errors=(422,), role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete a version; it can be restored",
)  # fmt: skip
def delete_version(request: Request) -> Answer:
    return _delete(request, request.path["version"])


@endpoint(
    blueprint, "POST", "/tools/{toolId}/versions/{version}/restore", role="publisher", idempotent=True,
    errors=(409,), returns={200: TOOL}, summary="Bring back the version that was deleted last under this number",
)  # fmt: skip
def restore_version(request: Request) -> Answer:
    from chalicelib.tools import registry

    return request.write(
        lambda session: registry.restore(
            session, request.caller, request.path["toolId"], request.path["version"]
        )
    )
