"""What may be done to a table so that it becomes what its model says, and what may not.

Only what cannot fail on the rows that are there, and takes nothing away, is done: a table, a column that may be empty
(or has the server's default), an index that is not unique. All else is told, for a revision that somebody writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Dialect, Inspector, Table, inspect
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateIndex

from chalicelib.core.database import Base, Result, is_disconnect
from chalicelib.core.server_errors import is_lock_failure
from chalicelib.core.steps import declare, step
from chalicelib.core.table_check import (
    COLLATION,
    IndexShape,
    check_table,
    column_collation,
    create_table,
    found_indexes,
    table_of,
    type_name,
    wanted_indexes,
)

OPERATION = "agent_tables"
STEPS = declare(OPERATION, ("create_table", "add_column", "create_index", "record"))
TABLE, COLUMN, INDEX = "table", "column", "index"
_STEP = {TABLE: "create_table", COLUMN: "add_column", INDEX: "create_index"}
MOST_TOLD = 300


@dataclass(frozen=True)
class Change:
    """One addition, which one statement makes: `kind` is `table`, `column` or `index`."""

    kind: str
    name: str


def plan_changes(connection: Connection, model: type[Base]) -> tuple[Change, ...]:
    """Return what may be added so that the table becomes what the model says; nothing is changed."""
    table, inspector = table_of(model), inspect(connection)
    if not inspector.has_table(table.name):
        return (Change(TABLE, table.name),)
    there = {column["name"] for column in inspector.get_columns(table.name)}
    columns = [column.name for column in table.columns if column.name not in there and _addable(column)]
    there.update(columns)
    found = found_indexes(inspector, table.name)
    indexes = [
        str(index.name)
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if not index.unique and index.name not in found and {one.name for one in index.columns} <= there
    ]
    return (*(Change(COLUMN, name) for name in columns), *(Change(INDEX, name) for name in indexes))


def _addable(column: Column[Any]) -> bool:
    return not column.primary_key and (bool(column.nullable) or column.server_default is not None)


def apply(connection: Connection, change: Change, model: type[Base]) -> str | None:
    """Make one addition on a connection in AUTOCOMMIT, or inside SQLite's transaction.

    Returns
    -------
    Why it could not be made, as a text; None where it was. That another process was faster shows when the table is
    compared afterwards: what is there by then is no difference.
    """
    table = table_of(model)
    try:
        step(OPERATION, _STEP[change.kind])
        if change.kind == TABLE:
            create_table(connection, table)
        else:
            connection.exec_driver_sql(_statement(connection.dialect, table, change))
    except SQLAlchemyError as error:
        if is_disconnect(error):
            raise
        return _told(error)
    return None


def _statement(dialect: Dialect, table: Table, change: Change) -> str:
    on_mysql = isinstance(dialect, MySQLDialect)
    if change.kind == COLUMN:
        quoted = dialect.identifier_preparer.format_table(table)
        definition = CreateColumn(table.columns[change.name]).compile(dialect=dialect)
        return f"ALTER TABLE {quoted} ADD COLUMN {definition}"
    index = next(index for index in table.indexes if index.name == change.name)
    made = str(CreateIndex(index).compile(dialect=dialect))
    # The table is in use: rather no index than one that keeps its writers waiting.
    return f"{made} ALGORITHM=INPLACE LOCK=NONE" if on_mysql else made


def _told(error: SQLAlchemyError) -> str:
    if isinstance(error, DBAPIError):
        if is_lock_failure(error):
            return "the table was in use for too long; migrate again"
        # Of DDL that adds: it names columns and indexes, never what is in a row.
        return f"the server refused it: {getattr(error.orig, 'args', ('',))[-1]}"[:MOST_TOLD]
    return str(error)[:MOST_TOLD]


# -- what is left ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Differences:
    """How a table differs from its model: `hindering` what the model cannot be used with, `harmless` what the table has
    and the model has not."""

    hindering: tuple[str, ...]
    harmless: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        return [*self.hindering, *self.harmless]


def differences(connection: Connection, model: type[Base], refused: dict[Change, str]) -> Differences:
    """Compare a table with its model, and say why of each difference.

    Parameters
    ----------
    refused
        What was tried in vain, with the reason.
    """
    table, inspector = table_of(model), inspect(connection)
    failed = [result for result in check_table(connection, model) if not result.success]
    reasons = {(result.type, result.name): _why(inspector, table, result) for result in failed}
    told = {(change.kind, change.name): why for change, why in refused.items()}
    # What was refused in one round and is there after the next is no difference any more.
    reasons |= {key: why for key, why in told.items() if key in reasons}
    hindering = [f"{kind} {name}: {why}" for (kind, name), why in reasons.items()]
    return Differences(tuple(hindering), tuple(_harmless(inspector, table, failed)))


def _why(inspector: Inspector, table: Table, result: Result) -> str:
    if result.type == "table":
        there = inspector.has_table(table.name)
        return f"has another collation than {COLLATION}" if there else "is missing"
    if result.type == "column":
        return _why_column(inspector, table, result.name)
    if result.type == "index" and result.name != "PRIMARY":
        found = found_indexes(inspector, table.name).get(result.name)
        return _why_index(found, wanted_indexes(table).get(result.name))
    return "is not the model's"


def _why_column(inspector: Inspector, table: Table, name: str) -> str:
    seen = next((one for one in inspector.get_columns(table.name) if one["name"] == name), None)
    wanted = table.columns.get(name)
    if seen is None:
        return (
            "is missing, and cannot be added: it has neither NULL nor a default for the rows that are there"
        )
    if wanted is None:
        return "must be given a value, and the model does not know it"
    collation = column_collation(inspector, table.name, seen["type"])
    return (
        f"is {_spelled(inspector.dialect, seen['type'], seen['nullable'])}"
        f"{f' collate {collation}' if collation not in (None, COLLATION) else ''}, "
        f"and the model's is {_spelled(inspector.dialect, wanted.type, wanted.nullable)}"
    )


def _spelled(dialect: Dialect, kind: Any, nullable: bool | None) -> str:
    return f"{type_name(kind, dialect)} {'null' if nullable else 'not null'}"


def _why_index(found: IndexShape | None, wanted: IndexShape | None) -> str:
    if found is None:
        return "is missing, and a unique one is not added: rows that are there may break it"
    if wanted is None:
        return f"is {_shape(found)}, which the model does not know"
    return f"is {_shape(found)}, and the model's is {_shape(wanted)}"


def _shape(index: IndexShape) -> str:
    columns, unique = index
    return f"{'unique ' if unique else ''}({', '.join(columns)})"


def _harmless(inspector: Inspector, table: Table, failed: list[Result]) -> list[str]:
    if not inspector.has_table(table.name):
        return []
    told = {(result.type, result.name) for result in failed}
    columns = {column["name"] for column in inspector.get_columns(table.name)} - set(table.columns.keys())
    # MySQL makes an index of its own for a foreign key.
    own = {*wanted_indexes(table), *(str(key.name) for key in table.foreign_key_constraints)}
    indexes = set(found_indexes(inspector, table.name)) - own
    extra = [(COLUMN, name) for name in sorted(columns)] + [(INDEX, name) for name in sorted(indexes)]
    return [
        f"{kind} {name}: the model does not know it; it stays"
        for kind, name in extra
        if (kind, name) not in told
    ]
