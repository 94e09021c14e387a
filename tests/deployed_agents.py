"""A deployment in this process with its agents and their tables, as `migrate` leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chalicelib.agents.loading.process import registry_of_process
from chalicelib.agents.loading.registry import agent_tables
from chalicelib.agents.tables.migration import migrate_agent_tables
from chalicelib.agents.tables.rows import sync_agents
from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.llm.model import ChatMessage, ChatOptions, Completion, Usage
from chalicelib.events.migration import exclusive_connection
from examples.agents.cmdb import Cmdb, document
from tests.http import Client, Deployment, Response, deployed

AGENTS = "/api/v1/agents"


def make_tables(database: DatabaseService) -> None:
    """Make the tables and rows of every agent of this release."""
    registry = registry_of_process()
    with exclusive_connection(database) as connection:
        migrate_agent_tables(connection, agent_tables(registry))
    database.run(lambda session: sync_agents(session, registry.all()))


@dataclass
class FakeLlm:
    """A model that answers what it was given to, or raises it; `asked` is what it saw."""

    answers: list[str | Exception]
    asked: list[tuple[tuple[ChatMessage, ...], ChatOptions]] = field(default_factory=list)
    configured: bool = True

    def chat(self, messages: Any, options: ChatOptions | None = None) -> Completion:
        self.asked.append((tuple(messages), options or ChatOptions()))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Completion(answer, Usage(11, 5, 1), "fake-1", "stop")


@dataclass
class Talks:
    """A deployment whose apps talk to agents, beside a configuration database."""

    deployment: Deployment
    cmdb: Cmdb

    def client(self, app: str = "acme", role: str = "admin") -> Client:
        return Client(self.deployment.client.app, self.deployment.credential(app, role))

    def ask(self, message: str, agent: str = "common_qa", app: str = "acme", **more: Any) -> Response:
        return self.client(app, "caller").post(f"{AGENTS}/{agent}/invoke", {"message": message, **more})

    def said(self, thread_id: str, agent: str = "common_qa", app: str = "acme") -> list[tuple[str, str]]:
        """Return (role, content) of every message, the oldest first."""
        page = self.client(app).get(f"{AGENTS}/{agent}/threads/{thread_id}/messages?limit=100")
        return [(one["role"], one["content"]) for one in page.json["items"]][::-1]

    def register_cmdb(self, app: str = "acme", url: str | None = None, **body: Any) -> str:
        """Register the configuration database as the tool `cmdb` and return its id."""
        new = {"name": "cmdb", "openapi": document(url or self.cmdb.url), **body}
        made = self.client(app).post("/api/v1/tools", new)
        assert made.status == 201, made.body
        return str(made.json["toolId"])


@contextmanager
def talking(database_url: str, folder: Path, **values: str) -> Iterator[Talks]:
    """Deploy on an empty database, with the agents' tables.

    Parameters
    ----------
    folder
        For the file of the master key.
    values
        Further settings.
    """
    key_file = folder / "key"
    key_file.write_bytes(bytes(range(32)))
    cmdb = Cmdb()
    given = {"HOTPLUG_PRIVATE_ENDPOINTS": cmdb.host, "HOTPLUG_KEY_FILE": str(key_file)}
    try:
        with deployed(database_url, **{**given, **values}) as deployment:
            make_tables(process.database())
            yield Talks(deployment, cmdb)
    finally:
        cmdb.close()
