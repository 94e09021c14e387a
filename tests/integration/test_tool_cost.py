"""What a call of a warm tool costs: no process parses anything twice, and one round trip goes before the call."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from infra.functions import ROOT
from tests.http import settings
from tests.tool_documents import document, json_of
from tests.tool_world import TOOLS, World, reply, world
from tests.wire import WireProxy

VERSION_READ = "QUERY SELECT scope, version, epoch FROM cache_version"
HEARTBEAT = "QUERY INSERT INTO instance "
PET = reply({"id": 7, "name": "Tom"})


class Process:
    """Another warm process of a deployment."""

    def __init__(self, credential: str, path: str, body: dict[str, Any], log: Path) -> None:
        command = [sys.executable, "-m", "tests.integration.warm_process", credential, path, json.dumps(body)]
        self._log = log.open("wb")
        self._child = subprocess.Popen(
            command, cwd=ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )

    def __enter__(self) -> Self:
        assert self._line() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.wait(30)
        self._child.stdout.close()
        self._log.close()

    def run(self) -> dict[str, Any]:
        """Let it call the tool once; return its report."""
        assert self._child.stdin
        self._child.stdin.write(b"\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        assert (found["status"], found["body"]) == (200, {"id": 7, "name": "Tom"})
        return found

    def _line(self) -> str:
        assert self._child.stdout
        return self._child.stdout.readline().decode().strip()


def large(url: str) -> dict[str, Any]:
    """Return a document that nobody could parse unseen."""
    schemas = {
        f"S{n}": {"type": "object", "properties": {f"p{m}": {"type": "string"} for m in range(20)}}
        for n in range(50)
    }
    operations = {
        f"op{n}": {"at": ("post", f"/op{n}"), "requestBody": json_of({"$ref": f"#/components/schemas/S{n}"})}
        for n in range(50)
    }
    found = document(url, **operations)
    found["components"]["schemas"] |= schemas
    return found


@pytest.mark.usefixtures("with_schema")
def test_no_process_parses_a_second_time(database_url: str, tmp_path: Path) -> None:
    with world(database_url, tmp_path, PET) as made, ExitStack() as processes:
        # YAML: what is stored is JSON, so no process ever needs the reader of YAML again.
        source = large(made.url)
        tool = made.register(yaml.safe_dump(source))
        size = len(json.dumps(source, separators=(",", ":")))
        body = {"operationId": "getPet", "path": {"petId": 7}}
        both = [
            processes.enter_context(
                Process(made.client.credential or "", f"{TOOLS}/{tool}/run", body, tmp_path / f"log{n}")
            )
            for n in range(2)
        ]
        for process in both:
            first = process.run()
            assert first["longestJson"] == size, "the spy sees what is parsed"
            assert any(one.startswith("tools/openapi/compile.py") for one in first["entered"])
            assert first["compiled"] > 0
            assert not any("yaml" in one or "openapi_spec_validator" in one for one in first["entered"])
        for process in [*both, *both]:
            assert parsed(process.run(), size) == ([], True, 0)
        # WHEN another tool changes THEN what is known of this one is still good
        made.register(document(made.url))
        assert [parsed(process.run(), size) for process in both] == [([], True, 0)] * 2
        # WHEN it changes itself THEN each process reads it once more
        changed = {"description": "new"}
        path, tag = f"{TOOLS}/{tool}/versions/V1.0", {"If-Match": "*"}
        assert made.client.patch(path, changed, headers=tag).status == 200
        for process in both:
            assert process.run()["longestJson"] == size
            assert parsed(process.run(), size) == ([], True, 0)


def parsed(report: dict[str, Any], size: int) -> tuple[list[str], bool, int]:
    """Return (what read or compiled a document, whether every JSON text was small, how many schemas were compiled)."""
    return report["entered"], report["longestJson"] < min(size, 5_000), report["compiled"]


# -- one round trip before the call --------------------------------------------------------------------------------

SECURED: dict[str, Any] = {
    "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": {}}}},
}
TOKEN = reply({"access_token": "t", "token_type": "Bearer", "expires_in": 3600})


class Counted:
    """A world whose database is behind a proxy that counts, and whose server notes what had been sent by then."""

    def __init__(self, made: World, wire: WireProxy) -> None:
        self.world, self._wire = made, wire
        self.before_call: list[str] = []

    def run(self, tool: str, operation: str = "getPet", **body: Any) -> tuple[list[str], list[str]]:
        """Call; return what the database was asked before the server was, and afterwards."""
        self._wire.commands.clear()
        answer = self.world.run(tool, operation, **body)
        assert answer.status == 200, answer.body
        told = [one for one in self._wire.commands if not one.startswith(HEARTBEAT)]
        before = [one for one in self.before_call if not one.startswith(HEARTBEAT)]
        assert told[: len(before)] == before
        return before, told[len(before) :]


@pytest.fixture
def counted(mysql_url: str, tmp_path: Path, with_schema: None) -> Iterator[Counted]:
    with ExitStack() as stack:
        wire = stack.enter_context(WireProxy(mysql_url))
        found: list[Counted] = []

        def answer(conn: socket.socket, asked: bytes) -> None:
            if found and not asked.startswith(b"POST /token"):
                found[0].before_call = list(wire.commands)
            conn.sendall(TOKEN if asked.startswith(b"POST /token") else PET)

        made = stack.enter_context(world(mysql_url, tmp_path, answer))
        stack.enter_context(settings(HOTPLUG_DATABASE_URL=wire.url))
        found.append(Counted(made, wire))
        yield found[0]


@pytest.mark.parametrize("scheme", [None, "key", "oauth"])
def test_one_round_trip_goes_before_the_call_of_a_warm_tool(counted: Counted, scheme: str | None) -> None:
    made = counted.world
    security = [] if scheme is None else [{scheme: []}]
    found = document(made.url, op={"at": ("get", "/op"), "security": security})
    found["components"]["securitySchemes"] = SECURED
    tool = made.register(found)
    values = {"key": {"key": {"value": "k"}}, "oauth": {"oauth": {"clientId": "i", "clientSecret": "s"}}}
    if scheme is not None:
        assert made.client.put(f"{TOOLS}/{tool}/credentials", values[scheme]).status == 200
    first, _ = counted.run(tool, "op")
    assert len(first) > 1, "a cold one reads what it needs"
    for _ in range(5):
        before, after = counted.run(tool, "op")
        assert before == [VERSION_READ]
        # Afterwards the row of the call, in a unit of its own; nothing is read again.
        assert len([one for one in after if one.startswith("QUERY INSERT INTO tool_execution ")]) == 1, after
        assert not [one for one in after if one.startswith("QUERY SELECT ")]


def test_a_version_by_its_number_costs_no_more(counted: Counted) -> None:
    tool = counted.world.register(document(counted.world.url))
    for _ in range(2):
        counted.run(tool, path={"petId": 1}, version="V1.0")
    assert counted.run(tool, path={"petId": 1}, version="V1")[0] == [VERSION_READ]
