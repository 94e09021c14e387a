from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib.core import errors
from chalicelib.core.json_schema.schemas import check_schema
from chalicelib.tools.openapi.compile import Document, OperationSummary, compile_operation, compile_operations
from chalicelib.tools.openapi.dialect import definition_name
from chalicelib.tools.openapi.document import parse_document
from chalicelib.tools.openapi.operation import (
    FIXED,
    FROM_BUSINESS,
    Content,
    Operation,
    Parameter,
    PropertyEncoding,
    RequestBody,
    Requirement,
    ResponseSpec,
    SecurityScheme,
)
from chalicelib.tools.openapi.validation import check_document
from tests.corpus.openapi_cases import document, operation, path_parameter, with_operation

VERSIONS = ["3.0.3", "3.1.0"]


def compiled(value: dict[str, Any], operation_id: str = "listPets") -> Operation:
    """Compile an operation of a document that is good, and stays as it is."""
    assert check_document(value) == []
    before = copy.deepcopy(value)
    result = compile_operation(Document(value), operation_id)
    assert value == before, "the input was changed"
    for schema in schemas(result):
        assert check_schema(result.closed(schema)) == []
    return result


def schemas(result: Operation) -> list[Any]:
    contents = [
        *(result.body.contents if result.body else ()),
        *(c for r in result.responses for c in r.contents),
    ]
    headers = [h for content in contents for one in content.encoding.values() for h in one.headers]
    return [one.schema for one in (*result.parameters, *contents, *headers)]


def parameter(**members: Any) -> Parameter:
    base: dict[str, Any] = {
        "name": "a", "location": "query", "required": False, "schema": {}, "style": "form", "explode": True,
    }  # fmt: skip
    return Parameter(**(base | members))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_smallest_operation(version: str) -> None:
    assert compiled(document(version)) == Operation(
        operation_id="listPets",
        method="GET",
        path="/pets",
        server_url="https://pets.example.com/v1",
        parameters=(),
        body=None,
        responses=(ResponseSpec("200", (), "fine"),),
        security=(),
        definitions={},
    )


def test_operations_are_listed_in_order_without_their_schemas() -> None:
    value = document(
        paths={
            "/pets": {
                "summary": "of the path",
                "put": operation(operationId="put", deprecated=True, tags=["a", "b"], summary="own"),
                "get": operation(),
            },
            "x-more": {"get": operation(operationId="no")},
            "/b": {"$ref": "#/components/pathItems/b"},
        },
        components={"pathItems": {"b": {"trace": operation(operationId="b")}}},
    )
    assert check_document(value) == []
    assert compile_operations(Document(value)) == (
        OperationSummary("put", "PUT", "/pets", "own", True, ("a", "b")),
        OperationSummary("listPets", "GET", "/pets", "of the path", False, ()),
        OperationSummary("b", "TRACE", "/b", "", False, ()),
    )


def test_an_operation_that_is_not_there() -> None:
    with pytest.raises(errors.NotFound) as caught:
        compile_operation(Document(document()), "none")
    assert caught.value.code == "tool.operation_not_found"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"in": "query"}, parameter()),
        ({"in": "query", "explode": False, "allowReserved": True, "required": True, "description": "d",
          "deprecated": True},
         parameter(explode=False, allow_reserved=True, required=True, description="d", deprecated=True)),
        ({"in": "query", "style": "spaceDelimited"}, parameter(style="spaceDelimited", explode=False)),
        ({"in": "query", "style": "pipeDelimited", "explode": True}, parameter(style="pipeDelimited")),
        ({"in": "query", "style": "deepObject", "explode": True}, parameter(style="deepObject")),
        ({"in": "header"}, parameter(location="header", style="simple", explode=False)),
        ({"in": "header", "explode": True}, parameter(location="header", style="simple")),
        ({"in": "cookie"}, parameter(location="cookie")),
        ({"in": "query", "schema": {"type": "string", "x-from": 1, "x-display": False}},
         parameter(schema={"type": "string", "x-from": 1, "x-display": False}, origin=FROM_BUSINESS, displayed=False)),
        ({"in": "query", "x-from": 2, "x-display": False, "schema": {"x-from": 1, "x-display": True}},
         parameter(schema={"x-from": 1, "x-display": True}, origin=FIXED, displayed=False)),
        ({"in": "query", "schema": ..., "content": {"Application/JSON; charset=utf-8": {"schema": {"type": "object"}}}},
         parameter(schema={"type": "object"}, media_type="application/json")),
        ({"in": "query", "schema": ..., "content": {"text/plain": {}}},
         parameter(schema=True, media_type="text/plain")),
    ],
)  # fmt: skip
def test_a_parameter(version: str, given: dict[str, Any], expected: Parameter) -> None:
    one = {name: item for name, item in ({"name": "a", "schema": {}} | given).items() if item is not ...}
    assert compiled(with_operation(version, parameters=[one])).parameters == (expected,)


@pytest.mark.parametrize(
    ("style", "explode", "expected"),
    [(None, None, ("simple", False)), ("label", None, ("label", False)), ("matrix", True, ("matrix", True))],
)
def test_a_path_parameter(style: str | None, explode: bool | None, expected: tuple[str, bool]) -> None:
    given = (
        path_parameter("a") | ({"style": style} if style else {}) | ({"explode": explode} if explode else {})
    )
    (one,) = compiled(with_operation(path="/{a}", parameters=[given])).parameters
    assert (one.style, one.explode, one.required, one.location) == (*expected, True, "path")


def test_parameters_of_the_path_unless_replaced_and_ignored_headers() -> None:
    def query(name: str, **members: Any) -> dict[str, Any]:
        return {"name": name, "in": "query", "schema": {}} | members

    value = document(
        paths={
            "/{a}": {
                "parameters": [path_parameter("a"), {"$ref": "#/components/parameters/b"}, query("c")],
                "get": operation(
                    parameters=[
                        query("b", required=True),
                        query("c", **{"in": "header"}),
                        *(
                            query(name, **{"in": "header"})
                            for name in ("accept", "Content-Type", "AUTHORIZATION")
                        ),
                        query("Accept"),
                    ]
                ),
            }
        },
        components={"parameters": {"b": query("b")}},
    )
    found = compiled(value).parameters
    assert [(one.name, one.location, one.required) for one in found] == [
        ("a", "path", True),
        ("b", "query", True),
        ("c", "query", False),
        ("c", "header", False),
        ("Accept", "query", False),
    ]


def test_a_query_in_the_path_is_sent_and_nobody_chooses_it() -> None:
    value = with_operation(
        path="/{a}?beta=true&x=1&x=2&e=",
        parameters=[path_parameter("a"), {"name": "beta", "in": "query", "schema": {}}],
    )
    result = compiled(value)
    fixed: dict[str, Any] = {"required": True, "origin": FIXED, "displayed": False}
    assert result.path == "/{a}"
    assert result.parameters[1:] == (
        parameter(name="beta", schema={"type": "string", "const": "true", "default": "true"}, **fixed),
        parameter(name="x", schema={"type": "array", "const": ["1", "2"], "default": ["1", "2"]}, **fixed),
        parameter(name="e", schema={"type": "string", "const": "", "default": ""}, **fixed),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_with_its_media_types_and_encodings(version: str) -> None:
    body = {
        "description": "a pet",
        "required": True,
        "content": {
            "Application/JSON;charset=utf-8": {"schema": {"$ref": "#/components/schemas/Pet"}},
            "application/json": {"schema": {}},
            "a/b\r\nX-Evil: 1": {},
            "image/*": {},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}},
                "encoding": {
                    "photo": {
                        "contentType": "image/png, image/jpeg, x\r\ny",
                        "headers": {
                            "X-A": {"$ref": "#/components/headers/a"},
                            "content-type": {"schema": {}},
                            "Bad Name": {"schema": {}},
                        },
                    },
                    "tags": {"style": "pipeDelimited", "allowReserved": True},
                    "ids": {"explode": False},
                    "more": {"contentType": "\r\n"},
                },
            },
        },
    }
    value = with_operation(version, requestBody={"$ref": "#/components/requestBodies/pet"}) | {
        "components": {
            "requestBodies": {"pet": body},
            "schemas": {"Pet": {"type": "object"}},
            "headers": {"a": {"required": True, "schema": {"type": "string"}}},
        }
    }
    result = compiled(value)
    header = parameter(name="X-A", location="header", style="simple", explode=False, required=True,
                       schema={"type": "string"})  # fmt: skip
    assert result.body == RequestBody(
        required=True,
        description="a pet",
        contents=(
            Content("application/json", {"$ref": "#/$defs/Pet"}),
            Content("image/*", True),
            Content(
                "multipart/form-data",
                {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}},
                {
                    "photo": PropertyEncoding("image/png, image/jpeg", headers=(header,)),
                    "tags": PropertyEncoding(style="pipeDelimited", explode=False, allow_reserved=True),
                    "ids": PropertyEncoding(style="form", explode=False),
                    "more": PropertyEncoding(),
                },
            ),
        ),
    )
    assert result.definitions == {"Pet": {"type": "object"}}
    place = "/components/requestBodies/pet/content"
    assert result.warnings == (
        f"{place}/application~1json: differs from another media type in its parameters only",
        f"{place}/a~1b\r\nX-Evil: 1: is not a media type",
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_by_status(version: str) -> None:
    text: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    value = with_operation(
        version,
        responses={
            "200": {"description": "a", "content": text},
            "4XX": {"$ref": "#/components/responses/bad"},
            "204": {"description": "none"},
            "default": {"description": "else", "content": text},
            "x-note": {},
        },
    ) | {"components": {"responses": {"bad": {"description": "bad", "content": {"Text/Plain": {}}}}}}
    content = Content("text/plain", {"type": "string"})
    assert compiled(value).responses == (
        ResponseSpec("200", (content,), "a"),
        ResponseSpec("4XX", (Content("text/plain", True),), "bad"),
        ResponseSpec("204", (), "none"),
        ResponseSpec("default", (content,), "else"),
    )


SCHEMES: dict[str, Any] = {
    "header": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "api key"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "sid"},
    "evil": {"type": "apiKey", "in": "header", "name": "X\r\nY"},
    "basic": {"type": "http", "scheme": "Basic"},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "digest": {"type": "http", "scheme": "digest"},
    "client": {"type": "oauth2", "flows": {
        "authorizationCode": {"authorizationUrl": "https://a.example", "tokenUrl": "https://b.example", "scopes": {}},
        "clientCredentials": {"tokenUrl": "/oauth/token", "scopes": {"read": "", "write": ""}}}},
    "code": {"type": "oauth2", "flows": {"authorizationCode": {
        "authorizationUrl": "https://a.example", "tokenUrl": "https://b.example", "scopes": {}}}},
    "oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://a.example"},
    "again": {"$ref": "#/components/securitySchemes/bearer"},
}  # fmt: skip
COMPILED = {
    "header": SecurityScheme("header", "apiKey", "header", "X-Key"),
    "query": SecurityScheme("query", "apiKey", "query", "api key"),
    "cookie": SecurityScheme("cookie", "apiKey", "cookie", "sid"),
    "evil": SecurityScheme("evil", "unsupported"),
    "basic": SecurityScheme("basic", "http_basic"),
    "bearer": SecurityScheme("bearer", "http_bearer"),
    "digest": SecurityScheme("digest", "unsupported"),
    "client": SecurityScheme("client", "oauth2_client_credentials", scopes=("read", "write"),
                             token_url="https://pets.example.com/oauth/token"),
    "code": SecurityScheme("code", "unsupported"),
    "oidc": SecurityScheme("oidc", "unsupported"),
    "again": SecurityScheme("again", "http_bearer"),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCHEMES)
def test_a_security_scheme(version: str, name: str) -> None:
    value = with_operation(version, security=[{name: ["read"]}]) | {
        "components": {"securitySchemes": SCHEMES}
    }
    assert compiled(value).security == (Requirement(((COMPILED[name], ("read",)),)),)


def test_alternatives_of_security() -> None:
    components = {"components": {"securitySchemes": SCHEMES}}
    root = {"security": [{"basic": []}, {}, {"header": [], "bearer": ["a"]}]}
    both = ((COMPILED["header"], ()), (COMPILED["bearer"], ("a",)))
    expected = (Requirement(((COMPILED["basic"], ()),)), Requirement(), Requirement(both))
    assert compiled(document() | root | components).security == expected
    # What an operation says replaces what the document says, also where it says nothing.
    assert compiled(with_operation(security=[]) | root | components).security == ()
    assert compiled(with_operation(security=[{}]) | root | components).security == (Requirement(),)


def test_the_nearest_server() -> None:
    def server(url: str) -> dict[str, Any]:
        return {"servers": [{"url": url}, {"url": "https://other.example"}]}

    own, path, root = (
        server("https://own.example/"),
        server("https://path.example"),
        server("https://root.example/a/"),
    )
    item = {**path, "get": operation(**own), "put": operation(operationId="put")}
    value = document(paths={"/a": item, "/b": {"get": operation(operationId="b")}}, **root)
    assert compiled(value).server_url == "https://own.example"
    assert compiled(value, "put").server_url == "https://path.example"
    assert compiled(value, "b").server_url == "https://root.example/a"


def test_texts_of_the_path_where_the_operation_has_none() -> None:
    item = {"summary": "s", "description": "d", "get": operation(), "put": operation(
        operationId="put", summary="own", description="mine", deprecated=True, tags=["t"])}  # fmt: skip
    value = document(paths={"/a": item})
    first, second = compiled(value), compiled(value, "put")
    assert (first.summary, first.description, first.deprecated, first.tags) == ("s", "d", False, ())
    assert (second.summary, second.description, second.deprecated, second.tags) == (
        "own",
        "mine",
        True,
        ("t",),
    )


def test_references_to_places_within_operations() -> None:
    value = document(
        paths={
            "/{a}": {
                "parameters": [path_parameter("a")],
                "get": operation(
                    parameters=[{"$ref": "#/paths/~1%7Ba%7D/put/parameters/0"}],
                    responses={"200": {"$ref": "#/paths/~1%7Ba%7D/put/responses/200"}},
                ),
                "put": operation(
                    operationId="put",
                    parameters=[{"name": "q", "in": "query", "schema": {"type": "integer"}}],
                    responses={
                        "200": {
                            "description": "own",
                            "content": {"text/plain": {"schema": {
                                "$ref": "#/paths/~1%7Ba%7D/put/parameters/0/schema"}}},
                        }
                    },
                ),
            }
        }
    )  # fmt: skip
    result = compiled(value)
    name = definition_name("/paths/~1{a}/put/parameters/0/schema")
    assert result.parameters[1] == parameter(name="q", schema={"type": "integer"})
    assert result.responses[0].contents == (Content("text/plain", {"$ref": f"#/$defs/{name}"}),)
    assert result.definitions == {name: {"type": "integer"}}


def large(operations: int) -> dict[str, Any]:
    """Operations that share a family of schemas which refer to each other."""
    pets: dict[str, Any] = {
        f"Pet{n}": {"type": "object", "properties": {
            "next": {"$ref": f"#/components/schemas/Pet{(n + 1) % 50}"}, "name": {"type": "string"}}}
        for n in range(50)
    }  # fmt: skip
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Pet0"}}}
    return document(
        paths={
            f"/p{n}": {
                "get": operation(
                    operationId=f"o{n}", responses={"200": {"description": "", "content": content}}
                )
            }
            for n in range(operations)
        },
        components={"schemas": pets},
    )


def test_definitions_are_converted_once_for_all_operations() -> None:
    one = Document(large(200))
    before = one.weight
    first = compile_operation(one, "o0")
    after = one.weight
    rest = [compile_operation(one, f"o{n}") for n in range(1, 200)]
    assert before < after == one.weight
    assert len(first.definitions) == 50
    assert all(
        other.definitions[name] is first.definitions[name] for other in rest for name in first.definitions
    )


def test_threads_share_a_document() -> None:
    one = Document(large(40))
    names = [f"o{n}" for n in range(40)] * 5
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda name: compile_operation(one, name), names))
    alone = [compile_operation(Document(large(40)), name) for name in names[:3]]
    assert results[:3] == alone
    assert [result.operation_id for result in results] == names


def test_json_and_yaml_compile_to_the_same() -> None:
    text = """
    openapi: 3.0.3
    info: {title: Pets, version: "1"}
    servers: [{url: https://pets.example.com/v1}]
    paths:
      /pets/{id}:
        get:
          operationId: getPet
          parameters: [{name: id, in: path, required: true, schema: {type: string, enum: [on, off, yes]}}]
          responses:
            200: {description: ok}
    """
    value = parse_document(text)
    assert check_document(value) == []
    result = compile_operation(Document(value), "getPet")
    assert result.parameters[0].schema == {"type": "string", "enum": ["on", "off", "yes"]}
    assert result.responses[0].status == "200"
