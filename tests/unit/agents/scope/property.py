"""The property: a scoped session among the rows of others does what a plain one does where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from chalicelib.agents.scope import engine as scoped_engine
from chalicelib.agents.scope.access import Access, ScopeViolation
from chalicelib.agents.scope.compiler import ScopedCompiler
from chalicelib.agents.scope.engine import Engines
from chalicelib.agents.scope.sessions import AgentDatabase
from chalicelib.core.database import DatabaseService
from tests.unit.agents.scope.models import AGENTS, APPS, TABLES, alone, scope, world
from tests.unit.agents.scope.statements import Op, operations


class Unchecked(Engines):
    """Engines without the last check: a weakened compiler then leaks, instead of being stopped."""

    def over(self, base: Engine, access: Access) -> Engine:
        known = base in self._made
        made = super().over(base, access)
        if not known:
            event.remove(self._made[base], "before_cursor_execute", scoped_engine._before_cursor_execute)
        return made


class Undone(Exception):
    """Ends a unit, so that the next example finds the database as it was."""


class Isolation:
    """The rows of all in one database, and for each agent of each app a database that has its rows alone."""

    def __init__(self, service: DatabaseService, oracles: dict[tuple[int, str], DatabaseService]) -> None:
        self._service = service
        self._oracles = oracles

    def check(self, app: int, agent: str, ops: list[Op], engines: Engines) -> None:
        """Assert that the operations see, change and add the same in both worlds, and leave the others' rows alone."""
        database = AgentDatabase(self._service, scope(app, agent), engines)
        fill = {"app_id": app, "agent_name": agent}
        expected = _outcome(self._oracles[app, agent], ops, fill)
        found = _outcome(database, ops, {})
        mine = [row for row in found[1] if _whose(row, app, agent)]
        others = [row for row in found[1] if not _whose(row, app, agent)]
        assert found[0] == expected[0], "another answer than without the rows of others"
        assert mine == expected[1], "other rows than without those of others"
        assert others == self._others(app, agent), "a row of others was changed"

    def _others(self, app: int, agent: str) -> list[Any]:
        rows = [
            row
            for whose, oracle in self._oracles.items()
            if whose != (app, agent)
            for row in _outcome(oracle, [], {})[1]
        ]
        return sorted(rows, key=repr)


def _outcome(database: Any, ops: list[Op], fill: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    answers: list[Any] = []
    rows: list[Any] = []
    try:
        with database.session_getter() as session:
            for op in ops:
                try:
                    with session.begin_nested():
                        answers.append(op.run(session, fill))
                except ScopeViolation:
                    raise
                except (SQLAlchemyError, NotImplementedError) as error:
                    # What a server cannot do, it cannot do in either world.
                    answers.append(type(error).__name__)
                    session.expunge_all()
            session.flush()
            rows = _rows(session)
            raise Undone
    except Undone:
        return answers, rows


def _rows(session: Session) -> list[Any]:
    # The driver's own cursor, in the same transaction: no scope, and no trust in what is tested.
    cursor: Any = session.get_bind().connection.cursor()
    rows = []
    for table in TABLES:
        names = ", ".join(column.name for column in table.c)
        cursor.execute(f"SELECT {names} FROM {table.name}")
        rows += [(table.name, *row) for row in cursor.fetchall()]
    cursor.close()
    return sorted(rows, key=repr)


def _whose(row: Any, app: int, agent: str) -> bool:
    name, _id, row_app, *rest = row
    if name.startswith("agentflow_shared_"):
        return bool(row_app == app and rest[0] == agent)
    return bool(row_app == app and name == f"agentflow_{agent}_own")


@contextmanager
def isolation(urls: list[str]) -> Iterator[Isolation]:
    """Fill five empty databases: the one of all, and one for each agent of each app."""
    whose = [(app, agent) for app in APPS for agent in AGENTS]
    with ExitStack() as stack:
        service = stack.enter_context(world(urls[0]))
        oracles = {
            each: stack.enter_context(alone(url, *each)) for each, url in zip(whose, urls[1:], strict=True)
        }
        yield Isolation(service, oracles)


def hold(subject: Isolation, examples: int, engines: Engines, *, shrink: bool = True) -> None:
    """Run the property; deterministic, so that what a weakened compiler leaks is found in every run."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @settings(
        max_examples=examples, derandomize=True, database=None, phases=phases, report_multiple_bugs=False
    )
    @given(
        st.sampled_from(APPS), st.sampled_from(AGENTS).flatmap(lambda a: st.tuples(st.just(a), operations(a)))
    )
    def same(app: int, agent_and_ops: tuple[str, list[Op]]) -> None:
        subject.check(app, *agent_and_ops, engines)

    same()


def weakened(**methods: Any) -> Engines:
    """Return engines whose compiler has other methods, and no last check."""
    return Unchecked(type("Weakened", (ScopedCompiler,), methods))
