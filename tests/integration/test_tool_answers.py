"""What becomes of a server's answer, through the API: tables made by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.corpus.wire_answers import CASES, Case
from tests.tool_world import World, raw_reply, world


@pytest.fixture(scope="module", params=["3.1.0", "3.0.3"])
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, str]]:
    """(a world whose server answers as the case of the path says, a tool of all cases)."""
    by_path = {f"/{case.id}".encode(): raw_reply(case.body, case.status, case.headers) for case in CASES}

    def answer(conn: socket.socket, asked: bytes) -> None:
        conn.sendall(by_path[asked.split(b" ")[1]])

    folder = tmp_path_factory.mktemp("answers")
    with world(f"sqlite:///{folder}/hotplug.db", folder, answer) as made:
        paths = {f"/{case.id}": {case.method: operation(case)} for case in CASES}
        document = {
            "openapi": request.param,
            "info": {"title": "Answers", "version": "1"},
            "servers": [{"url": made.url}],
            "paths": paths,
        }
        yield made, made.register(document)


def operation(case: Case) -> dict[str, Any]:
    responses = {status: {"description": "", **one} for status, one in case.responses.items()}
    return {"operationId": case.id, "responses": responses}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_answer(answers: tuple[World, str], case: Case) -> None:
    made, tool = answers
    repair = {} if case.pointers is None else {"repairNulls": True}
    success = 200 <= case.status < 300
    strict = made.run(tool, case.id, options=repair)
    lenient = made.run(tool, case.id, options={**repair, "strict": False})
    assert "secret-" not in strict.body + lenient.body
    if not success:
        assert (strict.status, strict.json["code"]) == (502, "tool.upstream_error")
        assert strict.json["upstream"]["body"] == lenient.json["upstream"]["body"] == case.value
        assert strict.json["upstream"]["status"] == case.status
        return
    found = lenient.json
    assert (lenient.status, found["status"], found["body"]) == (200, case.status, case.value), lenient.body
    assert tuple(one["rule"] for one in found["violations"]) == case.rules
    assert tuple(sorted(found["repaired"])) == (case.pointers or ())
    if case.rules:
        assert (strict.status, strict.json["code"]) == (502, "tool.invalid_answer")
        assert tuple(one["rule"] for one in strict.json["errors"]) == case.rules
    else:
        assert (strict.status, strict.json["body"]) == (200, case.value)
