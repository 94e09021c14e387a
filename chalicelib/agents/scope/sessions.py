"""The database as one agent of one app sees it: `for_agent`, and reading across agents on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, NoReturn, TypeVar, cast

from sqlalchemy import event, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from chalicelib.agents.scope.access import (
    AGENT_COLUMN,
    APP_COLUMN,
    OPTION,
    Access,
    Scope,
    ScopeViolation,
    is_shared,
)
from chalicelib.agents.scope.engine import Engines
from chalicelib.core.database import DatabaseService, Reads, Unit
from chalicelib.core.errors import Forbidden

T = TypeVar("T")
# Beside the service's own engines, so that they live as long.
_ENGINES = "agents.scope"
_ACROSS_CACHE = "hotplug.scope_across"


class ScopedUnit(Unit):
    """A unit of work of an agent."""


class ScopedReads(Reads):
    """A read session of an agent."""

    def connection(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: its options say whose rows the session sees."""
        raise ScopeViolation("a scoped session gives its connection to nobody; use execute()")

    def bulk_save_objects(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it writes."""
        raise _reads_only()

    def bulk_insert_mappings(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it writes."""
        raise _reads_only()

    def bulk_update_mappings(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it writes."""
        raise _reads_only()


class AgentDatabase:
    """A `ScopedDatabase`: the service's sessions, each statement in them scoped.

    Parameters
    ----------
    engines
        Where the scoped engines are kept; None for the service's own place.
    """

    def __init__(self, database: DatabaseService, scope: Scope, engines: Engines | None = None) -> None:
        self._database = database
        self.scope = scope
        self._engines = engines or cast("Engines", database.derived.setdefault(_ENGINES, Engines()))

    def session_getter(self) -> AbstractContextManager[Unit]:
        """Yield the session of one unit of work, as `DatabaseService.session_getter` does.

        Raises
        ------
        errors.HotplugError
            Those of `DatabaseService.session_getter`.
        ScopeViolation
            From a statement that could reach rows of others.
        """
        return self._database.session_getter(ScopedUnit, self._over(writes=True))

    @contextmanager
    def reads(self) -> Iterator[Session]:
        """Yield a session that reads, as `DatabaseService.reads` does."""
        access = Access(self.scope, writes=False)
        with self._database.reads(ScopedReads, self._over(writes=False)) as session:
            session.info.update({OPTION: access, _ACROSS_CACHE: self._engines.across})
            yield session

    def run(self, work: Callable[[Unit], T]) -> T:
        """Run `work(session)` as one unit, again after a deadlock or a lock timeout; see `DatabaseService.run`."""
        return self._database.run(work, opened=self.session_getter)

    def _over(self, *, writes: bool) -> Callable[[Engine], Engine]:
        access = Access(self.scope, writes)
        return lambda base: self._engines.over(base, access)


def for_agent(database: DatabaseService, scope: Scope) -> AgentDatabase:
    """Return the database as an agent of an app sees it.

    Example
    -------
    >>> mine = for_agent(database, Scope(app_id=7, agent="common_qa"))
    >>> with mine.reads() as session:
    ...     session.scalars(select(SharedConversationHistory)).all()  # the rows of app 7 and common_qa alone
    """
    return AgentDatabase(database, scope)


@contextmanager
def cross_agent(session: Session) -> Iterator[Session]:
    """Let a read session of an admin see the rows of all agents in the shared tables of its own app.

    Objects that it loaded are detached at the end: the session would go on handing them out.

    Raises
    ------
    errors.Forbidden
        `agent.cross_agent_role`: the caller is no admin.
    ScopeViolation
        The session writes, or is no scoped one.
    """
    access = session.info.get(OPTION)
    if not isinstance(session, ScopedReads) or not isinstance(access, Access):
        raise ScopeViolation("only a scoped read session reads across agents")
    if access.scope.role != "admin":
        raise Forbidden("Reading across agents needs the role admin.", code="agent.cross_agent_role")
    connection = Session.connection(session)
    before = connection.get_execution_options().get("compiled_cache")
    _reach(connection, replace(access, across=True), session.info[_ACROSS_CACHE])
    try:
        yield session
    finally:
        session.expunge_all()
        # One that the session gave back is not used again.
        if not connection.closed:
            _reach(connection, access, before)


def _reach(connection: Connection, access: Access, compiled: Any) -> None:
    # Options of a connection change in place: the session goes on with the one that it holds.
    connection.execution_options(**{OPTION: access, "compiled_cache": compiled})


def _reads_only() -> ScopeViolation:
    return ScopeViolation("a read session does not write; open a unit of work")


def _refuse_detached(_session: Session, row: Any) -> None:
    # With a key it counts as loaded, and the next flush, refresh or lazy load would act on whatever row has it.
    if inspect(row).key is not None:
        raise ScopeViolation("a scoped session takes new objects only; load the others through it")


def _fill(session: Session, _context: Any, _instances: Any) -> None:
    # Opened by session_getter alone, over a scoped engine.
    access = session.get_bind().get_execution_options()[OPTION]
    wanted = {APP_COLUMN: access.scope.app_id, AGENT_COLUMN: access.scope.agent}
    for row in session.new:
        for key, value in _scope_attributes(row, wanted):
            if getattr(row, key) not in (None, value):
                raise ScopeViolation(f"{key} of {type(row).__name__} is set by the session")
            setattr(row, key, value)
    for row in session.dirty:
        for key, _value in _scope_attributes(row, wanted):
            if inspect(row).attrs[key].history.has_changes():
                raise ScopeViolation(f"{key} of {type(row).__name__} never changes")


def _scope_attributes(row: Any, wanted: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for attribute in inspect(row).mapper.column_attrs:
        column: Any = attribute.columns[0]
        table = str(getattr(getattr(column, "table", None), "name", ""))
        if column.name == APP_COLUMN or (column.name == AGENT_COLUMN and is_shared(table)):
            yield attribute.key, wanted[column.name]


event.listen(ScopedUnit, "before_attach", _refuse_detached)
event.listen(ScopedReads, "before_attach", _refuse_detached)
event.listen(ScopedUnit, "before_flush", _fill)
