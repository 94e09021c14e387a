from __future__ import annotations

from typing import Any

import pytest

from chalicelib.tools.openapi.structure import walk
from tests.corpus.openapi_cases import document, operation

REF = {"$ref": "#/x"}
MEDIA: dict[str, Any] = {"schema": {"items": REF}, "examples": {"e": {"value": REF}}}


def test_every_object_is_met_once_with_its_kind_in_order() -> None:
    value = document(
        paths={
            "/a": {
                "parameters": [
                    {"schema": {"default": REF}, "content": {"a/b": MEDIA}, "examples": {"x": REF}}
                ],
                "get": operation(
                    requestBody={"content": {"a/b": {"encoding": {"p": {"headers": {"H": {"schema": {}}}}}}}},
                    responses={"200": {"headers": {"H": REF}, "links": {"l": REF}}, "x-y": REF},
                    callbacks={"c": {"{$url}": {"post": {}}, "x-y": REF}},
                ),
                "x-y": REF,
            },
            "x-y": REF,
        },
        components={"securitySchemes": {"s": {}}, "schemas": {"x-y": {"properties": {"x-z": REF}}}},
        webhooks={"w": {}},
        tags=[REF],
    )
    a = "/paths/~1a"
    assert [(place.pointer, place.kind) for place in walk(value)] == [
        ("", "document"),
        (a, "pathItem"),
        (f"{a}/parameters/0", "parameter"),
        (f"{a}/parameters/0/schema", "schema"),
        (f"{a}/parameters/0/content/a~1b", "mediaType"),
        (f"{a}/parameters/0/content/a~1b/schema", "schema"),
        (f"{a}/parameters/0/content/a~1b/schema/items", "schema"),
        (f"{a}/parameters/0/content/a~1b/examples/e", "example"),
        (f"{a}/parameters/0/examples/x", "example"),
        (f"{a}/get", "operation"),
        (f"{a}/get/responses/200", "response"),
        (f"{a}/get/responses/200/headers/H", "header"),
        (f"{a}/get/responses/200/links/l", "link"),
        (f"{a}/get/requestBody", "requestBody"),
        (f"{a}/get/requestBody/content/a~1b", "mediaType"),
        (f"{a}/get/requestBody/content/a~1b/encoding/p", "encoding"),
        (f"{a}/get/requestBody/content/a~1b/encoding/p/headers/H", "header"),
        (f"{a}/get/requestBody/content/a~1b/encoding/p/headers/H/schema", "schema"),
        (f"{a}/get/callbacks/c", "callback"),
        (f"{a}/get/callbacks/c/{{$url}}", "pathItem"),
        (f"{a}/get/callbacks/c/{{$url}}/post", "operation"),
        ("/components", "components"),
        ("/components/securitySchemes/s", "securityScheme"),
        ("/components/schemas/x-y", "schema"),
        ("/components/schemas/x-y/properties/x-z", "schema"),
        ("/webhooks/w", "pathItem"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"paths": [1], "components": 5, "webhooks": "x"},
        {"paths": {"/a": None, "/b": {"get": [], "parameters": {"a": 1}}}},
        {"components": {"schemas": {"a": {"properties": 1, "allOf": {}, "items": None}}}},
    ],
)
def test_a_bad_document_is_walked_too(value: dict[str, Any]) -> None:
    assert len(list(walk(value))) >= 1
