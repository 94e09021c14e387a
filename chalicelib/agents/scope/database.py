"""The database as one agent of one app sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import ORMExecuteState, Session

from chalicelib.agents.scope.engine import OPTION, scoped_engine
from chalicelib.agents.scope.scope import Scope, ScopeViolation
from chalicelib.core.database import DatabaseService, Reads, Unit
from chalicelib.core.errors import Forbidden


class AgentUnit(Unit):
    """A unit of work of an agent."""


class AgentReads(Reads):
    """A reading session of an agent."""


def for_agent(database: DatabaseService, scope: Scope) -> DatabaseService:
    """Return the database narrowed to one agent of one app: the same connections, sessions that cannot leave the scope.

    Every statement of theirs sees the scope's rows alone, and every row that they insert is marked as the scope's.
    """
    return database.narrowed(lambda engine: scoped_engine(engine, scope), AgentUnit, AgentReads)


@contextmanager
def cross_agent(session: Session) -> Iterator[Session]:
    """Let a reading session see the rows of all agents of its app in shared tables, for an admin, while it lasts.

    What was read is forgotten at the end: the session would give it out again without asking the database.

    Raises
    ------
    errors.Forbidden
        `agent.cross_agent_role`: the caller is no admin.
    ScopeViolation
        The session writes, or is no agent's.
    """
    if not isinstance(session, AgentReads):
        raise ScopeViolation("only a reading session of an agent reads across agents")
    connection = session.connection()
    scope: Scope = connection.get_execution_options()[OPTION]
    if scope.role != "admin":
        raise Forbidden("Reading across agents needs the role admin.", code="agent.cross_agent_role")
    # Without the cache from here on: what is compiled now has other criteria.
    connection.execution_options(**{OPTION: replace(scope, cross_agent=True), "compiled_cache": None})
    try:
        yield session
    finally:
        session.expunge_all()
        connection.execution_options(**{OPTION: scope})


def _refuse_strangers(_session: Session, instance: Any) -> None:
    """An object that says it is stored already, and was not loaded here: its next flush would be about a row of its
    own choice."""
    if inspect(instance).key is not None:
        raise ScopeViolation("an object that another session loaded; load it again in this one")


def _refuse_other_engines(state: ORMExecuteState) -> None:
    if "bind" in state.bind_arguments:
        raise ScopeViolation("a statement that names its own engine")


for _kind in (AgentUnit, AgentReads):
    event.listen(_kind, "before_attach", _refuse_strangers)
    event.listen(_kind, "do_orm_execute", _refuse_other_engines)
