"""Server-side request forgery (CWE-918) through everything of tools that takes a URL: each vector is refused with its
code, and a listener proves that nothing was connected to.

`context.http` of plugins is driven through the same vectors by tests/unit/plugins/runtime/test_network.py.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.core import process
from tests.http import Response
from tests.internet import OK, A, Authority, Internet, client, header_of, redirect
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, INVALID, REDIRECTS, VECTORS, Vector
from tests.tool_world import TOOLS, World, raw_reply, reply, world

STATUS = {FORBIDDEN: 403, INVALID: 422}
# How a URL is refused before anything is called: as what it is, as a part of its document or its request, or as no JSON
# string (a lone surrogate).
EARLY = {INVALID, "tool.invalid_document", "tool.invalid_credentials", "request.invalid", "request.json"}
MCP = "/api/v1/mcp/servers"
CLIENT = {"clientId": "id", "clientSecret": "secret"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ssrf")
    with world(f"sqlite:///{folder}/hotplug.db", folder, reply("ok")) as running:
        yield running


@pytest.fixture
def trap(made: World) -> Iterator[Trap]:
    """A trap that everything of this process calls out through."""
    with Trap() as set_trap:
        process.use_http(set_trap.client())
        yield set_trap
        process.use_http(None)


def described(servers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    operation = {"operationId": "op", "responses": {"default": {"description": "any"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ssrf", "version": "1"},
        "servers": servers,
        "paths": {"/x": {"get": {**operation, **more.pop("operation", {})}, **more.pop("item", {})}},
        **more,
    }


GOOD = [{"url": "https://api.example"}]
# Each puts a URL where a document says what is called.
AS_SERVER: dict[str, Callable[[str], dict[str, Any]]] = {
    "servers": lambda url: described([{"url": url}]),
    "of the operation": lambda url: described(GOOD, operation={"servers": [{"url": url}]}),
    "of the path": lambda url: described(GOOD, item={"servers": [{"url": url}]}),
    "variable": lambda url: described([{"url": "{all}", "variables": {"all": {"default": url}}}]),
    "variable of the host": lambda url: described(
        [{"url": "http://{host}", "variables": {"host": {"default": url.removeprefix("http://")}}}]
    ),
}
# Without their scheme some of the others name a host like any other.
WITH_SCHEME = tuple(vector for vector in VECTORS if vector.url.startswith("http://"))


def judge(vectors: tuple[Vector, ...], attempt: Callable[[Vector], Response]) -> Counter[str]:
    """Try all vectors; return how many were refused with which code.

    `attempt` returns the refusal. A vector that is refused neither early nor with its own code fails.
    """
    wrong, counted = {}, Counter[str]()
    for vector in vectors:
        answer = attempt(vector)
        code = answer.json["code"] if answer.status >= 400 else "accepted"
        counted[code] += 1
        if (code, answer.status) != (vector.code, STATUS[vector.code]) and code not in EARLY:
            wrong[vector.id] = code
    assert not wrong
    return counted


@pytest.mark.parametrize("place", AS_SERVER)
def test_no_server_of_a_registered_tool_is_forbidden_ground(made: World, trap: Trap, place: str) -> None:
    def attempt(vector: Vector) -> Response:
        registered = made.client.post(TOOLS, {"name": "x", "openapi": AS_SERVER[place](vector.url)})
        return registered if registered.status != 201 else made.run(registered.json["toolId"], "op")

    counted = judge(WITH_SCHEME if place == "variable of the host" else VECTORS, attempt)
    trap.assert_untouched()
    assert counted[FORBIDDEN] >= 80, "the addresses themselves are only judged when they are called"


@pytest.mark.parametrize("place", AS_SERVER)
def test_no_server_of_a_document_to_debug_is_forbidden_ground(made: World, trap: Trap, place: str) -> None:
    def attempt(vector: Vector) -> Response:
        body = {"openapi": AS_SERVER[place](vector.url), "operationId": "op"}
        return made.client.post(f"{TOOLS}/debug", body)

    counted = judge(WITH_SCHEME if place == "variable of the host" else VECTORS, attempt)
    trap.assert_untouched()
    assert counted[FORBIDDEN] >= 80


def with_token_url(url: str) -> dict[str, Any]:
    flow = {"clientCredentials": {"tokenUrl": url, "scopes": {}}}
    schemes = {"oauth": {"type": "oauth2", "flows": flow}}
    operation = {"security": [{"oauth": []}]}
    return described(GOOD, operation=operation, components={"securitySchemes": schemes})


# A token URL may be relative to the server (OpenAPI 3.1, 4.6): these lead to the server itself, and one leads away.
RELATIVE = {"", "/", "127.0.0.1", "http"}
TOKEN_URLS = tuple(
    replace(vector, code=FORBIDDEN) if vector.url == "//127.0.0.1/" else vector
    for vector in VECTORS
    if vector.url not in RELATIVE
)


@pytest.mark.parametrize("how", ["run", "debug"])
def test_no_token_url_is_forbidden_ground(made: World, trap: Trap, how: str) -> None:
    def attempt(vector: Vector) -> Response:
        tool = with_token_url(vector.url)
        if how == "debug":
            body = {"openapi": tool, "operationId": "op", "credentials": {"oauth": CLIENT}}
            return made.client.post(f"{TOOLS}/debug", body)
        registered = made.client.post(TOOLS, {"name": "x", "openapi": tool})
        if registered.status != 201:
            return registered
        path = f"{TOOLS}/{registered.json['toolId']}"
        assert made.client.put(f"{path}/credentials", {"oauth": CLIENT}).status == 200
        return made.run(registered.json["toolId"], "op")

    counted = judge(TOKEN_URLS, attempt)
    trap.assert_untouched()
    assert counted[FORBIDDEN] >= 80


def test_no_mcp_server_is_forbidden_ground(made: World, trap: Trap) -> None:
    counted = judge(VECTORS, lambda vector: made.client.post(MCP, {"name": "x", "url": vector.url}))
    trap.assert_untouched()
    assert counted[FORBIDDEN] >= 80


def test_no_token_url_of_an_mcp_server_is_forbidden_ground(made: World, trap: Trap) -> None:
    def attempt(vector: Vector) -> Response:
        credentials = {"oauth2": {"tokenUrl": vector.url, **CLIENT}}
        return made.client.post(MCP, {"name": "x", "url": "https://mcp.example/", "credentials": credentials})

    counted = judge(VECTORS, attempt)
    trap.assert_untouched()
    assert counted[FORBIDDEN] >= 80


# -- redirects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["get", "head"])
def test_no_redirect_of_a_tools_server_leads_anywhere(
    made: World, trap: Trap, status: int, method: str
) -> None:
    parameter = {"name": "n", "in": "path", "required": True, "schema": {"type": "integer"}}
    operation = {
        "operationId": "op",
        "parameters": [parameter],
        "responses": {"default": {"description": ""}},
    }
    document = described([{"url": "http://start.example"}])
    document["paths"] = {f"/{status}/{{n}}": {method: operation}}
    tool = made.register(document)
    with trap.redirecting() as start:
        codes = {
            vector.id: made.run(tool, "op", path={"n": number}).json["code"]
            for number, vector in enumerate(REDIRECTS)
        }
        assert start.server.connections == len(REDIRECTS)
        trap.assert_untouched()
    assert codes == {vector.id: vector.code for vector in REDIRECTS}


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("entry", ["token URL", "MCP server", "MCP token URL", "POST"])
def test_no_redirect_of_what_is_posted_to_is_followed(
    made: World, trap: Trap, status: int, entry: str
) -> None:
    with trap.redirecting() as start:
        for number in range(0, len(REDIRECTS), 10):
            url = start.url(status, number)
            if entry == "token URL":
                body = {"openapi": with_token_url(url), "operationId": "op", "credentials": {"oauth": CLIENT}}
                answer = made.client.post(f"{TOOLS}/debug", body)
                assert (answer.status, answer.json["code"]) == (502, "tool.token_refused")
            elif entry == "POST":
                document = described([{"url": url}])
                document["paths"]["/x"] = {"post": document["paths"]["/x"]["get"]}
                # The path is part of the URL here: the server sees it at its end.
                document["servers"] = [{"url": f"http://start.example/{status}"}]
                document["paths"] = {f"/{number}": document["paths"]["/x"]}
                answer = made.client.post(f"{TOOLS}/debug", {"openapi": document, "operationId": "op"})
                assert (answer.status, answer.json["code"]) == (502, "tool.upstream_error")
                assert answer.json["upstream"]["status"] == status
            else:
                given = (
                    {"credentials": {"oauth2": {"tokenUrl": url, **CLIENT}}}
                    if entry == "MCP token URL"
                    else {}
                )
                there = "https://mcp.example/" if given else url
                answer = made.client.post(MCP, {"name": "x", "url": there, **given})
                refused = "tool.token_refused" if given else "http.redirect_refused"
                assert (answer.status, answer.json["code"]) == (502, refused), answer.body
        # An MCP server is asked in more than one way.
        assert start.server.connections >= len(range(0, len(REDIRECTS), 10))
        trap.assert_untouched()


# -- what a document refers to is never fetched ----------------------------------------------------------------------

REFERRERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "schema": lambda url: described(GOOD, components={"schemas": {"A": {"$ref": url}}}),
    "schema in use": lambda url: described(
        GOOD, operation={"parameters": [{"name": "a", "in": "query", "schema": {"$ref": url}}]}
    ),
    "parameter": lambda url: described(GOOD, operation={"parameters": [{"$ref": url}]}),
    "body": lambda url: described(GOOD, operation={"requestBody": {"$ref": url}}),
    "response": lambda url: described(GOOD, operation={"responses": {"200": {"$ref": url}}}),
    "path item": lambda url: described(GOOD, item={"$ref": url}),
    "security scheme": lambda url: described(GOOD, components={"securitySchemes": {"a": {"$ref": url}}}),
    "$schema": lambda url: described(GOOD, components={"schemas": {"A": {"$schema": url}}}),
    "dialect": lambda url: described(GOOD, jsonSchemaDialect=url),
}
# These only name something; a document may say so, and nobody looks.
NAMES_ONLY: dict[str, Callable[[str], dict[str, Any]]] = {
    "$dynamicRef": lambda url: described(
        GOOD, operation={"parameters": [{"name": "a", "in": "query", "schema": {"$dynamicRef": url}}]}
    ),
    "$id": lambda url: described(GOOD, components={"schemas": {"A": {"$id": url}}}),
    "example": lambda url: described(GOOD, components={"examples": {"a": {"externalValue": url}}}),
    "link": lambda url: described(GOOD, components={"links": {"a": {"operationRef": url}}}),
    "discriminator": lambda url: described(
        GOOD, components={"schemas": {"A": {"discriminator": {"propertyName": "p", "mapping": {"x": url}}}}}
    ),
    "docs": lambda url: described(GOOD, externalDocs={"url": url}),
}


@pytest.mark.parametrize("place", REFERRERS)
def test_no_remote_reference_is_fetched(made: World, trap: Trap, place: str) -> None:
    # One of each kind, and one that would be reached.
    by_kind = {vector.kind: vector.url for vector in VECTORS if vector.url} | {
        "public": "https://api.example/a.json"
    }
    for url in by_kind.values():
        refused = made.client.post(TOOLS, {"name": "x", "openapi": REFERRERS[place](url)})
        assert (refused.status, refused.json["code"]) in (
            (422, "tool.invalid_document"),
            (400, "request.json"),
        )
    trap.assert_untouched()


@pytest.mark.parametrize("place", NAMES_ONLY)
def test_nothing_that_a_document_names_is_fetched(made: World, trap: Trap, place: str) -> None:
    answers = []
    for url in ("https://api.example/a.json", "http://127.0.0.1/", "http://169.254.169.254/latest"):
        body = {"name": "x", "openapi": NAMES_ONLY[place](url)}
        registered = made.client.post(TOOLS, body)
        assert registered.status == 201, registered.body
        # Compiled only now, when it is about to be called; a bad argument keeps it from being sent.
        answers.append(made.run(registered.json["toolId"], "op", query={"other": 1}).json["code"])
    assert set(answers) == {"tool.invalid_arguments"}
    trap.assert_untouched()


# -- the trap would have seen it, and what is allowed works ------------------------------------------------------------


def test_the_trap_sees_a_call_that_is_allowed(made: World, trap: Trap) -> None:
    tool = made.register(described([{"url": "http://api.example"}]))
    assert made.run(tool, "op").status in (502, 504)
    assert trap.accepted() >= 1


def test_a_name_that_changes_its_answer_gains_nothing(made: World, internet: Internet) -> None:
    good = internet.serve("rebind.example", 80, reply("ok"))
    bad = internet.serve("inside.example", 80, reply("inside"), at="127.0.0.1")
    internet.names["rebind.example"] = [(A,), ("127.0.0.1",)]
    process.use_http(client(internet))
    try:
        tool = made.register(described([{"url": "http://rebind.example"}]))
        assert made.run(tool, "op").json["body"] == "ok"
        refused = made.run(tool, "op")
        assert (refused.status, refused.json["code"]) == (403, FORBIDDEN)
        assert (good.connections, bad.connections, internet.dialled) == (1, 0, [(A, 80)])
    finally:
        process.use_http(None)


def test_a_tool_is_called_over_tls_by_its_name(made: World, internet: Internet, authority: Authority) -> None:
    seen: list[str | None] = []
    server = internet.serve("api.example", 443, reply("ok"), tls=authority.server(["api.example"], seen))
    internet.names["other.example"] = [(A,)]
    process.use_http(client(internet, tls_context=authority.trusted()))
    try:
        tool = made.register(described([{"url": "https://API.example/v1"}]))
        assert made.run(tool, "op").json["body"] == "ok"
        assert (seen, server.requests[0].split(b"\r\n")[:2]) == (
            ["api.example"], [b"GET /v1/x HTTP/1.1", b"Host: api.example"]
        )  # fmt: skip
        # WHEN another name leads to the same server THEN its certificate does not fit, nothing is sent
        tool = made.register(described([{"url": "https://other.example"}]))
        refused = made.run(tool, "op")
        assert (refused.status, refused.json["code"]) == (502, "http.tls_failed")
        assert [one for one in server.requests if one] == server.requests[:1]
    finally:
        process.use_http(None)


def test_no_redirect_leads_out_of_tls(made: World, internet: Internet, authority: Authority) -> None:
    tls = authority.server(["api.example"], [])
    internet.serve("api.example", 443, redirect(307, "http://api.example/plain"), tls=tls)
    plain = internet.serve("api.example", 80, reply("plain"))
    process.use_http(client(internet, tls_context=authority.trusted()))
    try:
        refused = made.run(made.register(described(GOOD)), "op")
        assert (refused.status, refused.json["code"]) == (502, "http.redirect_refused")
        assert plain.connections == 0
    finally:
        process.use_http(None)


def test_no_credential_and_no_argument_follows_a_redirect_to_another_origin(
    made: World, internet: Internet
) -> None:
    internet.serve("api.example", 80, redirect(302, "http://other.example/there"))
    other = internet.serve("other.example", 80, reply("ok"), at="93.184.215.15")
    process.use_http(client(internet))
    try:
        schemes = {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}
        schemes["pin"] = {"type": "apiKey", "in": "cookie", "name": "pin"}
        operation = {
            "security": [{"key": [], "pin": []}],
            "parameters": [{"name": "X-Argument", "in": "header", "schema": {}}],
        }
        document = described(
            [{"url": "http://api.example"}], operation=operation, components={"securitySchemes": schemes}
        )
        tool = made.register(document)
        values = {"key": {"value": "k"}, "pin": {"value": "p"}}
        made.client.put(f"{TOOLS}/{tool}/credentials", values)
        assert made.run(tool, "op", header={"X-Argument": "a"}).status == 200
        [request] = other.requests
        assert [header_of(request, name) for name in ("X-Key", "Cookie", "X-Argument")] == [None] * 3
    finally:
        process.use_http(None)


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1/",
        "//169.254.169.254/",
        "http://other.example/",
        "http:\\\\127.0.0.1",
        "/\\127.0.0.1",
    ],
)
def test_an_mcp_server_cannot_lead_its_client_elsewhere(
    made: World, internet: Internet, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """An SSE server names the place to post to; another origin would be handed the caller's credential."""
    # The conversation never opens, and is given up at the end of this time.
    monkeypatch.setattr("chalicelib.tools.mcp_client.connection.SSE_OPENING_S", 1.0)
    stream = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\r\ndata: {place}\r\n\r\n"
    ).encode()

    def answer(conn: socket.socket, asked: bytes) -> None:
        conn.sendall(stream if asked.startswith(b"GET") else raw_reply(b"", 405))

    server = internet.serve("mcp.example", 80, answer)
    inside = internet.serve("inside.example", 80, OK, at="127.0.0.1")
    other = internet.serve("other.example", 80, OK, at="93.184.215.15")
    process.use_http(client(internet))
    try:
        refused = made.client.post(MCP, {"name": "x", "url": "http://mcp.example/"})
        assert refused.status in (422, 502, 504), refused.body
        assert any(one.startswith(b"GET") for one in server.requests)
        assert (inside.connections, other.connections) == (0, 0)
        assert {address for address, _ in internet.dialled} == {A}
    finally:
        process.use_http(None)
