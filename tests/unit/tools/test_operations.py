"""Which operations an app can call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.tools import operations, registry
from chalicelib.tools.models import SERVER, ToolMeta, ToolSchema
from chalicelib.tools.operations import CallableTool, callable_tools
from tests.conftest import create_schema
from tests.plugin_rows import OTHER, OWNER, caller
from tests.tool_documents import document
from tests.tool_rows import put_apps, put_tool, put_tools


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    service = create_schema(sqlite_url)
    put_apps(service)
    yield service
    service.close()


def found(database: DatabaseService, app_id: int = OWNER) -> list[CallableTool]:
    cache = HotCache(database)
    cache.refresh()
    return callable_tools(database, cache, app_id)


def test_own_and_shared_tools_with_their_operations(database: DatabaseService) -> None:
    own = put_tool(database, "Own", openapi=document(ping={"at": ("get", "/ping")}))
    shared = put_tool(database, "Shared", app_id=OTHER, shared=True)
    put_tool(database, "Private", app_id=OTHER)
    assert found(database) == [
        CallableTool(own, "Own", ("getPet", "ping")),
        CallableTool(shared, "Shared", ("getPet",)),
    ]
    assert [tool.name for tool in found(database, OTHER)] == ["Shared", "Private"]


def test_what_an_app_shares_itself_is_listed_once(database: DatabaseService) -> None:
    put_tool(database, shared=True)
    assert len(found(database)) == 1


def test_neither_servers_nor_what_is_deleted(database: DatabaseService) -> None:
    tool = put_tool(database)
    database.run(lambda session: registry.delete(session, caller(), tool, None, None))

    def register_server(session: object) -> None:
        session.add(ToolMeta(tool_id="mcp@1", app_id=OWNER, kind=SERVER, latest_id=1))  # type: ignore[attr-defined]
        session.add(ToolSchema(id=1, app_id=str(OWNER), tool_id="mcp@1", name="Server"))  # type: ignore[attr-defined]

    database.run(register_server)
    assert found(database) == []


def test_a_list_is_bounded_and_keeps_the_oldest(
    database: DatabaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MOST_TOOLS", 2)
    put_tools(database, ["a", "b", "c"])
    assert [tool.name for tool in found(database)] == ["a", "b"]
