"""What admins do with an agent: enable, disable, reload. A row and a bump; files stay as they are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from chalicelib.agents import catalog
from chalicelib.agents.catalog import Agent, Decided
from chalicelib.agents.models import AgentRow
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, Unavailable


def enable(session: Unit, caller: Caller, agent: Agent) -> dict[str, Any]:
    """Let an agent be called; return its resource.

    Raises
    ------
    errors.Conflict
        `agent.disabled_by_file`; `agent.broken` for one that could not be loaded.
    """
    error = agent.loaded.error
    if error is not None:
        raise Conflict(
            f"The agent could not be loaded: {error.detail}",
            code="agent.broken",
            extensions={"loadError": error.as_dict()},
        )
    if agent.loaded.agent is None:
        raise Conflict("Its agent.yaml says `enabled: false`.", code="agent.disabled_by_file")
    return _decide(session, caller, agent, "enable", enabled=True)


def disable(session: Unit, caller: Caller, agent: Agent) -> dict[str, Any]:
    """Refuse calls of an agent from now on, in every function; return its resource."""
    return _decide(session, caller, agent, "disable", enabled=False)


def reload(session: Unit, caller: Caller, agent: Agent) -> dict[str, Any]:
    """Let every warm function make a new instance before its next call; return the resource."""
    row = held(session, agent)
    before = _decided(row)
    row.generation += 1
    return _recorded(session, caller, agent, "reload", row, before)


def held(session: Unit, agent: Agent) -> AgentRow:
    """Return the agent's row, locked.

    Raises
    ------
    errors.Unavailable
        `agent.not_migrated`: the deployment's `migrate` has not seen this agent yet.
    """
    row = session.scalars(select(AgentRow).where(AgentRow.name == agent.name).with_for_update()).one_or_none()
    if row is None:
        raise Unavailable(
            "The agent has no row yet: the deployment is still being migrated.",
            code="agent.not_migrated",
            retry_after=5,
        )
    return row


def _decide(session: Unit, caller: Caller, agent: Agent, verb: str, *, enabled: bool) -> dict[str, Any]:
    row = held(session, agent)
    before = _decided(row)
    if before.is_enabled != enabled:
        row.is_enabled = int(enabled)
    return _recorded(session, caller, agent, verb, row, before)


def _recorded(
    session: Unit, caller: Caller, agent: Agent, verb: str, row: AgentRow, before: Decided
) -> dict[str, Any]:
    session.flush()
    shown = catalog.summary(Agent(agent.loaded, _decided(row)))
    old = catalog.summary(Agent(agent.loaded, before))
    audit.record(session, caller, f"agent.{verb}", "agent", agent.name, before=old, after=shown)
    return shown


def _decided(row: AgentRow) -> Decided:
    return Decided(row.is_enabled == 1, row.generation, row.history_mode, row.moving_to, row.updated_at)
