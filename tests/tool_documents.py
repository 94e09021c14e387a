"""OpenAPI documents that tests register."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def document(server: str = "https://api.example", **operations: dict[str, Any]) -> dict[str, Any]:
    """Return a document with `GET /pets/{petId}` (getPet) and, by their operationId, further operations.

    An operation says where it is by `"at": (method, path)`.
    """
    paths: dict[str, Any] = {
        "/pets/{petId}": {
            "get": {
                "operationId": "getPet",
                "summary": "One pet",
                "parameters": [
                    {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}},
                    {
                        "name": "fields",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "string"}},
                    },
                ],
                "responses": {"200": {"description": "ok", **json_of({"$ref": "#/components/schemas/Pet"})}},
            }
        }
    }
    for operation_id, operation in operations.items():
        method, path = operation.pop("at")
        described = {
            "operationId": operation_id,
            "responses": {"default": {"description": "any"}},
            **operation,
        }
        paths.setdefault(path, {})[method] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pets", "version": "1"},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"schemas": {"Pet": deepcopy(PET)}},
    }


PET = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {"id": {"type": "integer"}, "name": {"type": "string"}, "tag": {"type": "string"}},
}


def json_of(schema: Any) -> dict[str, Any]:
    """Return the `content` of a JSON body."""
    return {"content": {"application/json": {"schema": schema}}}
