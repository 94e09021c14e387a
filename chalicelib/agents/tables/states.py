"""Whether the tables that a process knows are those of the database: told from stored rows alone, without DDL."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.agents.models import AgentTable
from chalicelib.agents.spec import OwnedTable
from chalicelib.agents.tables.definition import schema_hash

READY, MISSING, OUTDATED, FOREIGN, UNKNOWN = "ready", "missing", "outdated", "foreign", "unknown"
STATES = (READY, MISSING, OUTDATED, FOREIGN, UNKNOWN)


def stored_rows(session: Session, tables: Iterable[OwnedTable]) -> list[AgentTable]:
    """Return what `migrate` recorded of tables: one statement, for a cold start."""
    names = sorted({table.name for table in tables})
    return list(session.scalars(select(AgentTable).where(AgentTable.table_name.in_(names))))


def check(rows: Iterable[AgentTable] | None, tables: Iterable[OwnedTable]) -> dict[str, str]:
    """Return the state of each table by its name.

    Parameters
    ----------
    rows
        As stored; None while the database is away.
    tables
        What the agents of this process declare, a name once.

    Returns
    -------
    `ready`; `missing` for a table that `migrate` has not made; `outdated` where it was not brought to the definition
    that this process has, now or before something was added to it; `foreign` for another owner's; `unknown` without
    rows.
    """
    known = None if rows is None else {row.table_name: row for row in rows}
    return {table.name: _state(known, table) for table in tables}


def _state(known: dict[str, AgentTable] | None, table: OwnedTable) -> str:
    if known is None:
        return UNKNOWN
    row = known.get(table.name)
    if row is None:
        return MISSING
    if row.owner != table.owner:
        return FOREIGN
    served = (row.schema_hash, *row.earlier_hashes)
    return READY if schema_hash(table.model) in served else OUTDATED
