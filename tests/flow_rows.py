"""Flows put straight into the database: what a test needs before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chalicelib.core.database import DatabaseService
from chalicelib.flows import drafts, publishing
from chalicelib.flows.publishing import Wanted
from tests import databases
from tests.http import Deployment, deployed
from tests.plugin_rows import OWNER, caller, warm_cache
from tests.tool_rows import put_apps as put_apps


@contextmanager
def flow_deployment(kind: str, folder: Path, **values: Any) -> Iterator[Deployment]:
    """Serve Hotplug on a fresh database, `sqlite` or `mysql`, for many tests that each have tenants of their own:
    making the tables takes longer than most of them.

    Parameters
    ----------
    values
        Settings: `HOTPLUG_RATE="1"`.
    """
    with ExitStack() as opened:
        url = f"sqlite:///{folder}/hotplug.db"
        if kind == "mysql":
            url = opened.enter_context(databases.new_database())
        yield opened.enter_context(deployed(url, **values))


def graph(text: str = "hello", **parameters: str) -> dict[str, Any]:
    """Return the data of a small flow that says `text`; its parameters by name, with their types."""
    outputs = [
        {"id": f"o-{name}", "name": name, "schema": {"type": kind}, "required": True}
        for name, kind in parameters.items()
    ]
    start = {"nodeMeta": {}, "inputs": [], "outputs": outputs, "nodeParam": {}}
    end = {"nodeMeta": {}, "inputs": [], "outputs": [], "nodeParam": {"outputMode": 1, "template": text}}
    return {
        "nodes": [{"id": "node-start::1", "data": start}, {"id": "node-end::1", "data": end}],
        "edges": [{"sourceNodeId": "node-start::1", "targetNodeId": "node-end::1", "sourceHandle": ""}],
    }


def put_flow(
    database: DatabaseService,
    name: str = "Greeter",
    *,
    app_id: int = OWNER,
    data: Any = None,
    source: int = 7,
) -> int:
    """Store a draft and return the flow's id."""
    prepared = drafts.prepare(warm_cache(database), caller(app_id), data or graph(), None)
    return database.run(lambda session: drafts.create(session, caller(app_id), name, "", prepared, source).id)


def publish(
    database: DatabaseService,
    flow_id: int,
    version: str = "v1",
    platform: int = 1,
    *,
    api: bool = False,
    app_id: int = OWNER,
) -> dict[str, Any]:
    """Publish a flow as one request does it, and return the version."""
    who = caller(app_id)
    valid = publishing.check_draft(database, warm_cache(database), who, flow_id)
    wanted = Wanted(version, platform, api)
    return database.run(lambda session: publishing.publish(session, who, flow_id, wanted, valid))


def take_off(
    database: DatabaseService, flow_id: int, platform: int = 1, version: str | None = None
) -> dict[str, Any]:
    """Take a flow off a platform as one request does it."""
    return database.run(lambda session: publishing.take_off(session, caller(), flow_id, platform, version))
