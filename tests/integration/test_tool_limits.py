"""Servers that hang, drip, flood or lie: each call ends cleanly within its limit, is kept, and the next one works."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core import process
from chalicelib.core.outbound.client import HttpOut
from tests.corpus.hostile_answers import CASES, MOST_TAKEN, Act, Hostile
from tests.tool_documents import document
from tests.tool_world import TOOLS, World, reply, world

GOOD = reply("ok")
TIMEOUT_MS = 700
# The next limit after the call's own is the server's, who gives up after 10 s.
ENDED_US = 6_000_000
# One answer of 5 MB, decompressed, decoded, parsed and written again.
MOST_MEMORY_KIB = 160 * 1024


class Upstream:
    """What the server does next; `taken` is how many bytes of it were taken."""

    def __init__(self) -> None:
        self.act: Act | None = None
        self.taken = 0
        self.ended = threading.Event()

    def __call__(self, conn: socket.socket, asked: bytes) -> None:
        if self.act is None:
            conn.sendall(GOOD)
        else:
            try:
                self.taken = self.act(conn) or 0
            finally:
                self.ended.set()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Upstream, str]]:
    folder, upstream = tmp_path_factory.mktemp("limits"), Upstream()
    # What the breaker does is another test's subject.
    values = {"HOTPLUG_BREAKER_FAILURES": "1000"}
    with world(f"sqlite:///{folder}/hotplug.db", folder, upstream, **values) as running:
        json = {"200": {"description": "", "content": {"application/json": {"schema": {"type": "string"}}}}}
        operations: dict[str, Any] = {
            method: {"at": (method, "/op"), "responses": json} for method in ("get", "post")
        }
        yield running, upstream, running.register(document(running.url, **operations))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_hostile_answer_ends_within_its_limit(made: tuple[World, Upstream, str], case: Hostile) -> None:
    running, upstream, tool = made
    before, memory = len(running.rows()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    upstream.act, upstream.taken = case.act, 0
    upstream.ended.clear()
    try:
        answer = running.run(
            tool, "post", options={"timeoutMs": TIMEOUT_MS if case.status == 504 else 20_000}
        )
    finally:
        upstream.act = None
    assert (answer.status, answer.json["code"]) == (case.status, case.code), answer.body[:500]
    [row] = running.rows()[before:]
    assert (row.error_code, row.execution_id) == (case.code, answer.json["executionId"])
    assert row.outcome == ("timeout" if case.status == 504 else "failed")
    assert case.status != 504 or row.duration_us < ENDED_US
    assert upstream.ended.wait(20) and upstream.taken < MOST_TAKEN
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_MEMORY_KIB
    after = running.run(tool, "post")
    assert (after.status, after.json["body"]) == (200, "ok")


def test_what_comes_after_the_end_is_no_part_of_the_answer(made: tuple[World, Upstream, str]) -> None:
    """A second answer behind the first would be the next call's, if a connection were ever used again."""
    running, upstream, tool = made
    upstream.act = lambda conn: conn.sendall(GOOD + reply("smuggled"))
    answer = running.run(tool, "post")
    upstream.act = None
    assert [answer.json["body"], running.run(tool, "post").json["body"]] == ["ok", "ok"]


def test_retries_do_not_outlast_the_time_of_the_call(made: tuple[World, Upstream, str]) -> None:
    running, upstream, tool = made
    upstream.act = lambda conn: conn.recv(1) and None
    before = running.server.connections
    answer = running.run(tool, "get", options={"timeoutMs": TIMEOUT_MS})
    upstream.act = None
    assert (answer.status, answer.json["code"]) == (504, "upstream.timeout")
    assert running.rows()[-1].duration_us < ENDED_US
    assert running.server.connections == before + 1, "the first has used up the time"


@pytest.mark.parametrize("case", [one for one in CASES if one.id.startswith(("hangs", "drips", "sends-100", "says"))],
                         ids=lambda case: case.id)  # fmt: skip
def test_a_hostile_token_endpoint_ends_within_the_time_of_the_call(
    made: tuple[World, Upstream, str], case: Hostile
) -> None:
    running, upstream, _ = made
    flow = {"clientCredentials": {"tokenUrl": "/token", "scopes": {}}}
    found = document(running.url, op={"at": ("get", "/op"), "security": [{"oauth": []}]})
    found["components"]["securitySchemes"] = {"oauth": {"type": "oauth2", "flows": flow}}
    upstream.act = case.act
    try:
        answer = running.client.post(
            f"{TOOLS}/debug",
            {
                "openapi": found,
                "operationId": "op",
                "options": {"timeoutMs": TIMEOUT_MS if case.status == 504 else 20_000},
                "credentials": {"oauth": {"clientId": "i", "clientSecret": "s"}},
            },
        )
    finally:
        upstream.act = None
    assert (answer.status, answer.json["code"]) == (case.status, case.code)


def test_a_server_that_is_not_there(made: tuple[World, Upstream, str], tmp_path: Path) -> None:
    running, _, _ = made
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        process.use_http(HttpOut([f"127.0.0.1:{port}"]))
        try:
            tool = running.register(document(f"http://127.0.0.1:{port}"))
            answer = running.run(tool, path={"petId": 1})
        finally:
            process.use_http(None)
    assert (answer.status, answer.json["code"]) == (502, "http.connect_failed")
    assert running.rows()[-1].error_code == "http.connect_failed"
