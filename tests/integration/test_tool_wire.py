"""What a call of a tool looks like on the wire: the whole request, compared byte by byte with tables made by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.corpus import wire_bodies, wire_parameters
from tests.corpus.wire_parameters import Case, Refused
from tests.http import Response
from tests.tool_world import World, raw_reply, world

NOTHING = raw_reply(b"", 204)


def expected(
    world: World, method: str, target: str, *lines: str, accept: str = "*/*", body: bytes | None = None
) -> bytes:
    """Return a whole request: ours first (RFC 9110, 7.2: Host ahead of all), then the operation's."""
    length = [f"Content-Length: {len(body)}"] if body is not None else []
    head = [
        f"{method} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{world.port}",
        "Accept-Encoding: gzip",
        "Connection: close",
        "User-Agent: hotplug/0.1.0",
        *length,
        f"Accept: {accept}",
        *lines,
    ]
    return "".join(f"{line}\r\n" for line in head).encode("latin-1") + b"\r\n" + (body or b"")


def described(version: str, url: str, paths: dict[str, Any], **components: Any) -> dict[str, Any]:
    return {
        "openapi": version,
        "info": {"title": "Wire", "version": "1"},
        "servers": [{"url": url}],
        "paths": paths,
        "components": components,
    }


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose server answers 204; what it was asked is taken out by whoever asked."""
    folder = tmp_path_factory.mktemp("wire")
    with world(f"sqlite:///{folder}/hotplug.db", folder, NOTHING) as made:
        yield made


def sent(world: World, tool: str, operation: str, **arguments: Any) -> tuple[Response, bytes | None]:
    """Call an operation; return the answer and what arrived, None where nothing did."""
    before = world.server.connections
    answer = world.run(tool, operation, **arguments)
    assert world.server.connections - before == len(world.server.requests) <= 1
    return answer, world.server.requests.pop() if world.server.requests else None


# -- parameters ----------------------------------------------------------------------------------------------------


def of_cases(cases: tuple[Case, ...]) -> dict[str, Any]:
    return {
        case.path: {
            "get": {
                "operationId": case.id,
                "parameters": [case.declared],
                "responses": {"204": {"description": "none"}},
            }
        }
        for case in cases
    }


@pytest.fixture(scope="module", params=["3.1 as JSON", "3.0 as YAML"])
def tool(request: pytest.FixtureRequest, wire: World) -> str:
    """A tool of all cases."""
    paths = of_cases(wire_parameters.CASES)
    if request.param == "3.1 as JSON":
        return wire.register(described("3.1.0", wire.url, paths))
    return wire.register(yaml.safe_dump(described("3.0.3", wire.url, paths), allow_unicode=True))


@pytest.mark.parametrize("case", wire_parameters.CASES, ids=lambda case: case.id)
def test_a_parameter_on_the_wire(wire: World, tool: str, case: Case) -> None:
    answer, request = sent(wire, tool, case.id, **{case.location: {"color": case.value}})
    if isinstance(case.sent, Refused):
        assert (answer.status, request) == (422, None), answer.body
        assert case.sent.rule in {one["rule"] for one in answer.json["errors"]}
        return
    assert answer.status == 200, answer.body
    target, lines = f"/{case.id}", []
    if case.sent is not None and case.location == "path":
        target += f"/{case.sent}"
    elif case.sent is not None and case.location == "query":
        target += case.sent
    elif case.sent is not None:
        lines = [case.sent]
    assert request == expected(wire, "GET", target, *lines)


def test_every_style_has_every_kind_of_value_in_every_location() -> None:
    ids = {case.id for case in wire_parameters.CASES}
    assert len(ids) == len(wire_parameters.CASES)
    styles = {
        "path": ("simple", "label", "matrix"),
        "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
        "header": ("simple",),
        "cookie": ("form",),
    }
    kinds = ("empty", "string", "array", "object", "empty-array", "empty-object")
    assert ids >= {
        f"{location}-{style}-{explode}-{kind}"
        for location, those in styles.items()
        for style in those
        for explode in ("true", "false")
        for kind in kinds
    }


# -- bodies --------------------------------------------------------------------------------------------------------

BOUNDARY = "hotplug-" + "0" * 32


def settled(request: bytes | None) -> bytes | None:
    """Return the request with a boundary that tests can foresee, as long as the one that was drawn."""
    return None if request is None else re.sub(rb"hotplug-[0-9a-f]{32}", BOUNDARY.encode(), request)


@pytest.fixture(scope="module", params=wire_bodies.BOTH)
def body_tool(request: pytest.FixtureRequest, wire: World) -> tuple[str, str]:
    """(OpenAPI version, a tool of all cases)."""
    paths = {
        f"/{case.id}": {
            "post": {
                "operationId": case.id,
                "requestBody": {"content": case.content},
                "responses": {"204": {"description": "none"}},
            }
        }
        for case in wire_bodies.CASES
        if request.param in case.versions
    }
    return request.param, wire.register(described(request.param, wire.url, paths))


@pytest.mark.parametrize("case", wire_bodies.CASES, ids=lambda case: case.id)
def test_a_body_on_the_wire(wire: World, body_tool: tuple[str, str], case: wire_bodies.Case) -> None:
    version, tool = body_tool
    if version not in case.versions:
        return
    named = {} if case.content_type is None else {"contentType": case.content_type}
    answer, request = sent(wire, tool, case.id, body=case.value, **named)
    if case.sent_type is None:
        assert (answer.status, request) == (422, None), answer.body
        assert case.sent in {one["rule"] for one in answer.json["errors"]}
        return
    assert answer.status == 200, answer.body
    assert isinstance(case.sent, bytes)
    body = case.sent.replace(b"{boundary}", BOUNDARY.encode())
    line = f"Content-Type: {case.sent_type.replace('{boundary}', BOUNDARY)}"
    assert settled(request) == expected(wire, "POST", f"/{case.id}", line, body=body)


def test_two_multipart_bodies_have_two_boundaries(wire: World) -> None:
    content = {"multipart/form-data": {"schema": {"type": "object"}}}
    operation = {
        "operationId": "op",
        "requestBody": {"content": content},
        "responses": {"204": {"description": ""}},
    }
    tool = wire.register(described("3.1.0", wire.url, {"/op": {"post": operation}}))
    drawn = {
        re.findall(rb"boundary=(\S+)", sent(wire, tool, "op", body={"a": "x"})[1] or b"")[0] for _ in range(2)
    }
    assert len(drawn) == 2


# -- everything together -------------------------------------------------------------------------------------------


def parameter(name: str, location: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": location,
        "schema": {},
        **({"required": True} if location == "path" else {}),
        **more,
    }


TOGETHER: dict[str, Any] = {
    "/a/{one}/b/{two}.{three};v=1": {
        "parameters": [
            {"$ref": "#/components/parameters/One"},
            parameter("two", "path", style="matrix"),
            parameter("three", "path"),
            parameter("shared", "query", schema={"type": "integer"}),
            parameter("X-Shared", "header"),
        ],
        "put": {
            "operationId": "all",
            "parameters": [
                # The operation's own takes the place of the path's (OpenAPI 3.1, 4.8.9).
                parameter("shared", "query", schema={"type": "string"}),
                {"$ref": "#/components/parameters/Defaulted"},
                parameter("fixed", "query", **{"x-from": 2, "schema": {"default": "always"}}),
                parameter("c", "cookie"),
                # Of these three a parameter is ignored (OpenAPI 3.1, 4.8.12.1).
                parameter("Accept", "header"),
                parameter("Content-Type", "header"),
                parameter("Authorization", "header"),
            ],
            "requestBody": {"$ref": "#/components/requestBodies/Pet"},
            "responses": {"204": {"$ref": "#/components/responses/None"}},
        },
    },
    "/messages?beta=true&v=a%20b": {
        "post": {"operationId": "fixedQuery", "responses": {"204": {"description": "none"}}}
    },
    "/sp ecial".replace(" ", "%20") + "ä/{id}": {
        "delete": {
            "operationId": "literal",
            "parameters": [parameter("id", "path")],
            "responses": {"204": {"description": "none"}},
        }
    },
    "/accepts": {
        "get": {
            "operationId": "accepts",
            "responses": {
                "200": {"description": "", "content": {"text/csv": {}, "application/json": {}}},
                "2XX": {"description": "", "content": {"application/vnd.x+json; v=1": {}, "text/csv": {}}},
                "404": {"description": "", "content": {"text/html": {}}},
                "default": {"description": "", "content": {"image/*": {}}},
            },
        }
    },
}
COMPONENTS: dict[str, Any] = {
    "parameters": {
        "One": parameter("one", "path", schema={"$ref": "#/components/schemas/Text"}),
        "Defaulted": parameter("limit", "query", schema={"type": "integer", "default": 20}),
    },
    "requestBodies": {
        "Pet": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
        }
    },
    "responses": {"None": {"description": "none"}},
    "schemas": {
        "Text": {"type": "string"},
        "Pet": {
            "type": "object",
            "properties": {
                "name": {"$ref": "#/components/schemas/Text"},
                "kind": {"type": "string", "default": "cat"},
                "source": {"type": "string", "default": "hotplug", "x-from": 2},
                "id": {"type": "integer", "readOnly": True},
                "friend": {"$ref": "#/components/schemas/Pet"},
            },
        },
    },
}


@pytest.fixture(scope="module", params=["3.1.0", "3.0.3"])
def whole(request: pytest.FixtureRequest, wire: World) -> str:
    """A tool of everything that a document may say elsewhere, registered as YAML, at a server with a path."""
    document = described(request.param, f"{{scheme}}://127.0.0.1:{wire.port}/v1/", TOGETHER, **COMPONENTS)
    document["servers"][0]["variables"] = {"scheme": {"default": "http", "enum": ["http", "https"]}}
    return wire.register(yaml.safe_dump(document, allow_unicode=True))


def test_parameters_of_paths_references_defaults_and_fixed_values(wire: World, whole: str) -> None:
    answer, request = sent(
        wire,
        whole,
        "all",
        path={"one": "x/y", "two": ["p", "q"], "three": 3},
        query={"shared": "text"},
        header={"x-shared": "s"},
        cookie={"c": "d"},
        body={"name": "Tom", "id": 7, "friend": {"name": "Kim"}},
    )
    assert answer.status == 200, answer.body
    target = "/v1/a/x%2Fy/b/;two=p,q.3;v=1?shared=text&limit=20&fixed=always"
    body = b'{"name":"Tom","friend":{"name":"Kim","kind":"cat","source":"hotplug"},"kind":"cat","source":"hotplug"}'
    lines = ("X-Shared: s", "Content-Type: application/json", "Cookie: c=d")
    assert request == expected(wire, "PUT", target, *lines, body=body)


@pytest.mark.parametrize(
    ("arguments", "pointer", "rule"),
    [
        ({"query": {"fixed": "other"}}, "/query/fixed", "argument.fixed"),
        ({"body": {"source": "other"}}, "/body/source", "argument.fixed"),
        ({"body": {"friend": {"source": "other"}}}, "/body/friend/source", "argument.fixed"),
        ({"header": {"Accept": "x"}}, "/header/Accept", "argument.reserved_header"),
        ({"header": {"authorization": "x"}}, "/header/authorization", "argument.reserved_header"),
        ({"header": {"Host": "evil.example"}}, "/header/Host", "argument.reserved_header"),
        ({"header": {"X-Shared": "1", "x-shared": "2"}}, "/header/x-shared", "argument.twice"),
        ({"query": {"other": 1}}, "/query/other", "argument.unknown"),
    ],
)
def test_what_is_not_the_callers_to_say(
    wire: World, whole: str, arguments: dict[str, Any], pointer: str, rule: str
) -> None:
    good = {"path": {"one": "x", "two": 1, "three": 2}, "body": {}}
    answer, request = sent(wire, whole, "all", **{**good, **arguments})
    assert (answer.status, request) == (422, None)
    assert (pointer, rule) in {(one["pointer"], one["rule"]) for one in answer.json["errors"]}


def test_a_query_in_the_path_is_always_sent(wire: World, whole: str) -> None:
    _, request = sent(wire, whole, "fixedQuery")
    assert request == expected(wire, "POST", "/v1/messages?beta=true&v=a%20b", body=b"")
    refused, request = sent(wire, whole, "fixedQuery", query={"beta": "false"})
    assert (refused.status, request) == (422, None)


def test_what_the_path_says_itself_is_encoded_once(wire: World, whole: str) -> None:
    _, request = sent(wire, whole, "literal", path={"id": "%20"})
    assert request == expected(wire, "DELETE", "/v1/sp%20ecial%C3%A4/%2520")


def test_the_types_of_success_are_accepted_json_first(wire: World, whole: str) -> None:
    # The server's 204 is described by 2XX, whose bodies are for other statuses.
    _, request = sent(wire, whole, "accepts")
    accept = "application/json, application/vnd.x+json, text/csv, image/*"
    assert request == expected(wire, "GET", "/v1/accepts", accept=accept)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("with_body", [True, False])
def test_methods_with_and_without_a_body(wire: World, method: str, with_body: bool) -> None:
    operation = {
        "operationId": "op",
        "requestBody": {"content": {"application/json": {}}},
        "responses": {"204": {"description": "none"}},
    }
    tool = wire.register(described("3.1.0", wire.url, {"/op": {method.lower(): operation}}))
    _, request = sent(wire, tool, "op", **({"body": [1]} if with_body else {}))
    if with_body:
        line = "Content-Type: application/json"
        assert request == expected(wire, method, "/op", line, body=b"[1]")
    else:
        # RFC 9110, 8.6: where a body would mean something, its absence is said.
        said = b"" if method in ("POST", "PUT", "PATCH") else None
        assert request == expected(wire, method, "/op", body=said)
