"""Whose rows a session may see: the scope, what it allows, and how it reaches the statements."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import BigInteger, BindParameter, String, bindparam

from chalicelib.agents.names import PREFIX, SHARED_PREFIX

if TYPE_CHECKING:
    from chalicelib.agents.spec import OwnedTable
    from chalicelib.core.caller import Caller

APP_COLUMN, AGENT_COLUMN = "app_id", "agent_name"
# Unlike any name of a column or of an author's parameter: what a caller hands in under these is refused.
APP_BIND, AGENT_BIND = "hotplug_scope_app_id", "hotplug_scope_agent_name"
# The execution option of a connection that holds its `Access`.
OPTION = "hotplug_scope"


class ScopeViolation(RuntimeError):
    """A programming error of an agent: a statement that could reach what is not its own."""


@dataclass(frozen=True)
class Scope:
    """One agent of one app.

    Parameters
    ----------
    tables
        The agent's own (independent) tables, by name. The shared ones are everybody's.
    role
        The caller's, one of `core.caller.ROLES`; reading across agents needs `admin`.
    """

    app_id: int
    agent: str
    tables: frozenset[str] = frozenset()
    role: str = "viewer"

    @classmethod
    def of(cls, caller: Caller, agent: str, tables: Iterable[OwnedTable]) -> Self:
        """Return the scope of an agent that works for a caller; of `tables`, those that it owns count."""
        own = frozenset(table.name for table in tables if table.owner == agent)
        return cls(caller.app_id, agent, own, caller.role)


@dataclass(frozen=True)
class Access:
    """What a connection may do: the scope, whether it writes, and whether it reads all agents of the app."""

    scope: Scope
    writes: bool
    across: bool = False

    def require(self, table: str) -> None:
        """Refuse a table that is neither shared nor the agent's own.

        Raises
        ------
        ScopeViolation
        """
        if not is_shared(table) and table not in self.scope.tables:
            raise ScopeViolation(
                f"the agent {self.scope.agent} has no table {table}: it may use the shared tables and its own"
            )


# Set for each statement before it is compiled, from its connection; the callables below read it.
current: ContextVar[Access] = ContextVar("hotplug_scope_access")


def is_shared(table: str) -> bool:
    """Return whether the table is one of all agents, whose rows have an `agent_name`."""
    return table.startswith(SHARED_PREFIX)


def require_agent_table(table: str, schema: str | None = None) -> str:
    """Return the name in the letters that the database has it in, or refuse it: no table of agents, or not in their
    schema.

    Raises
    ------
    ScopeViolation
    """
    # SQLite finds a table in any case of letters.
    lowered = str(table).lower()
    if schema or not lowered.startswith(PREFIX):
        raise ScopeViolation(f"an agent has no access to the table {f'{schema}.' if schema else ''}{table}")
    return lowered


def app_value() -> BindParameter[Any]:
    """Return the parameter that is the session's app, whoever compiled the statement."""
    return bindparam(APP_BIND, type_=BigInteger(), callable_=lambda: current.get().scope.app_id)


def agent_value() -> BindParameter[Any]:
    """Return the parameter that is the session's agent."""
    return bindparam(AGENT_BIND, type_=String(), callable_=lambda: current.get().scope.agent)
