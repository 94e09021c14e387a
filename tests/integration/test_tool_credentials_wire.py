"""Credentials on the wire, byte for byte, and whose token goes where."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http import Client
from tests.internet import header_of
from tests.tool_documents import document
from tests.tool_world import TOOLS, World, reply, world

SCHEMES: dict[str, Any] = {
    "inHeader": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "inQuery": {"type": "apiKey", "in": "query", "name": "key[]"},
    "inCookie": {"type": "apiKey", "in": "cookie", "name": "sid"},
    "basic": {"type": "http", "scheme": "BASIC"},
    "bearer": {"type": "http", "scheme": "Bearer"},
    "oauth": {
        "type": "oauth2",
        "flows": {"clientCredentials": {"tokenUrl": "/token?tenant=1", "scopes": {"a": "", "b": ""}}},
    },
}
OAUTH = {"clientId": "id:ü", "clientSecret": "s +/"}
VALUES: dict[str, Any] = {
    "inHeader": {"value": "k 1"},
    "inQuery": {"value": "k&2=~"},
    "inCookie": {"value": "k=3/+"},
    # RFC 7617, 2: UTF-8, and only the first colon ends the name.
    "basic": {"username": "ann", "password": "p:ä"},
    "bearer": {"token": "a.b-c_d~e+f/g=="},
    "oauth": OAUTH,
}


class Tokens:
    """A server that gives out t-1, t-2, … and answers all else with "ok"."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self, conn: socket.socket, asked: bytes) -> None:
        if asked.startswith(b"POST /token"):
            self.given += 1
            token = {"access_token": f"t-{self.given}", "token_type": "bearer", "expires_in": 3600}
            conn.sendall(reply(token))
        else:
            conn.sendall(reply("ok"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("credentials")
    with world(f"sqlite:///{folder}/hotplug.db", folder, Tokens()) as running:
        yield running


@pytest.fixture
def requests(made: World) -> list[bytes]:
    """What arrives from here on."""
    made.server.requests.clear()
    return made.server.requests


def secured(url: str, *alternatives: dict[str, list[str]], **operation: Any) -> dict[str, Any]:
    found = document(url, op={"at": ("get", "/op"), "security": list(alternatives), **operation})
    found["components"]["securitySchemes"] = SCHEMES
    return found


def store(client: Client, tool: str, **values: Any) -> None:
    assert client.put(f"{TOOLS}/{tool}/credentials", values).status == 200


def whole(made: World, request_line: str, *lines: str) -> bytes:
    first = [
        f"Host: 127.0.0.1:{made.port}",
        "Accept-Encoding: gzip",
        "Connection: close",
        "User-Agent: hotplug/0.1.0",
    ]
    return "\r\n".join([f"{request_line} HTTP/1.1", *first, *lines, "\r\n"]).encode()


@pytest.mark.parametrize(
    ("scheme", "target", "lines"),
    [
        ("inHeader", "/op", ["Accept: */*", "X-Key: k 1"]),
        ("inQuery", "/op?key%5B%5D=k%262%3D~", ["Accept: */*"]),
        ("inCookie", "/op", ["Accept: */*", "Cookie: sid=k=3/+"]),
        ("basic", "/op", ["Accept: */*", "Authorization: Basic YW5uOnA6w6Q="]),
        ("bearer", "/op", ["Accept: */*", "Authorization: Bearer a.b-c_d~e+f/g=="]),
    ],
)
@pytest.mark.parametrize("how", ["run", "debug"])
def test_a_credential_on_the_wire(
    made: World, requests: list[bytes], how: str, scheme: str, target: str, lines: list[str]
) -> None:
    found = secured(made.url, {scheme: []})
    if how == "run":
        tool = made.register(found)
        store(made.client, tool, **{scheme: VALUES[scheme]})
        assert made.run(tool, "op").status == 200
    else:
        body = {"openapi": found, "operationId": "op", "credentials": {scheme: VALUES[scheme]}}
        assert made.client.post(f"{TOOLS}/debug", body).status == 200
    assert requests == [whole(made, f"GET {target}", *lines)]


def test_a_token_is_asked_for_as_rfc_6749_says(made: World, requests: list[bytes]) -> None:
    tool = made.register(secured(made.url, {"oauth": ["a", "b"]}))
    store(made.client, tool, oauth=OAUTH)
    assert made.run(tool, "op").status == 200
    asked, called = requests
    # 2.3.1: both are form-encoded before they are joined: id%3A%C3%BC:s+%2B%2F
    form = "grant_type=client_credentials&scope=a+b"
    assert (
        asked
        == whole(
            made,
            "POST /token?tenant=1",
            f"Content-Length: {len(form)}",
            "Authorization: Basic aWQlM0ElQzMlQkM6cyslMkIlMkY=",
            "Content-Type: application/x-www-form-urlencoded",
            "Accept: application/json",
        )
        + form.encode()
    )
    assert str(header_of(called, "Authorization")).startswith("Bearer t-")


def test_all_schemes_of_one_alternative_go_together(made: World, requests: list[bytes]) -> None:
    tool = made.register(secured(made.url, {"inHeader": [], "inQuery": [], "inCookie": [], "bearer": []}))
    store(made.client, tool, **{name: VALUES[name] for name in ("inHeader", "inQuery", "inCookie", "bearer")})
    assert made.run(tool, "op").status == 200
    lines = ["Accept: */*", "X-Key: k 1", "Authorization: Bearer a.b-c_d~e+f/g==", "Cookie: sid=k=3/+"]
    assert requests == [whole(made, "GET /op?key%5B%5D=k%262%3D~", *lines)]


def test_an_argument_does_not_shadow_a_credential(made: World, requests: list[bytes]) -> None:
    """A model that may set `X-Key` would call as somebody else, or have the server choose between two."""
    parameters = [
        {"name": "x-key", "in": "header", "schema": {}},
        {"name": "key[]", "in": "query", "schema": {}},
        {"name": "other", "in": "query", "schema": {}},
        {"name": "sid", "in": "cookie", "schema": {}},
    ]
    alternative: dict[str, list[str]] = {"inHeader": [], "inQuery": [], "inCookie": []}
    tool = made.register(secured(made.url, alternative, parameters=parameters))
    store(made.client, tool, **{name: VALUES[name] for name in alternative})
    given = {
        "header": {"X-KEY": "mine"},
        "query": {"key[]": ["m1", "m2"], "other": 1},
        "cookie": {"sid": "mine"},
    }
    assert made.run(tool, "op", **given).status == 200
    lines = ["Accept: */*", "X-Key: k 1", "Cookie: sid=k=3/+"]
    assert requests == [whole(made, "GET /op?other=1&key%5B%5D=k%262%3D~", *lines)]


# -- whose token ---------------------------------------------------------------------------------------------------


def used(requests: list[bytes]) -> list[str | None]:
    return [header_of(one, "Authorization") for one in requests if one.startswith(b"GET")]


def test_a_token_is_one_tools_and_one_apps(made: World, requests: list[bytes]) -> None:
    """The same client at the same endpoint: what one tool's server was sent is never sent to another's."""
    tools = [made.register(secured(made.url, {"oauth": ["a"]}), shared=True) for _ in range(2)]
    apps = [made.client, made.client_of("other")]
    for tool in tools:
        for app in apps:
            store(app, tool, oauth=OAUTH)
    for _ in range(2):
        for tool in tools:
            for app in apps:
                assert made.run(tool, "op", app).status == 200
    first, again = used(requests)[:4], used(requests)[4:]
    assert len(set(first)) == 4, "each has a token of its own"
    assert again == first, "and keeps it"


def test_a_rotated_secret_does_not_meet_the_token_of_the_one_before(
    made: World, requests: list[bytes]
) -> None:
    tool = made.register(secured(made.url, {"oauth": []}))
    for secret in ("one", "two", "one"):
        store(made.client, tool, oauth={**OAUTH, "clientSecret": secret})
        assert made.run(tool, "op").status == 200
    first, second, third = used(requests)
    assert first == third != second
    store(made.client, tool, oauth={**OAUTH, "scopes": ["b"]})
    assert made.run(tool, "op").status == 200
    assert used(requests)[-1] not in (first, second)
    # WHEN the credential is deleted THEN the token that is still good goes nowhere
    made.client.delete(f"{TOOLS}/{tool}/credentials/oauth")
    assert made.run(tool, "op").json["code"] == "tool.credentials_missing"


def test_a_token_of_debugging_is_used_once(made: World, requests: list[bytes]) -> None:
    body = {
        "openapi": secured(made.url, {"oauth": []}),
        "operationId": "op",
        "credentials": {"oauth": OAUTH},
    }
    for _ in range(2):
        assert made.client.post(f"{TOOLS}/debug", body).status == 200
    assert len(set(used(requests))) == 2


def test_nothing_of_a_credential_is_shown_or_logged(
    made: World, requests: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    values = {
        "bearer": {"token": "canary-bearer"},
        "oauth": {"clientId": "id", "clientSecret": "canary-secret"},
    }
    tool = made.register(secured(made.url, {"bearer": []}, {"oauth": []}))
    put = made.client.put(f"{TOOLS}/{tool}/credentials", values)
    bodies = [put.body, made.client.get(f"{TOOLS}/{tool}/credentials").body, made.run(tool, "op").body]
    made.client.delete(f"{TOOLS}/{tool}/credentials/bearer")
    bodies += [made.run(tool, "op").body, made.client.get(f"{TOOLS}/{tool}/executions").body]
    logged = "".join(capfd.readouterr())
    assert "canary" not in json.dumps(bodies) + logged
    assert "t-" not in "".join(one.get("message", "") for one in map(json.loads, logged.splitlines()) if one)
