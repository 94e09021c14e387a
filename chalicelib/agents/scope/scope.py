"""Whose rows a session works on."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from chalicelib.agents.names import PREFIX, SHARED_PREFIX

APP_COLUMN, AGENT_COLUMN = "app_id", "agent_name"


class ScopeViolation(RuntimeError):
    """A programming error: a statement of an agent leads beyond what is its own."""


@dataclass(frozen=True)
class Scope:
    """One agent of one app.

    Parameters
    ----------
    tables
        The agent's own tables. Beside them it may use the shared ones, and no other.
    role
        The caller's role, which decides about `cross_agent`.
    cross_agent
        Shared tables show the rows of all agents of the app; for reading only.
    """

    app_id: int
    agent_name: str
    tables: frozenset[str] = frozenset()
    role: str = "caller"
    cross_agent: bool = False

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that narrow a table to this scope.

        Raises
        ------
        ScopeViolation
            The agent has no business with that table.
        """
        if table.startswith(SHARED_PREFIX):
            return (APP_COLUMN,) if self.cross_agent else (APP_COLUMN, AGENT_COLUMN)
        if table.startswith(PREFIX) and table in self.tables:
            return (APP_COLUMN,)
        raise ScopeViolation(f"the agent {self.agent_name} may not use the table {table}")

    def values(self) -> dict[str, int | str]:
        """Return what these columns hold."""
        return {APP_COLUMN: self.app_id, AGENT_COLUMN: self.agent_name}


_current: ContextVar[Scope | None] = ContextVar("hotplug_agent_scope", default=None)


def current() -> Scope:
    """Return the scope of the session that is executing now.

    Raises
    ------
    ScopeViolation
        There is none: a statement was compiled for a scope and executed without.
    """
    scope = _current.get()
    if scope is None:
        raise ScopeViolation("a scoped statement was executed outside of a scoped session")
    return scope


def enter(scope: Scope) -> None:
    """Let `current()` return `scope` until the next statement of any session says otherwise.

    Nothing has to be left: whatever asks for the scope runs between this and the execution of the same statement.
    """
    _current.set(scope)


def value_of(column: str) -> int | str:
    """Return what a column holds in the scope of the session that is executing now."""
    return current().values()[column]
