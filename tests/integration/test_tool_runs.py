"""Calling tools over the API, at a real HTTP server on loopback that keeps every byte it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.tool_documents import document, json_of
from tests.tool_world import TOOLS, World, reply, world

PET = reply({"id": 7, "name": "Tom"})


Serve = Callable[..., World]


@pytest.fixture
def serve(database_url: str, tmp_path: Path, with_schema: None) -> Iterator[Serve]:
    """Return what starts a world whose server gives these answers, the last one for ever."""
    with ExitStack() as worlds:
        yield lambda *answers: worlds.enter_context(world(database_url, tmp_path, *(answers or (PET,))))


def test_an_operation_is_called_and_its_answer_checked(serve: Serve) -> None:
    world = serve()
    tool = world.register(document(world.url))
    answer = world.run(tool, path={"petId": 7}, query={"fields": ["name", "tag"]})
    assert answer.status == 200, answer.body
    found = answer.json
    assert (found["status"], found["body"], found["version"]) == (200, {"id": 7, "name": "Tom"}, "V1.0")
    assert found["violations"] == found["repaired"] == []
    assert found["headers"]["content-type"] == "application/json"
    [request] = world.server.requests
    assert (
        request
        == (
            f"GET /pets/7?fields=name&fields=tag HTTP/1.1\r\nHost: 127.0.0.1:{world.port}\r\n"
            "Accept-Encoding: gzip\r\nConnection: close\r\nUser-Agent: hotplug/0.1.0\r\n"
            "Accept: application/json\r\n\r\n"
        ).encode()
    )
    [row] = world.rows()
    assert (row.execution_id, row.tool_id, row.version) == (found["executionId"], tool, "V1.0")
    assert (row.operation, row.outcome, row.error_code, row.status) == ("getPet", "success", None, 200)
    listed = world.client.get(f"{TOOLS}/{tool}/executions").json["items"]
    assert [one["executionId"] for one in listed] == [found["executionId"]]


def test_bad_arguments_are_all_named_and_nothing_is_sent(serve: Serve) -> None:
    world = serve()
    tool = world.register(document(world.url))
    refused = world.run(tool, path={"petId": "seven"}, query={"fields": [1], "other": 2}, body={})
    assert (refused.status, refused.json["code"]) == (422, "tool.invalid_arguments")
    assert {one["pointer"] for one in refused.json["errors"]} >= {
        "/path/petId", "/query/fields/0", "/query/other", "/body",
    }  # fmt: skip
    assert world.server.connections == 0
    assert world.rows() == []
    unknown = world.run(tool, "nope")
    assert (unknown.status, unknown.json["errors"][0]["message"]) == (422, "is none of getPet")


@pytest.mark.parametrize("status", [300, 304, 400, 404, 418, 500])
def test_what_is_not_2xx_is_502_with_what_was_answered(serve: Serve, status: int) -> None:
    world = serve(reply({"why": "no"}, status, X_Why="because"))
    tool = world.register(document(world.url))
    failed = world.run(tool, path={"petId": 1})
    assert (failed.status, failed.json["code"]) == (502, "tool.upstream_error")
    upstream = failed.json["upstream"]
    assert (upstream["status"], upstream["headers"]["x-why"]) == (status, "because")
    if status != 304:
        assert upstream["body"] == {"why": "no"}
    [row] = world.rows()
    assert (row.outcome, row.error_code, row.status) == ("failed", "tool.upstream_error", status)
    assert row.execution_id == failed.json["executionId"]


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_any_2xx_is_success_by_its_own_schema(serve: Serve, status: int) -> None:
    world = serve(reply({"n": 1}, status))
    number = json_of({"type": "object", "properties": {"n": {"const": status}}})
    responses = {str(status): {"description": "x", **number}, "2XX": {"description": "y"}}
    tool = world.register(document(world.url, op={"at": ("get", "/x"), "responses": responses}))
    refused = world.run(tool, "op")
    assert (refused.status, refused.json["code"]) == (502, "tool.invalid_answer")
    assert [(one["pointer"], one["rule"]) for one in refused.json["errors"]] == [("/body/n", "schema.const")]
    shown = world.run(tool, "op", options={"strict": False})
    assert (shown.status, shown.json["status"], shown.json["body"]) == (200, status, {"n": 1})
    assert [one["rule"] for one in shown.json["violations"]] == ["schema.const"]


def test_nulls_are_repaired_on_demand(serve: Serve) -> None:
    world = serve(reply({"id": None, "name": None, "tag": None}))
    tool = world.register(document(world.url))
    assert world.run(tool, path={"petId": 1}).json["code"] == "tool.invalid_answer"
    repaired = world.run(tool, path={"petId": 1}, options={"repairNulls": True}).json
    assert repaired["body"] == {"id": 0, "name": "", "tag": ""}
    assert sorted(repaired["repaired"]) == ["/body/id", "/body/name", "/body/tag"]


def test_a_named_version_is_called(serve: Serve) -> None:
    world = serve(reply("ok"))
    tool = world.register(document(world.url))
    new = document(world.url + "/v2", ping={"at": ("get", "/ping")})
    assert world.client.post(f"{TOOLS}/{tool}/versions", {"version": "V2", "openapi": new}).status == 201
    assert world.run(tool, "ping").json["version"] == "V2"
    assert world.run(tool, "ping", version="V1.0").json["code"] == "tool.unknown_operation"
    assert world.run(tool, "ping", version="V3").status == 404
    # WHEN it is deleted THEN the next call is made by what is the newest now
    world.client.delete(f"{TOOLS}/{tool}/versions/V2")
    assert world.run(tool, "ping").json["code"] == "tool.unknown_operation"
    assert len(world.server.requests) == 1


def test_a_second_run_parses_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from chalicelib.tools import loading

    world = serve()
    tool = world.register(document(world.url))
    parsed: list[int] = []
    whole = json.loads

    def spy(text: Any, **options: Any) -> Any:
        parsed.append(len(text))
        return whole(text, **options)

    compiled: list[str] = []
    compile_whole = loading.compile_operation

    def compile_spy(found: Any, operation_id: str) -> Any:
        compiled.append(operation_id)
        return compile_whole(found, operation_id)

    monkeypatch.setattr(loading.json, "loads", spy)
    monkeypatch.setattr(loading, "compile_operation", compile_spy)
    size = len(json.dumps(document(world.url), separators=(",", ":")))
    for _ in range(3):
        assert world.run(tool, path={"petId": 1}).status == 200
    assert parsed.count(size) == 1, "the document is parsed by the first run alone"
    assert compiled == ["getPet"]


# -- debugging -----------------------------------------------------------------------------------------------------


def test_debug_calls_and_stores_nothing(serve: Serve) -> None:
    world = serve()
    found = world.client.post(
        f"{TOOLS}/debug", {"openapi": document(world.url), "operationId": "getPet", "path": {"petId": 7}}
    )
    assert (found.status, found.json["body"]) == (200, {"id": 7, "name": "Tom"})
    assert world.client.get(TOOLS).json["items"] == []
    assert world.rows() == []


def test_debug_says_what_is_not_enforced(serve: Serve) -> None:
    world = serve()
    tool = document(world.url)
    name = {"type": "string", "pattern": "^(?!x)"}
    tool["paths"]["/pets/{petId}"]["get"]["parameters"].append(
        {"name": "name", "in": "query", "schema": name}
    )
    body = {"openapi": tool, "operationId": "getPet", "path": {"petId": 7}, "query": {"name": "x"}}
    [warning] = world.client.post(f"{TOOLS}/debug", body).json["warnings"]
    assert warning.startswith("/paths/~1pets~1{petId}/get/parameters/2/schema/pattern: ")


def test_debug_refuses_a_bad_document(serve: Serve) -> None:
    world = serve()
    refused = world.client.post(f"{TOOLS}/debug", {"openapi": {"openapi": "3.1.0"}, "operationId": "x"})
    assert (refused.status, refused.json["code"]) == (422, "tool.invalid_document")


# -- once ----------------------------------------------------------------------------------------------------------


def test_one_idempotency_key_calls_once(serve: Serve) -> None:
    world = serve(reply("ok"))
    post = {"at": ("post", "/op")}
    tool = world.register(document(world.url, op=post))
    key = {"Idempotency-Key": "k1"}
    first, second = (
        world.client.post(f"{TOOLS}/{tool}/run", {"operationId": "op"}, headers=key) for _ in range(2)
    )
    assert first.status == second.status == 200
    assert (second.headers["idempotency-replayed"], second.json) == ("true", first.json)
    assert len(world.server.requests) == 1
