"""The databases of the tests of isolation, and their fixtures: a module takes those that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.agents.scope.sessions import AgentDatabase, for_agent
from chalicelib.core.database import DatabaseService
from tests import databases
from tests.unit.agents.scope.models import TABLES, scope, seeded_again, world


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], DatabaseService]]:
    """Each server's database, made when it is first asked for."""
    made: dict[str, DatabaseService] = {}
    with ExitStack() as stack:

        def on(server: str) -> DatabaseService:
            if server not in made:
                folder = tmp_path_factory.mktemp("isolation")
                url = f"sqlite:///{folder}/hotplug.db"
                made[server] = stack.enter_context(world(_new(stack) if server == "mysql" else url))
            return made[server]

        yield on


def _new(stack: ExitStack) -> str:
    try:
        return stack.enter_context(databases.new_database())
    except databases.NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(params=["sqlite", "mysql"])
def service(
    request: pytest.FixtureRequest, worlds: Callable[[str], DatabaseService]
) -> Iterator[DatabaseService]:
    yield worlds(request.param)
    seeded_again(worlds(request.param))


@pytest.fixture
def server(worlds: Callable[[str], DatabaseService]) -> Iterator[DatabaseService]:
    """MariaDB or MySQL, for what SQLite has not."""
    yield worlds("mysql")
    seeded_again(worlds("mysql"))


@pytest.fixture
def mine(service: DatabaseService) -> AgentDatabase:
    return for_agent(service, scope())


@pytest.fixture
def on_sqlite(worlds: Callable[[str], DatabaseService]) -> Iterator[AgentDatabase]:
    """For what is refused before it is sent to any server."""
    before = everything(worlds("sqlite"))
    yield for_agent(worlds("sqlite"), scope())
    assert everything(worlds("sqlite")) == before


def everything(service: DatabaseService) -> list[Any]:
    with service.connection() as connection:
        return [
            tuple(row)
            for each in TABLES
            for row in connection.execute(select(each).order_by(*each.primary_key))
        ]
