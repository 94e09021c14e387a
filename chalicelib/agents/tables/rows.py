"""The rows of `agent`, as a deployment brings them to its files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import select

from chalicelib.agents.models import AgentRow
from chalicelib.agents.names import AGENT_NAME_PATTERN
from chalicelib.agents.spec import LoadedAgent
from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import Unit

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
