from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from chalice.app import Blueprint
from openapi_spec_validator import OpenAPIV31SpecValidator

from chalicelib.api import openapi
from chalicelib.api.endpoint import ENDPOINTS, endpoint
from chalicelib.api.parameters import PATH, page_of, resource
from tests.http import hotplug


@pytest.fixture
def document() -> Iterator[dict[str, Any]]:
    openapi.document.cache_clear()
    yield openapi.document()
    openapi.document.cache_clear()


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_what_is_described_is_what_is_routed(document: dict[str, Any]) -> None:
    routed = {(path, method) for path, methods in hotplug().routes.items() for method in methods}
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == routed
    assert len(routed) >= 16


def test_every_operation_has_a_name_of_its_own_and_every_path_variable_a_pattern(
    document: dict[str, Any],
) -> None:
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "path"}
            assert declared.keys() == set(re.findall(r"{(\w+)}", path))
            assert all(schema["pattern"] == PATH[name] for name, schema in declared.items())


def test_every_resource_is_a_component_with_all_its_members(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    assert components["AppPage"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/App"}
    assert set(components["App"]["required"]) == components["App"]["properties"].keys()
    assert components["NewApp"]["additionalProperties"] is False


def test_open_endpoints_need_no_credential_and_the_others_name_their_role(document: dict[str, Any]) -> None:
    assert document["paths"]["/health"]["get"]["security"] == []
    listing = document["paths"]["/api/v1/apps"]["get"]
    assert ("security" in listing, listing["x-role"]) == (False, "admin")
    assert listing["responses"].keys() >= {"200", "304", "400", "401", "403", "429", "503"}


def test_the_headers_that_an_operation_honours_are_described(document: dict[str, Any]) -> None:
    def headers(path: str, method: str) -> set[str]:
        parameters = document["paths"][path][method]["parameters"]
        return {one["name"] for one in parameters if one["in"] == "header"}

    assert headers("/api/v1/apps", "post") == {"Idempotency-Key"}
    assert headers("/api/v1/apps/{aliasId}", "patch") == {"If-Match"}
    assert headers("/api/v1/apps/{aliasId}", "get") == {"If-None-Match"}
    assert headers("/api/v1/mcp", "get") == set()


def test_the_headers_of_answers_are_described(document: dict[str, Any]) -> None:
    def headers(path: str, method: str) -> dict[str, list[str]]:
        responses = document["paths"][path][method]["responses"]
        return {status: sorted(one["headers"]) for status, one in responses.items() if "headers" in one}

    again = {"429": ["Retry-After"], "503": ["Retry-After"]}
    assert headers("/api/v1/apps", "post") == {"201": ["ETag", "Location"], **again}
    assert headers("/api/v1/apps/{aliasId}", "delete") == again
    assert headers("/api/v1/flows/{flowId}/runs", "post") == {
        "200": ["ETag"], "202": ["Location", "Retry-After"], **again,
    }  # fmt: skip


def test_every_change_of_a_resource_honours_if_match(document: dict[str, Any]) -> None:
    without = {
        f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in ("put", "patch", "delete")
        and "If-Match" not in {one["name"] for one in operation["parameters"]}
    }
    assert without == {
        # Its messages are listed in pages; there is no representation of a thread that could have a tag.
        "delete /api/v1/agents/{agentName}/threads/{threadId}",
        "delete /api/v1/mcp",  # 405
    }


def test_a_protocols_own_errors_stand_beside_those_of_the_edge(document: dict[str, Any]) -> None:
    responses = document["paths"]["/api/v1/mcp"]["post"]["responses"]
    assert responses["400"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/JsonRpcMessage"}},
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    }
    assert responses["202"] == {"description": "Accepted"}
    assert responses["401"]["content"].keys() == {"application/problem+json"}


@pytest.fixture
def declared_here() -> Iterator[Blueprint]:
    known = len(ENDPOINTS)
    yield Blueprint("tests.openapi")
    del ENDPOINTS[known:]
    openapi.document.cache_clear()


def declare(blueprint: Blueprint, path: str, schema: dict[str, Any], **options: Any) -> None:
    def show(request: Any) -> dict[str, Any]:
        return {}

    show.__name__ = f"show{len(ENDPOINTS)}"
    endpoint(blueprint, "GET", path, role="viewer", summary="Show", returns={200: schema}, **options)(show)


def test_two_schemas_of_one_title_are_refused(declared_here: Blueprint) -> None:
    declare(declared_here, "/one", resource("Twice", {"a": {"type": "string"}}))
    declare(declared_here, "/two", resource("Twice", {"b": {"type": "string"}}))
    openapi.document.cache_clear()
    with pytest.raises(ValueError, match="Twice"):
        openapi.document()


def test_a_member_named_title_is_not_a_title(declared_here: Blueprint) -> None:
    book = resource(
        "Book", {"title": {"type": "string"}, "of": resource("Shelf", {"n": {"type": "integer"}})}
    )
    declare(declared_here, "/books", page_of(book))
    openapi.document.cache_clear()
    components = openapi.document()["components"]["schemas"]
    assert components["Book"]["properties"] == {
        "title": {"type": "string"},
        "of": {"$ref": "#/components/schemas/Shelf"},
    }


@pytest.mark.parametrize(
    "options",
    [
        {"query": {"x": {"type": "object"}}},
        {"if_match": "sometimes"},
        {"body": {"type": "object", "required": ["a"]}, "body_optional": True},
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused(
    declared_here: Blueprint, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        declare(declared_here, "/x", {}, **options)
