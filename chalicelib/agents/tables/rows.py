"""The rows of `agent` as a deployment finds them, and how many rows an agent has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chalicelib.agents.models import AgentRow
from chalicelib.agents.names import AGENT_NAME_PATTERN, SHARED_PREFIX
from chalicelib.agents.spec import LoadedAgent
from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import Base, Unit
from chalicelib.core.table_check import table_of

COUNTED = 10_000
MAX_VERSION = 64


def sync_agents(session: Unit, loaded: Iterable[LoadedAgent]) -> None:
    """Add the rows that are missing, and set version and load error of those that differ.

    What admins decided (enabled or not, where the history is, the generation) stays. A directory whose name no path of
    the API can have gets no row.

    Parameters
    ----------
    session
        A unit of `database.run`, which repeats it where an admin changes an agent meanwhile.
    """
    agents = {one.name: one for one in loaded if re.fullmatch(AGENT_NAME_PATTERN, one.name)}
    # Taken by every change of an agent when it commits: of two deployments at once the second one finds the rows.
    scope = select(CacheVersion).where(CacheVersion.scope == AgentRow.cache_scope)
    session.scalars(scope.with_for_update()).one()
    query = select(AgentRow).where(AgentRow.name.in_(sorted(agents)))
    rows = {row.name: row for row in session.scalars(query, execution_options={"populate_existing": True})}
    for name, agent in sorted(agents.items()):
        # The version of one whose agent.yaml cannot be read is the one that was deployed before.
        version = agent.spec.version[:MAX_VERSION] if agent.spec is not None else None
        error = agent.error.as_dict() if agent.error is not None else None
        row = rows.get(name)
        if row is None:
            session.add(AgentRow(name=name, version=version or "", load_error=error))
            continue
        if version is not None and row.version != version:
            row.version = version
        if row.load_error != error:
            row.load_error = error


def count_rows(session: Session, model: type[Base], agent_name: str, bound: int = COUNTED) -> int | None:
    """Return how many rows an agent has in a table, of all apps together and at most `bound`.

    Returns
    -------
    None for a shared table none of whose indexes begins with `agent_name`: it would be read from end to end.
    """
    table = table_of(model)
    keys: Any = select(*table.primary_key.columns).limit(bound)
    if table.name.startswith(SHARED_PREFIX):
        if not any(next(iter(index.columns)).name == "agent_name" for index in table.indexes):
            return None
        keys = keys.where(table.columns["agent_name"] == agent_name)
    return session.scalar(select(func.count()).select_from(keys.subquery())) or 0
