"""Where an agent's messages are, and the lock that keeps that from changing while they are written.

Whoever stores or deletes messages first holds the agent's row shared and reads the mode from it: what a warm function
remembers may be a moment old. Whoever moves the history holds the row alone, so there is never a writer that knows less
than the move: all that was written before is committed, all that is written after is written to both tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from chalicelib.agents.models import AgentRow
from chalicelib.core.errors import NotFound, Unavailable

# What a model must have to keep a history; a shared one also `agent_name`.
COLUMNS = ("id", "app_id", "thread_id", "role", "content", "extra_metadata", "created_at")
_THREAD_ORDER = ("thread_id", "created_at", "id")


@dataclass(frozen=True)
class Place:
    """Where an agent's messages are.

    Parameters
    ----------
    models
        The models that can keep them, by mode.
    mode
        The mode in use: `agent.history_mode`, or that of the model which the agent names.
    moving_to
        The mode that a move leads to, None without one.
    """

    models: Mapping[str, Any]
    mode: str
    moving_to: str | None = None

    @property
    def live(self) -> Any:
        """The model whose table is read."""
        return self.model(self.mode)

    @property
    def written(self) -> list[Any]:
        """The models whose tables a new message goes to."""
        modes = [self.mode] if self.moving_to is None else [self.mode, self.moving_to]
        return [self.model(mode) for mode in modes]

    @property
    def known(self) -> list[Any]:
        """The models of both modes, as far as the agent has them."""
        return list(self.models.values())

    def model(self, mode: str) -> Any:
        """Return the model of a mode.

        Raises
        ------
        errors.Unavailable
            `agent.history_missing`: the agent was deployed without the model that its messages are in or move to.
            To go on without it would lose them.
        """
        found = self.models.get(mode)
        if found is None:
            raise Unavailable(
                f"The messages of this agent are in its {mode} table, for which it declares no model.",
                code="agent.history_missing",
            )
        return found


def required(place: Place | None) -> Place:
    """Return the place.

    Raises
    ------
    errors.NotFound
        `agent.no_history` for an agent that keeps none.
    """
    if place is None:
        raise NotFound("This agent keeps no history.", code="agent.no_history")
    return place


def held(session: Session, agent_name: str, place: Place) -> Place:
    """Hold the agent's row shared until the unit ends, and return the place as that row has it.

    An agent that was never migrated has no row; nothing can move it either.
    """
    # One statement: the mode must be the one that the lock keeps.
    row = session.execute(
        select(AgentRow.history_mode, AgentRow.moving_to)
        .where(AgentRow.name == agent_name)
        .with_for_update(read=True)
    ).one_or_none()
    if row is None:
        return place
    return replace(place, mode=row.history_mode or place.mode, moving_to=row.moving_to)


def held_alone(session: Session, agent_name: str) -> AgentRow | None:
    """Hold the agent's row alone until the unit ends and return it, None where there is none."""
    row = select(AgentRow).where(AgentRow.name == agent_name).with_for_update()
    return session.scalars(row.execution_options(populate_existing=True)).one_or_none()


def of_agent(model: Any, agent_name: str) -> list[ColumnElement[bool]]:
    """Return the condition for an agent's rows of all apps; none in a table of its own."""
    return [model.agent_name == agent_name] if is_shared(model) else []


def of_app(model: Any, app_id: int, agent_name: str) -> list[ColumnElement[bool]]:
    """Return the conditions for an agent's rows of one app, in the order of the index."""
    return [model.app_id == app_id, *of_agent(model, agent_name)]


def is_shared(model: Any) -> bool:
    """True for a table in which a column tells the agent."""
    return "agent_name" in model.__table__.c


def missing_columns(model: Any) -> list[str]:
    """Return what a model lacks to keep a history."""
    return [name for name in COLUMNS if name not in model.__table__.c]


def thread_index(model: Any) -> str | None:
    """Return the name of the index that has a thread's messages in their order, None without one."""
    first = ("app_id", "agent_name") if is_shared(model) else ("app_id",)
    for index in model.__table__.indexes:
        if tuple(column.name for column in index.columns) == (*first, *_THREAD_ORDER):
            return str(index.name)
    return None
