"""A deployment in this process that calls servers of this machine: for tests of tools over the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from chalicelib.core import process
from chalicelib.tools.models import ToolExecution
from tests.http import Client, Deployment, Response, deployed
from tests.internet import Answer, Server

TOOLS = "/api/v1/tools"


def reply(value: Any, status: int = 200, **headers: str) -> bytes:
    """Return the bytes of a JSON answer."""
    extra = {name.replace("_", "-"): text for name, text in headers.items()}
    return raw_reply(json.dumps(value).encode(), status, {"Content-Type": "application/json", **extra})


def raw_reply(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    """Return the bytes of an answer."""
    lines = "".join(f"{name}: {text}\r\n" for name, text in (headers or {}).items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


@dataclass
class World:
    """A deployment that may call one server of this machine."""

    deployment: Deployment
    client: Client
    server: Server

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client_of(self, app: str, role: str = "publisher") -> Client:
        return Client(self.deployment.client.app, self.deployment.credential(app, role))

    def register(self, tool: dict[str, Any] | str, client: Client | None = None, **body: Any) -> str:
        made = (client or self.client).post(TOOLS, {"name": "Pets", "openapi": tool, **body})
        assert made.status == 201, made.body
        return str(made.json["toolId"])

    def run(
        self, tool: str, operation: str = "getPet", client: Client | None = None, **body: Any
    ) -> Response:
        return (client or self.client).post(f"{TOOLS}/{tool}/run", {"operationId": operation, **body})

    def rows(self) -> list[ToolExecution]:
        with process.database().reads() as session:
            return list(session.scalars(select(ToolExecution).order_by(ToolExecution.id)))


@contextmanager
def world(database_url: str, folder: Path, *answers: Answer, **values: str) -> Iterator[World]:
    """Deploy on an empty database, beside a server that gives these answers, the last one for ever.

    Parameters
    ----------
    folder
        For the file of the master key.
    values
        Further settings.
    """
    server = Server(*answers)
    key_file = folder / "key"
    key_file.write_bytes(bytes(range(32)))
    given = {"HOTPLUG_PRIVATE_ENDPOINTS": f"127.0.0.1:{server.port}", "HOTPLUG_KEY_FILE": str(key_file)}
    try:
        with deployed(database_url, **{**given, **values}) as deployment:
            client = Client(deployment.client.app, deployment.credential("acme", "admin"))
            yield World(deployment, client, server)
    finally:
        server.close()
