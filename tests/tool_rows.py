"""Tools put straight into the database, and the services to call them with: what a test needs before it begins."""

from __future__ import annotations

from typing import Any

from chalicelib.apps.models import App
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.circuit_record import StoredCircuits
from chalicelib.core.outbound.client import HttpOut
from chalicelib.tools import drafts, registry
from chalicelib.tools.services import Services
from chalicelib.tools.tokens import Tokens
from tests.plugin_rows import OTHER, OWNER, caller
from tests.tool_documents import document

AT_ONCE = 20


def put_apps(database: DatabaseService) -> None:
    """Register the two tenants."""
    apps = [App(id=app_id, name=f"App {app_id}", alias_id=f"app-{app_id}") for app_id in (OWNER, OTHER)]
    database.run(lambda session: session.add_all(apps))


def put_tool(
    database: DatabaseService,
    name: str = "Pets",
    *,
    app_id: int = OWNER,
    shared: bool = False,
    openapi: Any = None,
) -> str:
    """Register a tool and return its id."""
    return put_tools(database, [name], app_id=app_id, shared=shared, openapi=openapi)[0]


def put_tools(
    database: DatabaseService,
    names: list[str],
    *,
    app_id: int = OWNER,
    shared: bool = False,
    openapi: Any = None,
) -> list[str]:
    """Register tools that all have one document, and return their ids."""
    draft = drafts.draft(openapi or document())
    ids: list[str] = []
    for start in range(0, len(names), AT_ONCE):
        new = [registry.NewTool(name, "", draft, shared) for name in names[start : start + AT_ONCE]]
        made = database.run(lambda session, new=new: registry.create(session, caller(app_id), new))
        ids += [one["toolId"] for one in made]
    return ids


def tool_services(database: DatabaseService, http: HttpOut) -> Services:
    """Return services on a cache that has read the versions, as at the beginning of a request."""
    cache = HotCache(database)
    cache.refresh()
    return Services(database, cache, http, Breaker(StoredCircuits(database, cache), "test"), Tokens())
