"""The OpenAPI 3.1 document, generated from the same declarations that serve the requests."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import chalicelib.api
from chalicelib.api import parameters
from chalicelib.api.endpoint import ENDPOINTS, IDEMPOTENCY_KEY, IF_MATCH, Endpoint
from chalicelib.api.problem import MEDIA_TYPE, PROBLEM
from chalicelib.core.settings import VERSION

_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "minimum": 0}
ETAG = {"ETag": {"description": "A strong tag of the resource.", "schema": _TEXT}}
PLACE = {"Location": {"description": "Where it is.", "schema": _TEXT}}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds, before it is worth while to look again.", "schema": _SECONDS}
}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the document; components are the schemas that carry a `title`."""
    # The function that serves the document alone has imported one module of the API; it describes them all.
    for module in pkgutil.iter_modules(chalicelib.api.__path__):
        importlib.import_module(f"chalicelib.api.{module.name}")
    components: dict[str, Any] = {"Problem": dict(PROBLEM)}
    paths: dict[str, Any] = {}
    for declared in sorted(ENDPOINTS, key=lambda one: (one.path, one.method)):
        paths.setdefault(declared.path, {})[declared.method.lower()] = _operation(declared, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hotplug",
            "version": VERSION,
            "description": "Plugins that are installed, versioned, hot-reloaded and run.",
        },
        "servers": [{"url": "/"}],
        "security": [{"credential": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "credential": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`<api_key>:<api_secret>` of a credential, or the base64 of that pair",
                }
            },
        },
    }


def _operation(declared: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": declared.name.replace(".", "_"),
        "summary": declared.summary,
        "tags": list(declared.tags),
        "x-role": declared.role or "none",
        "parameters": _parameters(declared),
        "responses": _responses(declared, components),
    }
    if declared.role is None:
        operation["security"] = []
    content = {}
    if declared.body is not None:
        content["application/json"] = {"schema": _schema(declared.body, components)}
    if declared.multipart is not None:
        content["multipart/form-data"] = {"schema": _form(declared.multipart, components)}
    if content:
        operation["requestBody"] = {"required": not declared.body_optional, "content": content}
    return operation


def _form(schema: Any, components: dict[str, Any]) -> Any:
    file_part = {"type": "string", "contentMediaType": "application/octet-stream"}
    properties = {**schema.get("properties", {}), "file": file_part}
    required = [*schema.get("required", []), "file"]
    return _schema({**schema, "properties": properties, "required": required}, components)


def _parameters(declared: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    schema: dict[str, Any]
    for name in re.findall(r"{(\w+)}", declared.path):
        schema = {"type": "string", "pattern": parameters.PATH[name]}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    for name, schema in declared.query.items():
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    if declared.idempotent:
        schema = {"type": "string", "pattern": IDEMPOTENCY_KEY}
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema})
    if declared.method == "GET" and 200 in declared.returns:
        found.append({"name": "If-None-Match", "in": "header", "required": False, "schema": _TEXT})
    if declared.if_match != "none":
        required = declared.if_match == "required"
        schema = {"type": "string", "pattern": IF_MATCH}
        found.append({"name": "If-Match", "in": "header", "required": required, "schema": schema})
    return found


def _responses(declared: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, schema in declared.returns.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if schema is not None:
            response["content"] = {declared.media_type: {"schema": _schema(schema, components)}}
            response |= _headers(status)
        responses[str(status)] = response
    if declared.method == "GET" and 200 in declared.returns:
        responses["304"] = {"description": HTTPStatus(304).phrase}
    for status in sorted(_problem_statuses(declared)):
        response = responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
        # A protocol's own errors stand beside those of the edge.
        content = response.setdefault("content", {})
        content[MEDIA_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
        if status in (429, 503):
            response["headers"] = RETRY_AFTER
    return responses


def _headers(status: int) -> dict[str, Any]:
    found = {200: ETAG, 201: ETAG | PLACE, 202: PLACE | RETRY_AFTER}.get(status)
    return {} if found is None else {"headers": found}


def _problem_statuses(declared: Endpoint) -> set[int]:
    statuses = {*declared.errors, 503}
    if declared.role is not None:
        statuses |= {400, 401, 403, 404, 429}
    if declared.body is not None or declared.multipart is not None:
        statuses |= {400, 413, 415, 422}
    if declared.idempotent:
        statuses |= {409, 422}
    if declared.if_match != "none":
        statuses.add(412)
    if declared.if_match == "required":
        statuses.add(428)
    return statuses


def _schema(schema: Any, components: dict[str, Any]) -> Any:
    """Replace every titled schema by a reference to a component of that name."""
    if isinstance(schema, list | tuple):
        return [_schema(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _schema(value, components) for key, value in schema.items() if key != "title"}
    title = schema.get("title")
    if not isinstance(title, str):
        # `title` is a property's name here: this is the value of `properties`.
        return inner if "title" not in schema else {**inner, "title": _schema(schema["title"], components)}
    if components.setdefault(title, inner) != inner:
        raise ValueError(f"two schemas carry the title {title}")
    return {"$ref": f"#/components/schemas/{title}"}
