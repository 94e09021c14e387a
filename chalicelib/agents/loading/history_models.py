"""Which models can keep an agent's history."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import BigInteger, Column, Table, UniqueConstraint

from chalicelib.agents.loading.discovery import Discovered, SharedModels
from chalicelib.agents.loading.rules import table_of
from chalicelib.agents.models import INDEPENDENT, SHARED
from chalicelib.agents.names import SHARED_OWNER, table_name
from chalicelib.agents.spec import LoadError, OwnedTable
from chalicelib.core.database import Base

COLUMNS = ("id", "app_id", "thread_id", "role", "content", "created_at")
# Where an agent's messages go when it moves to the shared table and names no other.
SHARED_HISTORY = table_name(SHARED_OWNER, "conversation_history")
# How the pages of a thread are found; a shared table is also told apart by the agent.
_BEGINNINGS = {SHARED: ("app_id", "agent_name", "thread_id"), INDEPENDENT: ("app_id", "thread_id")}


@dataclass(frozen=True)
class HistoryModels:
    """The models by mode, and the mode of the one that the agent names; empty where it names none."""

    by_mode: dict[str, type[Base]] = field(default_factory=dict)
    mode: str | None = None


def history_models(named: type[Base] | None, discovered: Discovered, shared: SharedModels) -> HistoryModels:
    """Return the model that an agent names for its history, and the one of the other mode where there is one.

    That is `SharedConversationHistory`, or the first of the agent's own models, by name, that can keep a history.

    Raises
    ------
    LoadError
        `agent.history_model`: what it names is neither exported by its `models` package nor shared, lacks a column or
        the index by which a thread is found.
    """
    if named is None:
        return HistoryModels()
    known = {table.model: table for table in (*discovered.tables, *shared.tables)}
    chosen = known.get(named) if isinstance(named, type) else None
    if chosen is None:
        raise LoadError(
            "agent.history_model", "Its history_model is neither exported by its models package nor shared."
        )
    problems = _problems(chosen)
    if problems:
        raise LoadError(
            "agent.history_model",
            f"Its history_model {chosen.model.__name__} cannot keep a history: {'; '.join(problems)}.",
        )
    if chosen.mode == SHARED:
        others = [table for table in discovered.tables if table.mode == INDEPENDENT]
    else:
        others = [table for table in shared.tables if table.name == SHARED_HISTORY]
    fit = [table for table in others if not _problems(table)]
    return HistoryModels(
        {chosen.mode: chosen.model, **{table.mode: table.model for table in fit[:1]}}, chosen.mode
    )


def _problems(owned: OwnedTable) -> list[str]:
    table, mapper = table_of(owned.model), owned.model.__mapper__
    found = [
        f"it has no column {name} of that name"
        for name in COLUMNS
        if name not in table.columns or mapper.get_property_by_column(table.columns[name]).key != name
    ]
    if "id" in table.columns and not _counts(table):
        found.append("its id is no BIGINT that is its primary key")
    beginning = _BEGINNINGS[owned.mode]
    if not any(columns[: len(beginning)] == beginning for columns in _indexed(table)):
        found.append(f"it has no index that begins with ({', '.join(beginning)})")
    return found


def _counts(table: Table) -> bool:
    return isinstance(table.columns["id"].type, BigInteger) and [*table.primary_key.columns] == [
        table.columns["id"]
    ]


def _indexed(table: Table) -> list[tuple[str | None, ...]]:
    """Columns of every index in their order, None for an expression. That of the primary key is (id)."""
    unique = [
        tuple(column.name for column in item.columns)
        for item in table.constraints
        if isinstance(item, UniqueConstraint)
    ]
    indexes = [
        tuple(item.name if isinstance(item, Column) else None for item in index.expressions)
        for index in table.indexes
    ]
    return [*indexes, *unique]
