"""Lists with many rows: page 1,000 must cost what page 1 costs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bench.clock import interleaved, seconds
from bench.figure import Figure, compared, plain
from bench.rows import put_installs, put_plugins
from chalicelib.core.database import DatabaseService
from chalicelib.core.paging import MAX_LIMIT, Page
from chalicelib.plugins import catalog, installs
from chalicelib.plugins.install_models import PluginInstall
from chalicelib.plugins.models import Plugin
from tests import databases
from tests.conftest import create_schema
from tests.plugin_rows import OTHER, OWNER, caller

AREA = "lists"
ROWS = 100_000
PAGE_NUMBER = 1_000
ROUNDS = 40
List = Callable[[Session, Page], dict[str, Any]]


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with databases.new_database() as url:
        database = create_schema(url)
        try:
            return _measure(database)
        finally:
            database.close()


def _measure(database: DatabaseService) -> list[Figure]:
    put_plugins(database, ROWS, OWNER, versions=False)
    put_installs(database, ROWS, OWNER)

    def plugins(session: Session, page: Page) -> dict[str, Any]:
        return catalog.list_plugins(session, caller(), page)

    def tasks(session: Session, page: Page) -> dict[str, Any]:
        return installs.list_tasks(session, caller(), page)

    def nothing(session: Session, page: Page) -> dict[str, Any]:
        return catalog.list_plugins(session, caller(OTHER), page)

    stranger = interleaved({"ms": lambda: seconds(lambda: _read(database, nothing, None))}, 5)["ms"]
    return [
        _deep(database, "plugins", plugins, Plugin),
        _deep(database, "installs", tasks, PluginInstall),
        plain(f"page 1 of the plugins of an app with none, beside {ROWS:,} of another", AREA,
              median(stranger) * 1000, "ms"),
    ]  # fmt: skip


def _deep(database: DatabaseService, name: str, read: List, model: type[Plugin | PluginInstall]) -> Figure:
    with database.reads() as session:
        position = session.scalars(
            select(model.id).order_by(model.id.desc()).offset((PAGE_NUMBER - 1) * MAX_LIMIT - 1).limit(1)
        ).one()
    cursor = _page(None).encode([position])
    for page in (None, cursor):
        if len(_read(database, read, page)["items"]) != MAX_LIMIT:
            raise RuntimeError(f"a page of {name} is not full")
    readings = interleaved(
        {
            "deep": lambda: seconds(lambda: _read(database, read, cursor)),
            "first": lambda: seconds(lambda: _read(database, read, None)),
        },
        ROUNDS,
        warm_up=3,
    )
    return compared(
        f"page {PAGE_NUMBER:,} of {ROWS:,} {name} / page 1",
        AREA, readings["deep"], readings["first"], "ms", 1.2, scale=1000,
    )  # fmt: skip


def _read(database: DatabaseService, read: List, cursor: str | None) -> dict[str, Any]:
    with database.reads() as session:
        return read(session, _page(cursor))


def _page(cursor: str | None) -> Page:
    return Page(MAX_LIMIT, cursor, {}, b"bench")
