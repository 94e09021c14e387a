"""Which agents there are, and in which state: what their files say, over what admins decided.

The files are part of the release, so every function of it finds the same agents; rows are read through the hot cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, UniqueConstraint, select
from sqlalchemy.orm import Session

from chalicelib.agents.models import INDEPENDENT, SHARED, AgentRow
from chalicelib.agents.services import Services
from chalicelib.agents.spec import LoadedAgent, OwnedTable
from chalicelib.agents.tables.states import READY, check, stored_rows
from chalicelib.core.errors import NotFound
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.housekeeping import count_rows
from chalicelib.core.paging import Page
from chalicelib.core.representation import timestamp
from chalicelib.core.table_check import table_of

ENABLED, DISABLED, ERROR = "enabled", "disabled", "error"


@dataclass(frozen=True)
class Decided:
    """An agent's row."""

    is_enabled: bool
    generation: int
    history_mode: str | None
    moving_to: str | None
    updated_at: datetime


@dataclass(frozen=True)
class Agent:
    """An agent as this process has it, and what was decided about it; None where it was never migrated."""

    loaded: LoadedAgent
    decided: Decided | None

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def state(self) -> str:
        """`enabled`, `disabled`, or `error` where it could not be loaded."""
        if self.loaded.error is not None:
            return ERROR
        by_admins = self.decided is None or self.decided.is_enabled
        return ENABLED if self.loaded.agent is not None and by_admins else DISABLED

    @property
    def history_mode(self) -> str | None:
        """Where its messages are; None for one without a history."""
        if not self.loaded.history_models:
            return None
        moved = self.decided.history_mode if self.decided else None
        return moved or self.loaded.history_mode


def not_found() -> NotFound:
    """Return the 404 for an agent that this release does not have."""
    return NotFound("There is no such agent.", code="agent.not_found")


def find(services: Services, name: str) -> Agent:
    """Return an agent; one that was reloaded elsewhere is reloaded here first.

    Raises
    ------
    errors.NotFound
        `agent.not_found`.
    errors.Unavailable
        The database is away.
    """
    decided = rows(services.cache).get(name)
    loaded = services.agents.registry.get(name)
    if loaded is None:
        raise not_found()
    if decided is not None and decided.generation != (loaded.generation or 0):
        loaded = services.agents.reload(name, generation=decided.generation)
    return Agent(loaded, decided)


def rows(cache: HotCache) -> Mapping[str, Decided]:
    """Return every agent's row, by name; kept until one changes."""

    def read(session: Session) -> tuple[dict[str, Decided], list[Dependency]]:
        found = {
            row.name: Decided(
                row.is_enabled == 1, row.generation, row.history_mode, row.moving_to, row.updated_at
            )
            for row in session.scalars(select(AgentRow))
        }
        return found, [("agents", "*")]

    return cache.load(("agents.rows",), read)


def table_states(services: Services, loaded: LoadedAgent) -> Mapping[str, str]:
    """Return the state of each table that an agent uses, by name, as `migrate` left it; kept until that changes."""

    def read(session: Session) -> tuple[dict[str, str], list[Dependency]]:
        rows = stored_rows(session, loaded.tables)
        return check(rows, loaded.tables), [("agents", "*")]

    return services.cache.load(("agents.tables", loaded.name), read)


def tables_not_ready(services: Services, loaded: LoadedAgent) -> dict[str, str]:
    """Return the states of those tables that are not as the agent needs them."""
    return {name: state for name, state in table_states(services, loaded).items() if state != READY}


def list_agents(services: Services, page: Page) -> dict[str, Any]:
    """Return a page of all agents by name."""
    position = page.position(1)
    after = position[0] if position else ""
    names = [name for name in services.agents.registry.names() if name > after]
    shown = names[: page.limit]
    cursor = page.encode([shown[-1]]) if len(names) > page.limit else None
    return {"items": [summary(find(services, name)) for name in shown], "nextCursor": cursor}


def summary(agent: Agent) -> dict[str, Any]:
    """Return an agent's resource, as lists have it."""
    spec, decided, error = agent.loaded.spec, agent.decided, agent.loaded.error
    return {
        "agentName": agent.name,
        "version": spec.version if spec else None,
        "description": spec.description if spec else "",
        "author": spec.author if spec else "",
        "state": agent.state,
        "loadError": error.as_dict() if error else None,
        "warnings": list(agent.loaded.warnings),
        "tools": sorted(spec.tools) if spec else [],
        "plugins": sorted(spec.plugins) if spec else [],
        "historyMode": agent.history_mode,
        "movingTo": decided.moving_to if decided else None,
        "reloads": decided.generation if decided else 0,
        "updatedAt": timestamp(decided.updated_at) if decided else None,
    }


def detail(services: Services, agent: Agent, app_id: int) -> dict[str, Any]:
    """Return an agent's resource with its tables, and how many rows the app has in each (counted up to a bound)."""
    states = table_states(services, agent.loaded)
    with services.database.reads() as session:
        tables = [
            {
                "table": table.name,
                "mode": table.mode,
                "state": states[table.name],
                "rows": _count(session, table, app_id, agent.name) if states[table.name] == READY else None,
            }
            for table in agent.loaded.tables
        ]
    return {**summary(agent), "tables": tables}


def _count(session: Session, table: OwnedTable, app_id: int, agent_name: str) -> int | None:
    """The app's rows, up to a bound; None where no index leads to them."""
    columns: Any = table_of(table.model).c
    if table.mode == INDEPENDENT and not _leads_with_app(table_of(table.model)):
        return None
    own = columns.app_id == app_id
    if table.mode == SHARED:
        own &= columns.agent_name == agent_name
    return count_rows(session, columns.id, own)


def _leads_with_app(table: Table) -> bool:
    uniques = [one.columns for one in table.constraints if isinstance(one, UniqueConstraint)]
    indexes = [index.columns for index in table.indexes]
    return any(next(iter(columns)).name == "app_id" for columns in (*uniques, *indexes))
