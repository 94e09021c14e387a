"""Is a table as its model needs it: told from what `migrate` left, without asking for the table itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from chalicelib.agents.loading.models import table_of
from chalicelib.agents.spec import OwnedTable
from chalicelib.agents.tables.definition import schema_hash
from chalicelib.core.database import Base

READY, MISSING, OUTDATED, FOREIGN, UNCLAIMED = "ready", "missing", "outdated", "foreign", "unclaimed"


@dataclass(frozen=True)
class StoredTable:
    """The row of a table."""

    owner: str
    schema_hash: str
    problems: tuple[str, ...]


def state_of(table: OwnedTable, stored: StoredTable | None) -> str:
    """Return `ready`, or why an agent cannot work with a table.

    `missing`: never made. `outdated`: made by another definition, or one that could not be followed. `foreign`: made
    for another agent.
    """
    if stored is None:
        return MISSING
    if stored.owner != table.owner:
        return FOREIGN
    return READY if stored.schema_hash == hash_of(table.model) else OUTDATED


@lru_cache(maxsize=1024)
def hash_of(model: type[Base]) -> str:
    """Return the hash of a model's definition; it is asked for at every call of an agent."""
    return schema_hash(table_of(model))
