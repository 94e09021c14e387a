from __future__ import annotations

import copy
from typing import Any

import pytest

from chalicelib.tools.openapi.validation import check_document
from tests.corpus.openapi_cases import (
    BAD,
    Bad,
    document,
    operation,
    path_parameter,
    with_operation,
    with_schema,
)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_document_is_refused_for_exactly_what_is_wrong(case: Bad) -> None:
    before = copy.deepcopy(case.document)
    found = check_document(case.document)
    assert sorted((one.pointer, one.rule) for one in found) == sorted(case.expected)
    assert all(one.message for one in found)
    assert case.document == before


def test_the_corpus_has_no_case_twice() -> None:
    assert len({case.name for case in BAD}) == len(BAD) > 100


RESPONSE: dict[str, Any] = {"description": "", "content": {"application/json": {"schema": {}}}}
GOOD: dict[str, dict[str, Any]] = {
    "smallest": document(),
    "smallest of 3.0": document("3.0.0"),
    "prerelease": document("3.1.0-rc1"),
    "server of a path only": document(
        servers=..., paths={"/pets": {"servers": [{"url": "http://a.example:8080"}], "get": operation()}}
    ),
    "server of an operation only": with_operation(servers=[{"url": "https://a.example"}]) | {"servers": []},
    "server with variables": document(
        servers=[
            {
                "url": "{scheme}://{host}/{base}",
                "variables": {
                    "scheme": {"default": "https", "enum": ["https", "http"]},
                    "host": {"default": "a.example"},
                    "base": {"default": "v1"},
                },
            }
        ]
    ),
    "several placeholders in one segment": with_operation(
        path="/{a}{b}-{c}.{d}", parameters=[path_parameter(name) for name in "abcd"]
    ),
    "fixed query": with_operation(path="/pets?beta=true"),
    "same path, other names, other method": document(
        paths={
            "/{a}": {"get": operation(parameters=[path_parameter("a")])},
            "/{b}": {"put": operation(operationId="put", parameters=[path_parameter("b")])},
        }
    ),
    "parameter of a path": document(
        paths={"/{a}": {"parameters": [path_parameter("a")], "get": operation()}}
    ),
    "operation replaces the parameter of its path": document(
        paths={
            "/{a}": {
                "parameters": [path_parameter("a")],
                "get": operation(parameters=[path_parameter("a")]),
            }
        }
    ),
    "path item by reference": document(
        paths={"/pets": {"$ref": "#/components/pathItems/pets"}},
        components={"pathItems": {"pets": {"get": operation()}}},
    ),
    "references anywhere": document(
        paths={
            "/pets": {
                "get": operation(
                    parameters=[{"$ref": "#/paths/~1pets/put/parameters/0"}],
                    responses={"200": {"$ref": "#/components/responses/%4Fk"}},
                ),
                "put": operation(
                    operationId="put",
                    parameters=[{"name": "a", "in": "query", "schema": {"type": "string"}}],
                    requestBody={"$ref": "#/components/requestBodies/a"},
                    responses={
                        "2XX": RESPONSE,
                        "default": {"$ref": "#/paths/~1pets/put/responses/2XX"},
                    },
                ),
            }
        },
        components={
            "responses": {"Ok": RESPONSE},
            "requestBodies": {
                "a": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/paths/~1pets/put/parameters/0/schema"},
                            "examples": {"a": {"$ref": "#/components/examples/b"}},
                        }
                    }
                }
            },
            "examples": {"b": {"$ref": "#/components/examples/c"}, "c": {"value": {"$ref": "data"}}},
        },
    ),
    "schema that contains itself": with_schema(
        {"properties": {"$ref": {"type": "string"}, "children": {"items": {"$ref": "#/components/schemas/Pet"}}}}
    ),
    "a name with every special character": document(
        components={"schemas": {"Pet": {"properties": {"a/b~c%d": {"type": "string"}, "e": {
            "$ref": "#/components/schemas/Pet/properties/a~1b~0c%25d"}}}}}
    ),
    "data that looks like references": with_schema(
        {
            "default": {"$ref": "https://a.example"},
            "examples": [{"$ref": "x"}],
            "enum": [{"$ref": "y"}],
            "const": {"$ref": "z"},
            "x-other": {"$ref": "w"},
        }
    ),
    "x-from and x-display": with_operation(
        parameters=[
            {"name": "a", "in": "query", "x-from": 1, "schema": {"x-display": False}},
            {"name": "b", "in": "query", "schema": {"x-from": 2, "default": 1}},
        ]
    ),
    "names required twice": with_schema({"required": ["a", "a"]}),
    "alternatives of none": with_schema({"oneOf": []}, "3.0.3"),
    "bounds of 3.0 in 3.1": with_schema({"minimum": 1, "exclusiveMinimum": True}),
    "null of 3.1 in 3.0": with_schema({"anyOf": [{"type": "null"}, {"type": "string"}]}, "3.0.3"),
    "recursion of an older draft": with_schema({"$recursiveAnchor": True, "items": {"$recursiveRef": "#"}}),
    "dialect of OpenAPI 3.1": document(
        jsonSchemaDialect="https://spec.openapis.org/oas/3.1/dialect/base"
    ),
    "security by a scheme": with_operation(security=[{}, {"key": []}])
    | {"components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X"}}}},
    "relative token URL": document(
        components={
            "securitySchemes": {
                "o": {
                    "type": "oauth2",
                    "flows": {"clientCredentials": {"tokenUrl": "/oauth/token", "scopes": {}}},
                }
            }
        }
    ),
    "callbacks and webhooks": with_operation(
        callbacks={"a": {"{$request.body#/url}": {"post": {"responses": {"200": RESPONSE}}}}}
    )
    | {"webhooks": {"b": {"post": {"responses": {"200": RESPONSE}}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_document_is_taken(name: str) -> None:
    assert check_document(GOOD[name]) == []


def test_all_is_told_at_once_and_at_most_a_hundred_times() -> None:
    value = document(
        servers=[{"url": "/"}],
        paths={f"/{n}": {"get": operation(operationId=..., responses=5)} for n in range(200)},
    )
    found = check_document(value)
    assert len(found) == 100
    few = document(
        servers=[{"url": "/"}],
        paths={"/{a}": {"get": operation(operationId=..., responses={"200": {"$ref": "x"}})}},
        hosts=[],
    )
    assert {one.rule for one in check_document(few)} == {
        "openapi.structure",
        "openapi.server_url",
        "openapi.operation_id_missing",
        "openapi.path_parameter_missing",
        "openapi.remote_reference",
    }


def test_a_large_part_is_refused_without_looking_for_every_fault() -> None:
    # WHEN one schema of 30,000 has a fault somewhere
    properties: dict[str, Any] = {f"p{n}": {"type": "string"} for n in range(30_000)}
    found = check_document(with_schema({"properties": {**properties, "z": {"type": 5}}}))
    # THEN its place is told, and other faults are told in full
    assert [(one.pointer, one.rule) for one in found] == [("/components/schemas/Pet", "openapi.structure")]


def test_a_document_of_too_many_objects_is_refused() -> None:
    value = with_schema({"properties": {f"p{n}": {"items": {}} for n in range(80_000)}})
    assert [(one.pointer, one.rule) for one in check_document(value)] == [("", "openapi.too_large")]


def test_long_chains_of_references_are_followed_once() -> None:
    chain: dict[str, Any] = {f"c{n}": {"$ref": f"#/components/schemas/c{n + 1}"} for n in range(20_000)}
    value = document(components={"schemas": {**chain, "c20000": {}}})
    assert check_document(value) == []
    doubling = {f"c{n}": {"allOf": [{"$ref": f"#/components/schemas/c{n + 1}"}] * 2} for n in range(5_000)}
    assert check_document(document(components={"schemas": {**doubling, "c5000": {}}})) == []


def test_many_operations_that_share_a_long_list_of_parameters_are_refused() -> None:
    # GIVEN a small document whose operations have 400,000 parameters, all by reference to one list
    shared = [{"name": f"p{n}", "in": "query", "schema": {}} for n in range(200)]
    paths: dict[str, Any] = {f"/{n}": {"$ref": "#/paths/~1all"} for n in range(1_999)}
    value = document(paths={**paths, "/all": {"parameters": shared, "get": operation()}})
    assert [(one.pointer, one.rule) for one in check_document(value)] == [("/paths", "openapi.too_large")]


def test_unknown_members_are_not_looked_for_among_too_many() -> None:
    # The validator library compares each with each.
    value = with_operation(responses={f"r{n}": {"description": ""} for n in range(6_000)})
    messages = [one.message for one in check_document(value)]
    assert "has more than 5000 members" in messages
