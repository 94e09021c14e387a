"""An OpenAPI document of a given size, of the kind that a large service publishes."""

from __future__ import annotations

import json
from typing import Any

ONE_MIB = 1024 * 1024
_PROPERTIES = 12


def large_document(size: int = ONE_MIB) -> dict[str, Any]:
    """Return a document of about `size` bytes as JSON: three operations and a schema for each resource."""
    one, two = (len(json.dumps(_document(count))) for count in (10, 20))
    return _document(10 + (size - one) * 10 // (two - one))


def _document(resources: int) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for number in range(resources):
        name = f"Resource{number}"
        schemas[name] = _schema(number)
        reference = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        answers = {"200": {"description": "The resource.", "content": reference}}
        page = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}}
        paths[f"/resources{number}"] = {
            "get": {
                "operationId": f"list{name}", "summary": f"List {name}", "parameters": [page],
                "responses": answers,
            },
            "post": {
                "operationId": f"create{name}", "summary": f"Create {name}", "requestBody": {"content": reference},
                "responses": answers,
            },
        }  # fmt: skip
        place = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
        paths[f"/resources{number}/{{id}}"] = {
            "get": {
                "operationId": f"get{name}", "summary": f"Read {name}", "parameters": [place], "responses": answers,
            }
        }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "Large", "version": "1"},
        "servers": [{"url": "https://api.example"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema(number: int) -> dict[str, Any]:
    kinds: tuple[dict[str, Any], ...] = (
        {"type": "string", "maxLength": 200, "description": "A text that people read."},
        {"type": "integer", "minimum": 0},
        {"type": "array", "items": {"type": "string"}, "maxItems": 50},
        {"$ref": f"#/components/schemas/Resource{max(0, number - 1)}"},
    )
    properties = {f"field{index}": kinds[index % len(kinds)] for index in range(_PROPERTIES)}
    return {"type": "object", "required": ["field0", "field1"], "properties": properties}
