"""What one change costs a warm function that keeps many plugins: noticing it, and reading the one plugin again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from time import perf_counter

from sqlalchemy import select

from bench.clock import interleaved
from bench.figure import Figure, compared
from bench.machine import silence
from bench.rows import plugin_id_of, put_plugins
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.hotcache import HotCache
from chalicelib.plugins import catalog
from chalicelib.plugins.models import Plugin
from tests import databases
from tests.conftest import create_schema
from tests.plugin_rows import OWNER, caller

AREA = "reload"
MANY, FEW = 10_000, 10
ROUNDS = 60


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with ExitStack() as stack:
        stack.enter_context(silence())
        many, few = (_warm(stack, size) for size in (MANY, FEW))
        readings = interleaved({"many": many, "few": few}, ROUNDS, warm_up=3)
    return [
        compared(
            f"reload after one change among {MANY:,} plugins / among {FEW}",
            AREA, readings["many"], readings["few"], "ms", 2, scale=1000,
        )
    ]  # fmt: skip


def _warm(stack: ExitStack, size: int) -> Callable[[], float]:
    """Return what changes one of `size` plugins and times how a function that has loaded all of them follows."""
    database = create_schema(stack.enter_context(databases.new_database()))
    stack.callback(database.close)
    put_plugins(database, size, OWNER)
    function = DatabaseService(database.database_url)
    stack.callback(function.close)
    cache, who, turn = HotCache(function), caller(), count()
    cache.refresh()
    for number in range(size):
        catalog.find(cache, who, plugin_id_of(number))

    def reload() -> float:
        plugin_id = plugin_id_of(next(turn) % size)
        _change(database, plugin_id)
        began = perf_counter()
        cache.refresh()
        found = catalog.find(cache, who, plugin_id)
        elapsed = perf_counter() - began
        if len(cache) != size or found.resource["generation"] == 1:
            raise RuntimeError("the change was not followed, or more than one plugin was dropped")
        return elapsed

    return reload


def _change(database: DatabaseService, plugin_id: str) -> None:
    def work(session: Unit) -> None:
        session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one().generation += 1

    database.run(work)
