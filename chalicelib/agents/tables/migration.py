"""Making agents' tables, and adding to them; on deployment only.

What is added: a table, a column that may be NULL or has a default on the server, an index that is not unique. Whatever
else differs is reported and left to a revision by hand: nothing is ever dropped or narrowed. DDL is not transactional
on MySQL: each statement stands for itself, and a migration that was killed between two goes on at the next attempt,
because it looks at the table and not at a note of what it meant to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Index, Table, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateColumn, CreateIndex

from chalicelib.agents.loading.models import table_of
from chalicelib.agents.models import AgentRow, AgentTable
from chalicelib.agents.spec import LoadedAgent, OwnedTable
from chalicelib.agents.tables.check import hash_of
from chalicelib.core import telemetry
from chalicelib.core.database import Result, Unit
from chalicelib.core.steps import declare, step
from chalicelib.core.table_check import check_table, create_table

STEPS = declare("agent_tables", ("create", "add_column", "add_index", "store"))


@dataclass(frozen=True)
class Migrated:
    """What was done to the tables of all agents.

    Parameters
    ----------
    created, changed
        Names of tables.
    problems
        By table: what a revision by hand must do.
    """

    created: tuple[str, ...]
    changed: tuple[str, ...]
    problems: dict[str, tuple[str, ...]]


def migrate_tables(
    connection: Connection, tables: Sequence[OwnedTable], agents: Iterable[LoadedAgent]
) -> Migrated:
    """Bring every table to its model as far as that only adds, and note what is there.

    Parameters
    ----------
    connection
        In AUTOCOMMIT, and holding the migration lock: nobody else makes tables meanwhile.
    tables
        Each once.
    agents
        All of them, so that each has its row.
    """
    known = {row.table_name: row for row in _rows(connection)}
    existing = set(inspect(connection).get_table_names())
    created, changed = [], []
    problems: dict[str, tuple[str, ...]] = {}
    stored: list[tuple[OwnedTable, bool, tuple[str, ...]]] = []
    for table in tables:
        row = known.get(table.name)
        if row is not None and row.owner != table.owner:
            problems[table.name] = (f"it belongs to {row.owner}",)
            continue
        if table.name not in existing:
            step("agent_tables", "create")
            create_table(connection, table_of(table.model))
            created.append(table.name)
        elif _extend(connection, table_of(table.model)):
            changed.append(table.name)
        left = tuple(_told(result) for result in check_table(connection, table.model) if not result.success)
        if left:
            problems[table.name] = left
        stored.append((table, not left, left))
    step("agent_tables", "store")
    with Unit(connection) as session:
        for table, good, left in stored:
            _note(session, table, hash_of(table.model) if good else "", left)
        sync_agents(session, agents)
        session.commit()
    telemetry.event(
        "database.tables.created", count=len(created), changed=len(changed), problems=sorted(problems)
    )
    return Migrated(tuple(created), tuple(changed), problems)


def sync_agents(session: Session, agents: Iterable[LoadedAgent]) -> None:
    """Let each agent have a row with its version, and with why it could not be loaded here.

    What admins decided stays; a row whose agent is not in this release stays, too.
    """
    for loaded in agents:
        version = loaded.spec.version if loaded.spec else ""
        error = loaded.error.as_dict() if loaded.error else None
        row = session.get(AgentRow, loaded.name)
        if row is None:
            session.add(AgentRow(name=loaded.name, version=version, load_error=error))
            continue
        # Only what differs: every change of a row makes all warm functions read the rows anew.
        if row.version != version:
            row.version = version
        if row.load_error != error:
            row.load_error = error


def _rows(connection: Connection) -> list[AgentTable]:
    with Session(connection) as session:
        rows = list(session.query(AgentTable))
        session.expunge_all()
    return rows


def _note(session: Session, table: OwnedTable, digest: str, problems: tuple[str, ...]) -> None:
    row = session.get(AgentTable, table.name)
    if row is None:
        row = AgentTable(table_name=table.name, owner=table.owner, mode=table.mode, schema_hash=digest)
        row.problems = list(problems)
        session.add(row)
        return
    if row.schema_hash != digest:
        row.schema_hash = digest
    if row.problems != list(problems):
        row.problems = list(problems)


def _extend(connection: Connection, table: Table) -> bool:
    """Add the columns and indexes that are missing; return whether there were any."""
    inspector = inspect(connection)
    columns = {column["name"] for column in inspector.get_columns(table.name)}
    indexes = {str(index["name"]) for index in inspector.get_indexes(table.name)}
    missing = [column for column in table.columns if column.name not in columns and _may_be_added(column)]
    for column in missing:
        step("agent_tables", "add_column")
        _add_column(connection, table, column)
    there = columns | {column.name for column in missing}
    added = [
        index
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if str(index.name) not in indexes and not index.unique and _columns(index) <= there
    ]
    for index in added:
        step("agent_tables", "add_index")
        connection.execute(CreateIndex(index))
    return bool(missing or added)


def _add_column(connection: Connection, table: Table, column: Column[object]) -> None:
    name = connection.dialect.identifier_preparer.format_table(table)
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")


def _may_be_added(column: Column[object]) -> bool:
    # The rows that are there have no value for it.
    return not column.primary_key and (bool(column.nullable) or column.server_default is not None)


def _columns(index: Index) -> set[str]:
    return {column.name for column in index.columns}


def _told(result: Result) -> str:
    if result.type == "table":
        return "the table is missing, or has another collation"
    return f"the {result.type.replace('_', ' ')} {result.name} differs from the model"
