"""The tables of `tests/corpus`, once more from outside: over HTTP, through the gateway and the function's process, to a
server on loopback that keeps every byte. What each case means is tested in this process, one by one; here the whole
way must lose nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.corpus import wire_bodies, wire_parameters
from tests.e2e.conftest import UNLIMITED
from tests.e2e.tenants import Api
from tests.integration.test_tool_wire import BOUNDARY, NOTHING, described, expected, of_cases, settled
from tests.internet import Server
from tests.least_privilege.watched import WatchedStack

pytestmark = pytest.mark.slow

SCHEMES: dict[str, tuple[dict[str, Any], dict[str, str], str, list[str]]] = {
    # Scheme, credential, what it adds to the target, the lines it adds.
    "header": (
        {"type": "apiKey", "in": "header", "name": "X-Key"}, {"value": "k 1"}, "", ["X-Key: k 1"],
    ),
    "query": ({"type": "apiKey", "in": "query", "name": "key"}, {"value": "k&2"}, "?key=k%262", []),
    "cookie": ({"type": "apiKey", "in": "cookie", "name": "s"}, {"value": "k3"}, "", ["Cookie: s=k3"]),
    "basic": (
        {"type": "http", "scheme": "basic"}, {"username": "ann", "password": "x"}, "",
        ["Authorization: Basic YW5uOng="],
    ),
    "bearer": ({"type": "http", "scheme": "bearer"}, {"token": "t.1"}, "", ["Authorization: Bearer t.1"]),
}  # fmt: skip


@dataclass
class World:
    """A stack that may call one server."""

    api: Api
    server: Server

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def register(self, document: dict[str, Any]) -> str:
        made = self.api("POST", "/api/v1/tools", 201, json={"name": "Wire", "openapi": document})
        return str(made.json()["toolId"])

    def sent(self, tool: str, operation: str, **arguments: Any) -> tuple[httpx.Response, bytes | None]:
        answer = self.api("POST", f"/api/v1/tools/{tool}/run", json={"operationId": operation, **arguments})
        return answer, self.server.requests.pop() if self.server.requests else None


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("wire") / "local"
    server = Server(NOTHING)
    environment = {**UNLIMITED, "HOTPLUG_PRIVATE_ENDPOINTS": f"127.0.0.1:{server.port}"}
    with WatchedStack(folder, api_processes=1, schedules=False, environment=environment) as stack:
        api = Api(stack.url, stack.admin_credential)
        yield World(api, server)
        api.close()
    server.close()


def test_every_parameter_arrives_as_in_the_table(outside: World) -> None:
    cases = wire_parameters.CASES
    tool = outside.register(described("3.1.0", outside.url, of_cases(cases)))  # type: ignore[arg-type]
    for case in cases:
        answer, request = outside.sent(tool, case.id, **{case.location: {"color": case.value}})
        if isinstance(case.sent, wire_parameters.Refused):
            assert (answer.status_code, request) == (422, None), case.id
            continue
        assert answer.status_code == 200, f"{case.id}: {answer.text}"
        sent = case.sent or ""
        target = f"/{case.id}" + {"path": f"/{sent}" if case.sent is not None else "", "query": sent}.get(
            case.location, ""
        )
        lines = [sent] if sent and case.location in ("header", "cookie") else []
        assert request == expected(outside, "GET", target, *lines), case.id  # type: ignore[arg-type]


def test_every_body_arrives_as_in_the_table(outside: World) -> None:
    cases = [case for case in wire_bodies.CASES if "3.1.0" in case.versions]
    paths = {
        f"/{case.id}": {
            "post": {
                "operationId": case.id,
                "requestBody": {"content": case.content},
                "responses": {"204": {"description": "none"}},
            }
        }
        for case in cases
    }
    tool = outside.register(described("3.1.0", outside.url, paths))
    for case in cases:
        named = {} if case.content_type is None else {"contentType": case.content_type}
        answer, request = outside.sent(tool, case.id, body=case.value, **named)
        if case.sent_type is None:
            assert (answer.status_code, request) == (422, None), case.id
            continue
        assert answer.status_code == 200, f"{case.id}: {answer.text}"
        assert isinstance(case.sent, bytes)
        body = case.sent.replace(b"{boundary}", BOUNDARY.encode())
        line = f"Content-Type: {case.sent_type.replace('{boundary}', BOUNDARY)}"
        assert settled(request) == expected(outside, "POST", f"/{case.id}", line, body=body), case.id  # type: ignore[arg-type]


def test_every_scheme_arrives(outside: World) -> None:
    paths = {
        f"/{name}": {
            "get": {
                "operationId": name,
                "security": [{name: []}],
                "responses": {"204": {"description": "none"}},
            }
        }
        for name in SCHEMES
    }
    declared = {name: scheme for name, (scheme, _, _, _) in SCHEMES.items()}
    tool = outside.register(described("3.1.0", outside.url, paths, securitySchemes=declared))
    values = {name: value for name, (_, value, _, _) in SCHEMES.items()}
    outside.api("PUT", f"/api/v1/tools/{tool}/credentials", 200, json=values)
    for name, (_, _, query, lines) in SCHEMES.items():
        answer, request = outside.sent(tool, name)
        assert answer.status_code == 200, f"{name}: {answer.text}"
        assert request == expected(outside, "GET", f"/{name}{query}", *lines), name  # type: ignore[arg-type]
