"""OpenAPI documents: a small good one, and one for each way to be refused, with exactly what is told."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
GET = "/paths/~1pets/get"
OK: Json = {"200": {"description": "fine"}}


@dataclass(frozen=True)
class Bad:
    """A document that `check_document` refuses, with all (pointer, rule) of its answer."""

    name: str
    document: Json
    expected: tuple[tuple[str, str], ...]


def document(version: str = "3.1.0", **members: Any) -> Json:
    """The smallest good document, with members set (or, by `...`, left out)."""
    base: Json = {
        "openapi": version,
        "info": {"title": "Pets", "version": "1"},
        "servers": [{"url": "https://pets.example.com/v1"}],
        "paths": {"/pets": {"get": operation()}},
    }
    return {name: value for name, value in (base | members).items() if value is not ...}


def operation(**members: Any) -> Json:
    base: Json = {"operationId": "listPets", "responses": OK}
    return copy.deepcopy({name: value for name, value in (base | members).items() if value is not ...})


def with_operation(version: str = "3.1.0", path: str = "/pets", **members: Any) -> Json:
    return document(version, paths={path: {"get": operation(**members)}})


def with_schema(schema: Any, version: str = "3.1.0", **others: Any) -> Json:
    return document(version, components={"schemas": {"Pet": schema, **others}})


def with_parameter(version: str = "3.1.0", **members: Any) -> Json:
    base: Json = {"name": "a", "in": "query", "schema": {}}
    return with_operation(version, parameters=[{k: v for k, v in (base | members).items() if v is not ...}])


def with_server(url: str, **members: Any) -> Json:
    return document(servers=[{"url": url, **members}])


def path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def deep_chain(length: int, section: str) -> Json:
    return {f"c{n}": {"$ref": f"#/components/{section}/c{n + 1}"} for n in range(length)}


def bad(name: str, value: Json, *expected: tuple[str, str]) -> Bad:
    return Bad(name, value, expected)


STRUCTURE = "openapi.structure"
PARAMETER = f"{GET}/parameters/0"
PET = "/components/schemas/Pet"
SERVER = "/servers/0"

VERSIONS = [
    bad("no version", document(openapi=...), ("", "openapi.version")),
    bad("swagger", {"swagger": "2.0", "info": {}, "paths": {}}, ("", "openapi.version")),
    bad("version 2", document("2.0.0"), ("/openapi", "openapi.version")),
    bad("version 3.2", document("3.2.0"), ("/openapi", "openapi.version")),
    bad("version as a number", document(openapi=3.1), ("/openapi", "openapi.version")),
    bad("version of two parts", document("3.1"), ("/openapi", "openapi.version")),
    bad("no version 3.10", document("3.10.0"), ("/openapi", "openapi.version")),
]
STRUCTURES = [
    bad("no info", document(info=...), ("", STRUCTURE)),
    bad("no info in 3.0", document("3.0.3", info=...), ("", STRUCTURE)),
    bad("no title", document(info={"version": "1"}), ("/info", STRUCTURE)),
    bad(
        "version of the API as a number",
        document(info={"title": "", "version": 1.0}),
        ("/info/version", STRUCTURE),
    ),
    bad("paths as a list", document(paths=[]), ("/paths", STRUCTURE), ("/paths", "openapi.no_operation")),
    bad("unknown member", document(hosts=[]), ("", STRUCTURE)),
    bad("unknown member in 3.0", document("3.0.3", hosts=[]), ("", STRUCTURE)),
    bad(
        "operation as text",
        document(paths={"/pets": {"get": "x"}}),
        (GET, STRUCTURE),
        ("/paths", "openapi.no_operation"),
    ),
    bad("no responses in 3.0", with_operation("3.0.3", responses=...), (GET, STRUCTURE)),
    bad(
        "response without description",
        with_operation(responses={"200": {}}),
        (f"{GET}/responses/200", STRUCTURE),
    ),
    bad(
        "a status that is none",
        with_operation(responses={"2000": OK["200"]}),
        (f"{GET}/responses", STRUCTURE),
        (f"{GET}/responses", STRUCTURE),
    ),
    bad("body without content", with_operation(requestBody={}), (f"{GET}/requestBody", STRUCTURE)),
    bad(
        "parameter without schema", with_parameter(schema=...), (PARAMETER, STRUCTURE), (PARAMETER, STRUCTURE)
    ),
    bad("parameter in the body", with_parameter(**{"in": "body"}), (f"{PARAMETER}/in", STRUCTURE)),
    bad("parameter without a name", with_parameter(name=...), (PARAMETER, STRUCTURE)),
    bad(
        "component's name", document(components={"schemas": {"a b": {}}}), ("/components/schemas", STRUCTURE)
    ),
    bad(
        "type that is none",
        with_schema({"type": "strng"}),
        (f"{PET}/type", STRUCTURE),
        (f"{PET}/type", STRUCTURE),
    ),
    bad("type that is none in 3.0", with_schema({"type": "strng"}, "3.0.3"), (f"{PET}/type", STRUCTURE)),
    bad("negative length", with_schema({"maxLength": -1}), (f"{PET}/maxLength", STRUCTURE)),
    bad("properties as a list", with_schema({"properties": ["a"]}), (f"{PET}/properties", STRUCTURE)),
    bad("3.1 keyword in 3.0", with_schema({"const": 1}, "3.0.3"), (PET, STRUCTURE)),
    bad(
        "two faults in a nested schema",
        with_schema({"items": {"properties": {"a": {"minimum": "1"}, "b": {"required": "x"}}}}),
        (f"{PET}/items/properties/a/minimum", STRUCTURE),
        (f"{PET}/items/properties/b/required", STRUCTURE),
    ),
    bad(
        "two faults in a nested schema of 3.0",
        with_schema({"items": {"properties": {"a": {"minimum": "1"}, "b": {"required": "x"}}}}, "3.0.3"),
        (f"{PET}/items/properties/a/minimum", STRUCTURE),
        (f"{PET}/items/properties/b/required", STRUCTURE),
    ),
    bad(
        "a security scheme of no type",
        document(components={"securitySchemes": {"key": {"type": "magic"}}}),
        ("/components/securitySchemes/key/type", STRUCTURE),
    ),
]
SERVERS = [
    bad("no servers", document(servers=...), ("/servers", "openapi.server_missing")),
    bad("empty servers", document(servers=[]), ("/servers", "openapi.server_missing")),
    bad("relative server", with_server("/v1"), (f"{SERVER}/url", "openapi.server_url")),
    bad("server without scheme", with_server("pets.example.com"), (f"{SERVER}/url", "openapi.server_url")),
    bad(
        "server of another scheme",
        with_server("ftp://pets.example.com"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad("file server", with_server("file:///etc/passwd"), (f"{SERVER}/url", "openapi.server_url")),
    bad("server without host", with_server("https:///v1"), (f"{SERVER}/url", "openapi.server_url")),
    bad(
        "server with credentials",
        with_server("https://u:p@pets.example.com"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server with a query",
        with_server("https://pets.example.com?a=1"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server with a fragment",
        with_server("https://pets.example.com/#"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server with a backslash",
        with_server("https://a.example\\@b.example"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server with a line feed",
        with_server("https://a.example/\nx"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    *(
        bad(f"server {number} with two readings", with_server(url), (f"{SERVER}/url", "openapi.server_url"))
        for number, url in enumerate(
            (
                "https://0177.0.0.1",
                "https://127.1",
                "https://a.example.",
                "https://a.example/%zz",
                "https://bücher.example",
            )
        )
    ),
    bad("server with port 0", with_server("https://a.example:0"), (f"{SERVER}/url", "openapi.server_url")),
    bad(
        "server with a port that is none",
        with_server("https://a.example:99999"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server that is too long",
        with_server("https://a.example/" + "x" * 2048),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "server with a lonely brace",
        with_server("https://{a.example"),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "variable not described", with_server("https://{host}/"), (f"{SERVER}/url", "openapi.server_variable")
    ),
    bad(
        "variable without default",
        with_server("https://{host}/", variables={"host": {"enum": ["a"]}}),
        (f"{SERVER}/variables/host", STRUCTURE),
        (f"{SERVER}/variables/host", "openapi.server_variable"),
    ),
    bad(
        "default that is no value",
        with_server("https://{host}/", variables={"host": {"default": "a", "enum": ["b"]}}),
        (f"{SERVER}/variables/host/default", "openapi.server_variable"),
    ),
    bad(
        "variable that makes it relative",
        with_server("{base}/v1", variables={"base": {"default": "/api"}}),
        (f"{SERVER}/url", "openapi.server_url"),
    ),
    bad(
        "second server",
        document(servers=[{"url": "https://a.example"}, {"url": "/"}]),
        ("/servers/1/url", "openapi.server_url"),
    ),
    bad(
        "server of a path",
        document(paths={"/pets": {"servers": [{"url": "/"}], "get": operation()}}),
        ("/paths/~1pets/servers/0/url", "openapi.server_url"),
    ),
    bad(
        "server of an operation",
        with_operation(servers=[{"url": "/"}]),
        (f"{GET}/servers/0/url", "openapi.server_url"),
    ),
]
OPERATIONS = [
    bad("no operation", document(paths={}), ("/paths", "openapi.no_operation")),
    bad("only webhooks", document(paths=..., webhooks={"a": {"get": operation()}}), ("/paths", "openapi.no_operation")),
    bad("no operationId", with_operation(operationId=...), (GET, "openapi.operation_id_missing")),
    bad("empty operationId", with_operation(operationId=""), (GET, "openapi.operation_id_missing")),
    bad("long operationId", with_operation(operationId="x" * 129), (f"{GET}/operationId", "openapi.operation_id")),
    bad("operationId of two lines", with_operation(operationId="a\nb"), (f"{GET}/operationId", "openapi.operation_id")),
    bad(
        "operationId twice",
        document(paths={"/pets": {"get": operation(), "put": operation()}}),
        ("/paths/~1pets/put/operationId", "openapi.operation_id_duplicate"),
    ),
    bad(
        "one path item at two paths",
        document(paths={"/pets": {"get": operation()}, "/cats": {"$ref": "#/paths/~1pets"}}),
        (f"{GET}/operationId", "openapi.operation_id_duplicate"),
    ),
    bad(
        "two thousand and one operations",
        document(paths={f"/{n}": {"get": operation(operationId=f"o{n}")} for n in range(2001)}),
        ("/paths", "openapi.too_large"),
    ),
    bad(
        "security scheme that is not there",
        with_operation(security=[{"key": []}]),
        (f"{GET}/security/0/key", "openapi.security_unknown"),
    ),
    bad("security of all that is not there", document(security=[{"a": [], "b": []}]),
        ("/security/0/a", "openapi.security_unknown"), ("/security/0/b", "openapi.security_unknown")),
    bad(
        "token URL of another scheme",
        document(components={"securitySchemes": {"o": {"type": "oauth2", "flows": {
            "clientCredentials": {"tokenUrl": "ftp://a.example/token", "scopes": {}}}}}}),
        ("/components/securitySchemes/o/flows/clientCredentials/tokenUrl", "openapi.token_url"),
    ),
]  # fmt: skip


def at_path(path: str, *names: str) -> Json:
    return with_operation(path=path, parameters=[path_parameter(name) for name in names])


PATHS = [
    bad("path without slash", at_path("pets"), ("/paths", STRUCTURE), ("/paths/pets", "openapi.path")),
    bad("path with a blank", at_path("/a b"), ("/paths/~1a b", "openapi.path")),
    bad("path with a line feed", at_path("/a\nb"), ("/paths/~1a\nb", "openapi.path")),
    bad("path with a backslash", at_path("/a\\b"), ("/paths/~1a\\b", "openapi.path")),
    bad("path with a fragment", at_path("/a#b"), ("/paths/~1a#b", "openapi.path")),
    bad("path that climbs", at_path("/a/../b"), ("/paths/~1a~1..~1b", "openapi.path")),
    bad("path of great length", at_path("/" + "a" * 1024), ("/paths/~1" + "a" * 1024, "openapi.path")),
    bad("brace that is not closed", at_path("/{a"), ("/paths/~1{a", "openapi.path")),
    bad("braces in braces", at_path("/{{a}}", "a"), ("/paths/~1{{a}}", "openapi.path")),
    bad("placeholder without name", at_path("/{}"), ("/paths/~1{}", "openapi.path")),
    bad("placeholder twice", at_path("/{a}/{a}", "a"), ("/paths/~1{a}~1{a}", "openapi.path")),
    bad("placeholder in a query", at_path("/a?b={c}"), ("/paths/~1a?b={c}", "openapi.path")),
    bad("placeholder not declared", at_path("/{a}{b}", "a"), ("/paths/~1{a}{b}/get", "openapi.path_parameter_missing")),
    bad("parameter without placeholder", at_path("/pets", "a"), (PARAMETER, "openapi.path_parameter_unknown")),
    bad(
        "same path with other names",
        document(paths={
            "/{a}": {"get": operation(parameters=[path_parameter("a")])},
            "/{b}": {"get": operation(operationId="other", parameters=[path_parameter("b")])},
        }),
        ("/paths/~1{b}/get", "openapi.path_duplicate"),
    ),
]  # fmt: skip
PARAMETERS = [
    bad("parameter twice", with_operation(parameters=[{"name": "a", "in": "query", "schema": {}}] * 2),
        (f"{GET}/parameters/1", "openapi.parameter_duplicate")),
    bad("header twice", with_operation(parameters=[
        {"name": "X-A", "in": "header", "schema": {}}, {"name": "x-a", "in": "header", "schema": {}}]),
        (f"{GET}/parameters/1", "openapi.parameter_duplicate")),
    bad(
        "parameter twice by reference",
        document(
            paths={"/pets": {"get": operation(parameters=[
                {"$ref": "#/components/parameters/a"}, {"name": "a", "in": "query", "schema": {}}])}},
            components={"parameters": {"a": {"name": "a", "in": "query", "schema": {}}}},
        ),
        (f"{GET}/parameters/1", "openapi.parameter_duplicate"),
    ),
    bad("parameter twice at a path", document(paths={"/pets": {
        "parameters": [{"name": "a", "in": "query", "schema": {}}] * 2, "get": operation()}}),
        ("/paths/~1pets/parameters/1", "openapi.parameter_duplicate")),
    bad("too many parameters", with_operation(parameters=[
        {"name": f"p{n}", "in": "query", "schema": {}} for n in range(1001)]),
        (f"{GET}/parameters", "openapi.too_large")),
    bad("header with a line feed", with_parameter(name="a\r\nb", **{"in": "header"}),
        (f"{PARAMETER}/name", "openapi.parameter_name")),
    bad("cookie with a separator", with_parameter(name="a;b", **{"in": "cookie"}),
        (f"{PARAMETER}/name", "openapi.parameter_name")),
    bad("query with a control character", with_parameter(name="a\x00"),
        (f"{PARAMETER}/name", "openapi.parameter_name")),
    bad("parameter with a long name", with_parameter(name="a" * 257), (f"{PARAMETER}/name", "openapi.parameter_name")),
    bad("style of another location", with_parameter(style="matrix"),
        (f"{PARAMETER}/style", STRUCTURE), (f"{PARAMETER}/style", "openapi.parameter_style")),
    bad("deepObject in a header", with_parameter(style="deepObject", **{"in": "header"}),
        (f"{PARAMETER}/style", STRUCTURE), (f"{PARAMETER}/style", "openapi.parameter_style")),
    bad("path parameter not required", with_operation(path="/{a}", parameters=[
        {"name": "a", "in": "path", "schema": {}}]),
        ("/paths/~1{a}/get/parameters/0", STRUCTURE),
        ("/paths/~1{a}/get/parameters/0", "openapi.parameter_required")),
    bad("x-from that is none", with_parameter(**{"x-from": 3}), (f"{PARAMETER}/x-from", "openapi.x_from")),
    bad("x-from as a boolean", with_parameter(**{"x-from": True}), (f"{PARAMETER}/x-from", "openapi.x_from")),
    bad("x-from of a property", with_schema({"properties": {"a": {"x-from": "1"}}}),
        (f"{PET}/properties/a/x-from", "openapi.x_from")),
    bad("x-display as text", with_parameter(schema={"x-display": "no"}),
        (f"{PARAMETER}/schema/x-display", "openapi.x_display")),
]  # fmt: skip
REF = f"{PET}/$ref"
REFERENCES = [
    bad("remote reference", with_schema({"$ref": "https://evil.example/x.json"}), (REF, "openapi.remote_reference")),
    bad("reference to a file", with_schema({"$ref": "pet.yaml#/Pet"}), (REF, "openapi.remote_reference")),
    bad("reference to the machine", with_schema({"$ref": "file:///etc/passwd"}), (REF, "openapi.remote_reference")),
    bad("remote reference of a path", document(paths={"/a": {"$ref": "http://169.254.169.254/"}}),
        ("/paths", "openapi.no_operation"), ("/paths/~1a/$ref", "openapi.remote_reference")),
    bad("remote reference of a parameter", with_operation(parameters=[{"$ref": "//evil.example/p"}]),
        (f"{PARAMETER}/$ref", "openapi.remote_reference")),
    bad("remote reference of an example", with_operation(responses={"200": {"description": "", "content": {
        "text/plain": {"examples": {"a": {"$ref": "./a.json"}}}}}}),
        (f"{GET}/responses/200/content/text~1plain/examples/a/$ref", "openapi.remote_reference")),
    bad("reference by anchor", with_schema({"$ref": "#pet"}), (REF, "openapi.reference_anchor")),
    bad("dangling reference", with_schema({"$ref": "#/components/schemas/None"}), (REF, "openapi.dangling_reference")),
    bad("dangling response", with_operation(responses={"200": {"$ref": "#/components/responses/None"}}),
        (f"{GET}/responses/200/$ref", "openapi.dangling_reference")),
    bad("dangling index", with_schema({"allOf": [{}], "items": {"$ref": "#/components/schemas/Pet/allOf/1"}}),
        (f"{PET}/items/$ref", "openapi.dangling_reference")),
    bad("schema that is a parameter", with_operation(parameters=[
        {"name": "a", "in": "query", "schema": {"$ref": "#/paths/~1pets/get/parameters/0"}}]),
        (f"{PARAMETER}/schema/$ref", "openapi.reference_kind")),
    bad("reference to text", with_schema({"$ref": "#/info/title"}), (REF, "openapi.reference_kind")),
    bad("reference into an extension", with_schema({"$ref": "#/x-schemas/a"}) | {"x-schemas": {"a": {}}},
        (REF, "openapi.reference_kind")),
    bad("reference to the document", with_schema({"$ref": "#"}), (REF, "openapi.reference_kind")),
    bad("reference to itself", with_schema({"$ref": "#/components/schemas/Pet"}), (PET, "openapi.reference_loop")),
    bad("circle of two", with_schema({"$ref": "#/components/schemas/B"}, B={"$ref": "#/components/schemas/Pet"}),
        (PET, "openapi.reference_loop")),
    bad("circle through allOf", with_schema({"allOf": [{"$ref": "#/components/schemas/Pet"}]}),
        (PET, "openapi.reference_loop")),
    bad("circle of parameters", document(components={"parameters": {
        "a": {"$ref": "#/components/parameters/b"}, "b": {"$ref": "#/components/parameters/a"}}}),
        ("/components/parameters/a/$ref", "openapi.reference_loop"),
        ("/components/parameters/b/$ref", "openapi.reference_loop")),
    bad("dialect of the document", document(jsonSchemaDialect="http://json-schema.org/draft-07/schema#"),
        ("/jsonSchemaDialect", "openapi.dialect")),
    bad("dialect of a schema", with_schema({"$schema": "http://json-schema.org/draft-07/schema#"}),
        (f"{PET}/$schema", "openapi.dialect")),
    bad("patterns of great size", with_schema({"properties": {
        f"p{n}": {"pattern": f"^[a-z]{{{1000 + n}}}$"} for n in range(60)}}),
        (f"{PET}/properties/p48", "openapi.too_large")),
]  # fmt: skip

BAD = [*VERSIONS, *STRUCTURES, *SERVERS, *OPERATIONS, *PATHS, *PARAMETERS, *REFERENCES]
