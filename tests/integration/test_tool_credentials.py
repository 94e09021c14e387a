"""Credentials of tools over the API: stored, missing, shared, taken along by nobody, and the tokens they buy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.http import settings
from tests.internet import Server, header_of
from tests.tool_documents import document
from tests.tool_world import TOOLS, World, reply, world

Serve = Callable[..., World]


@pytest.fixture
def serve(database_url: str, tmp_path: Path, with_schema: None) -> Iterator[Serve]:
    """Return what starts a world whose server gives these answers, the last one for ever."""
    with ExitStack() as worlds:
        yield lambda *answers: worlds.enter_context(world(database_url, tmp_path, *answers))


SCHEMES = {
    "inHeader": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "inQuery": {"type": "apiKey", "in": "query", "name": "key"},
    "inCookie": {"type": "apiKey", "in": "cookie", "name": "session"},
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "oauth": {
        "type": "oauth2",
        "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": {"read": "r", "write": "w"}}},
    },
}
VALUES: dict[str, Any] = {
    "inHeader": {"value": "k-1"},
    "inQuery": {"value": "k 2&x=/"},
    "inCookie": {"value": "k3"},
    "basic": {"username": "ann", "password": "pä:ss"},
    "bearer": {"token": "abc.def"},
    "oauth": {"clientId": "id:1", "clientSecret": "s/1"},
}


def secured(url: str, *security: dict[str, list[str]]) -> dict[str, Any]:
    """Return a document whose operation `op` asks for these alternatives."""
    found = document(url, op={"at": ("get", "/op"), "security": list(security)})
    found["components"]["securitySchemes"] = SCHEMES
    return found


@pytest.mark.parametrize(
    ("scheme", "line", "header"),
    [
        ("inHeader", b"GET /op HTTP/1.1", ("X-Key", "k-1")),
        ("inQuery", b"GET /op?key=k%202%26x%3D%2F HTTP/1.1", ("X-Key", None)),
        ("inCookie", b"GET /op HTTP/1.1", ("Cookie", "session=k3")),
        ("basic", b"GET /op HTTP/1.1", ("Authorization", "Basic YW5uOnDDpDpzcw==")),
        ("bearer", b"GET /op HTTP/1.1", ("Authorization", "Bearer abc.def")),
    ],
)
def test_every_scheme_on_the_wire(
    serve: Serve, scheme: str, line: bytes, header: tuple[str, str | None]
) -> None:
    world = serve(reply("ok"))
    tool = world.register(secured(world.url, {scheme: []}))
    missing = world.run(tool, "op")
    assert (missing.status, missing.json["code"]) == (409, "tool.credentials_missing")
    assert missing.json["needs"] == [[scheme]]
    assert world.server.connections == 0
    stored = world.client.put(f"{TOOLS}/{tool}/credentials", {scheme: VALUES[scheme]})
    assert stored.status == 200
    assert [one["scheme"] for one in stored.json["items"]] == [scheme]
    assert world.run(tool, "op").status == 200
    [request] = world.server.requests
    assert request.split(b"\r\n")[0] == line
    assert header_of(request, header[0]) == header[1]
    # AND nothing of it is ever shown or kept in the clear
    for text in [str(value) for value in VALUES[scheme].values()]:
        assert text not in world.client.get(f"{TOOLS}/{tool}/credentials").body


TOKEN = reply({"access_token": "t-1", "token_type": "Bearer", "expires_in": 3600})


def test_a_token_is_asked_for_once_and_kept(serve: Serve) -> None:
    world = serve(TOKEN, reply("ok"))
    tool = world.register(secured(world.url, {"oauth": ["read", "write"]}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"oauth": VALUES["oauth"]})
    assert [world.run(tool, "op").status for _ in range(3)] == [200, 200, 200]
    asked, *calls = world.server.requests
    assert asked.startswith(b"POST /token HTTP/1.1\r\n")
    assert header_of(asked, "Authorization") == "Basic aWQlM0ExOnMlMkYx"
    assert asked.endswith(b"\r\n\r\ngrant_type=client_credentials&scope=read+write")
    assert [header_of(call, "Authorization") for call in calls] == ["Bearer t-1"] * 3


def test_a_token_that_is_refused_is_asked_for_again(serve: Serve) -> None:
    second = reply({"access_token": "t-2", "token_type": "bearer"})
    world = serve(TOKEN, reply("ok"), reply("expired", 401), second, reply("ok"))
    tool = world.register(secured(world.url, {"oauth": []}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"oauth": VALUES["oauth"]})
    assert [world.run(tool, "op").status for _ in range(2)] == [200, 200]
    used = [header_of(one, "Authorization") for one in world.server.requests if one.startswith(b"GET")]
    assert used == ["Bearer t-1", "Bearer t-1", "Bearer t-2"]


def test_a_fresh_token_that_is_refused_is_the_answer(serve: Serve) -> None:
    world = serve(TOKEN, reply("no", 401))
    tool = world.register(secured(world.url, {"oauth": []}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"oauth": VALUES["oauth"]})
    failed = world.run(tool, "op")
    assert failed.json["upstream"]["status"] == 401
    assert len(world.server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply({"error": "invalid_client", "client_secret": "s/1"}, 401), "tool.token_refused"),
        (reply({"access_token": "t", "token_type": "mac"}), "tool.token_invalid"),
        (reply({"access_token": "a\r\nX: y"}), "tool.token_invalid"),
        (reply({"access_token": ""}), "tool.token_invalid"),
        (reply({"access_token": 7}), "tool.token_invalid"),
        (reply(["t"]), "tool.token_invalid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<x>", "tool.token_invalid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000, "tool.token_invalid"),
    ],
)
def test_a_token_that_cannot_be_had(serve: Serve, answer: bytes, code: str) -> None:
    world = serve(answer)
    tool = world.register(secured(world.url, {"oauth": []}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"oauth": VALUES["oauth"]})
    failed = world.run(tool, "op")
    assert (failed.status, failed.json["code"]) == (502, code)
    assert failed.json.get("upstreamStatus") == (401 if code == "tool.token_refused" else None)
    assert "s/1" not in failed.body


def test_the_time_of_a_call_includes_its_token(serve: Serve) -> None:
    """A function that waited for both as long as for each would be ended by the gateway, and nobody would know why."""

    def late(conn: socket.socket, request: bytes) -> None:
        threading.Event().wait(0.6)
        conn.sendall(TOKEN)

    world = serve(late, reply("ok"))
    tool = world.register(secured(world.url, {"oauth": []}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"oauth": VALUES["oauth"]})
    failed = world.run(tool, "op", options={"timeoutMs": 300})
    assert (failed.status, failed.json["code"]) == (504, "upstream.timeout")
    assert [one.split(b" ")[0] for one in world.server.requests] == [b"POST"]
    assert [row.outcome for row in world.rows()] == ["timeout"]


def test_all_schemes_of_an_alternative_and_the_first_that_can_be_satisfied(serve: Serve) -> None:
    world = serve(reply("ok"))
    both = {"inHeader": [], "inQuery": []}
    tool = world.register(secured(world.url, both, {"bearer": []}))
    world.client.put(
        f"{TOOLS}/{tool}/credentials", {"bearer": VALUES["bearer"], "inHeader": VALUES["inHeader"]}
    )
    assert world.run(tool, "op").status == 200
    world.client.put(f"{TOOLS}/{tool}/credentials", {"inQuery": VALUES["inQuery"]})
    assert world.run(tool, "op").status == 200
    first, second = world.server.requests
    assert (header_of(first, "X-Key"), header_of(first, "Authorization")) == (None, "Bearer abc.def")
    assert (header_of(second, "X-Key"), header_of(second, "Authorization")) == ("k-1", None)
    assert b"?key=" in second


def test_an_empty_alternative_needs_nothing(serve: Serve) -> None:
    world = serve(reply("ok"))
    tool = world.register(secured(world.url, {"bearer": []}, {}))
    assert world.run(tool, "op").status == 200


@pytest.mark.parametrize(
    ("values", "pointer", "rule"),
    [
        ({"nope": {"value": "x"}}, "/nope", "tool.unknown_scheme"),
        ({"inHeader": {"token": "x"}}, "/inHeader", "schema.required"),
        ({"inHeader": {"value": "a\r\nX: y"}}, "/inHeader/value", "schema.pattern"),
        ({"bearer": {"token": "a b"}}, "/bearer/token", "schema.pattern"),
        ({"basic": {"username": "a:b", "password": "x"}}, "/basic/username", "schema.pattern"),
        ({"oauth": {"clientId": "x"}}, "/oauth", "schema.required"),
        ({"oauth": {**VALUES["oauth"], "scopes": ["a b"]}}, "/oauth/scopes/0", "schema.pattern"),
    ],
)
def test_credentials_have_their_schemes_form(serve: Serve, values: Any, pointer: str, rule: str) -> None:
    world = serve(reply("ok"))
    tool = world.register(secured(world.url, {"oauth": []}))
    refused = world.client.put(f"{TOOLS}/{tool}/credentials", values)
    assert (refused.status, refused.json["code"]) == (422, "tool.invalid_credentials")
    assert (pointer, rule) in {(one["pointer"], one["rule"]) for one in refused.json["errors"]}
    assert world.client.get(f"{TOOLS}/{tool}/credentials").json["items"] == []


def test_a_shared_tool_is_called_with_the_callers_credentials(serve: Serve) -> None:
    world = serve(reply("ok"))
    tool = world.register(secured(world.url, {"bearer": []}), shared=True)
    world.client.put(f"{TOOLS}/{tool}/credentials", {"bearer": {"token": "owner"}})
    other = world.client_of("other")
    assert world.run(tool, "op", other).json["code"] == "tool.credentials_missing"
    other.put(f"{TOOLS}/{tool}/credentials", {"bearer": {"token": "other"}})
    assert world.run(tool, "op", other).status == 200
    assert header_of(world.server.requests[0], "Authorization") == "Bearer other"
    assert other.delete(f"{TOOLS}/{tool}/credentials/bearer").status == 204
    assert other.delete(f"{TOOLS}/{tool}/credentials/bearer").status == 404
    assert world.run(tool, "op", other).json["code"] == "tool.credentials_missing"
    assert world.run(tool, "op").status == 200


@pytest.mark.parametrize("moved", ["servers", "tokenUrl"])
def test_a_tool_that_moves_takes_no_credential_along(serve: Serve, moved: str) -> None:
    """An owner who points a shared tool at a host of his own must not collect what others keep for the first one."""
    world = serve(TOKEN, reply("ok"))
    thief = Server(reply("thanks"))
    try:
        with_thief = f"127.0.0.1:{world.port},127.0.0.1:{thief.port}"
        with settings(HOTPLUG_PRIVATE_ENDPOINTS=with_thief):
            first = secured(world.url, {"oauth": []}, {"bearer": []})
            tool = world.register(first, shared=True)
            victim = world.client_of("victim")
            victim.put(f"{TOOLS}/{tool}/credentials", {"bearer": VALUES["bearer"], "oauth": VALUES["oauth"]})
            there = f"http://127.0.0.1:{thief.port}"
            second = secured(there if moved == "servers" else world.url, {"oauth": []})
            if moved == "tokenUrl":
                flow = second["components"]["securitySchemes"]["oauth"]["flows"]["clientCredentials"]
                second["components"] = {
                    **second["components"],
                    "securitySchemes": {
                        "oauth": {
                            "type": "oauth2",
                            "flows": {"clientCredentials": {**flow, "tokenUrl": there}},
                        }
                    },
                }
            tag = {"If-Match": "*"}
            assert (
                world.client.patch(f"{TOOLS}/{tool}/versions/V1.0", {"openapi": second}, headers=tag).status
                == 200
            )
            refused = world.run(tool, "op", victim)
            assert (refused.status, refused.json["code"]) == (409, "tool.credentials_missing")
            assert thief.connections == 0
    finally:
        thief.close()


def test_a_deleted_tool_leaves_no_credential(serve: Serve) -> None:
    world = serve(reply("ok"))
    tool = world.register(secured(world.url, {"bearer": []}))
    world.client.put(f"{TOOLS}/{tool}/credentials", {"bearer": VALUES["bearer"]})
    world.client.delete(f"{TOOLS}/{tool}")
    world.client.post(f"{TOOLS}/{tool}/versions/V1.0/restore")
    assert world.client.get(f"{TOOLS}/{tool}/credentials").json["items"] == []
    assert world.run(tool, "op").json["code"] == "tool.credentials_missing"


def test_debug_takes_credentials_along(serve: Serve) -> None:
    world = serve(reply("ok"))
    body = {"openapi": secured(world.url, {"bearer": []}), "operationId": "op"}
    assert world.client.post(f"{TOOLS}/debug", body).json["code"] == "tool.credentials_missing"
    given = {**body, "credentials": {"bearer": VALUES["bearer"]}}
    assert world.client.post(f"{TOOLS}/debug", given).status == 200
    assert header_of(world.server.requests[0], "Authorization") == "Bearer abc.def"
    bad = {**body, "credentials": {"bearer": {"token": ""}}}
    assert (
        world.client.post(f"{TOOLS}/debug", bad).json["errors"][0]["pointer"] == "/credentials/bearer/token"
    )
