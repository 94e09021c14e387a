"""Isolation as a property: random statements of two agents of two apps, on SQLite and on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chalicelib.agents.scope.access import APP_BIND, APP_COLUMN
from chalicelib.agents.scope.compiler import ScopedCompiler
from chalicelib.agents.scope.engine import Engines
from tests import databases
from tests.unit.agents.scope.property import Isolation, hold, isolation, weakened

DATABASES = 5
# What SQLAlchemy says of joins and keys that hypothesis makes.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolation]:
    folder: Path = tmp_path_factory.mktemp("isolation")
    with isolation([f"sqlite:///{folder}/{n}.db" for n in range(DATABASES)]) as subject:
        yield subject


@pytest.fixture(scope="module")
def on_a_server() -> Iterator[Isolation]:
    with ExitStack() as stack:
        try:
            urls = [stack.enter_context(databases.new_database()) for _ in range(DATABASES)]
        except databases.NoServer as error:
            pytest.fail(str(error), pytrace=False)
        yield stack.enter_context(isolation(urls))


def test_no_statement_sees_or_touches_rows_of_others_on_sqlite(on_sqlite: Isolation) -> None:
    hold(on_sqlite, 120, Engines())


def test_no_statement_sees_or_touches_rows_of_others_on_a_server(on_a_server: Isolation) -> None:
    hold(on_a_server, 80, Engines())


def _recorded(name: str) -> Any:
    def without(self: ScopedCompiler, element: Any) -> list[Any]:
        # Said to be scoped, and not.
        getattr(ScopedCompiler, name)(self, element)
        return []

    return {name: without}


def _another_app(self: ScopedCompiler, table: str) -> dict[str, Any]:
    from sqlalchemy import BigInteger, bindparam

    given = ScopedCompiler.insert_values(self, table)
    return given | {APP_COLUMN: bindparam(APP_BIND, type_=BigInteger(), callable_=lambda: 2)}


@pytest.mark.parametrize(
    "methods",
    [
        _recorded("select_criteria"),
        _recorded("join_criteria"),
        _recorded("update_criteria"),
        _recorded("delete_criteria"),
        {"insert_values": _another_app},
    ],
    ids=["select", "join", "update", "delete", "insert"],
)
def test_a_compiler_that_lacks_one_criterion_is_found_out(
    on_sqlite: Isolation, methods: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError, match=r"rows? of others|those of others"):
        hold(on_sqlite, 200, weakened(**methods), shrink=False)
