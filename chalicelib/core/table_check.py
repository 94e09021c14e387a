"""Does the database agree with the models; and the tables that are missing in it.

Only `create_missing` and `create_table` write, and they never alter: what exists and differs is shown by `check_table`
and changed by a migration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Dialect,
    Index,
    Inspector,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from chalicelib.core.connections import mysql_connect_args
from chalicelib.core.database import Base, DatabaseService, Result
from chalicelib.core.errors import HotplugError
from chalicelib.core.server_errors import server_code

TABLE_EXISTS, NO_DATABASE = 1050, 1049
COLLATION = "utf8mb4_bin"
# Its columns in their order, and whether it is unique.
IndexShape = tuple[tuple[str, ...], bool]
_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX (\S+) ON \S+ (\(.*\))", re.DOTALL)
# What servers add to a type or spell in another way; it does not change what is stored.
_NOISE = (
    (re.compile(r" (?:character set|charset|collate) \S+"), ""),
    (re.compile(r"\b(tinyint|smallint|mediumint|integer|int|bigint)\(\d+\)"), r"\1"),
    (re.compile(r"\bint\b"), "integer"),
    (re.compile(r"\bbool(ean)?\b"), "tinyint"),
    (re.compile(r"\bnumeric\b"), "decimal"),
    (re.compile(r"\s+"), " "),
)


class SchemaMismatch(HotplugError):
    """A table exists and differs from its model: creating what is missing cannot repair it."""


def check_table(bind: Engine | Connection, model: type[Base]) -> list[Result]:
    """Compare a table with its model.

    Parameters
    ----------
    bind
        The database; nothing in it is changed.
    model
        A mapped class.

    Returns
    ------- One `table` result; then, where the table exists, one per column (type and nullability), per
    foreign key and per index (its columns, in order, and whether it is unique; the primary key is named
    `PRIMARY`). What the database has and the model has not is listed, as a failure, where it could refuse the
    model's rows: a column that must be given a value, a unique index. A wrong collation fails the table.
    """
    table = table_of(model)
    inspector = inspect(bind)
    if not inspector.has_table(table.name):
        return [Result(table.name, "table", False)]
    return [
        Result(table.name, "table", _collation_agrees(inspector, table.name)),
        *_columns(inspector, table),
        *_indexes(inspector, table),
        *_foreign_keys(inspector, table),
    ]


def create_missing(database: DatabaseService, models: list[type[Base]] | None = None) -> None:
    """Create the database where it is absent and the tables that are missing in it; never alter one.

    Parameters
    ----------
    models
        Whose tables; None for those of every model that has been imported.

    Raises
    ------
    SchemaMismatch
        A table is there that does not agree with its model.
    """
    create_database(database)
    tables = list(Base.metadata.sorted_tables)
    if models is not None:
        wanted = {table_of(model) for model in models}
        tables = [table for table in tables if table in wanted]
    with database.connection() as connection, _exclusive(connection):
        existing = set(inspect(connection).get_table_names())
        for table in tables:
            if table.name not in existing:
                create_table(connection, table)
        mapped = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
        wrong = [
            f"{table.name}: {result.type} {result.name}"
            for table in tables
            for result in check_table(connection, mapped[table])
            if not result.success
        ]
    if wrong:
        raise SchemaMismatch(
            "The database does not agree with the models: " + "; ".join(wrong), code="database.schema"
        )


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """On SQLite one transaction, so that nobody sees a table without its indexes; MySQL has no such thing for
    DDL, and there each table is made by one statement."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def create_database(database: DatabaseService) -> None:
    """Create the database itself where the server has none of that name. SQLite makes its file by itself."""
    if database.is_sqlite or _exists(database):
        return
    url = database.engine.url
    server = create_engine(
        url.set(database=""),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=mysql_connect_args(url, 3, database.ca_file),
    )
    name = server.dialect.identifier_preparer.quote_identifier(str(url.database))
    with server.connect() as connection:
        connection.execute(
            text(f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE {COLLATION}")
        )


def _exists(database: DatabaseService) -> bool:
    try:
        with database.connection():
            return True
    except OperationalError as error:
        if server_code(error) == NO_DATABASE:
            return False
        raise


def create_table(connection: Connection, table: Table) -> None:
    """Create a table with its indexes, on MySQL by one statement; one that another process made meanwhile is left as
    it is, and whether that is what the model wants must be checked afterwards."""
    statement = str(CreateTable(table).compile(dialect=connection.dialect))
    indexes = [str(CreateIndex(index).compile(dialect=connection.dialect)) for index in _ordered(table)]
    if connection.dialect.name == "sqlite":
        for text_ in (statement, *indexes):
            connection.exec_driver_sql(text_)
        return
    head, options = statement.rsplit("\n)", 1)
    keys = [_INDEX.sub(r", \n\t\1INDEX \2 \3", index) for index in indexes]
    try:
        connection.exec_driver_sql(head + "".join(keys) + "\n)" + options)
    except OperationalError as error:
        if server_code(error) != TABLE_EXISTS:
            raise


def _ordered(table: Table) -> list[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))


def table_of(model: type[Base]) -> Table:
    """Return the table of a model; a TypeError for one that has none."""
    table = model.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{model.__name__} has no table of its own")
    return table


def _collation_agrees(inspector: Inspector, name: str) -> bool:
    # Identifiers compare byte for byte: under another collation 'A' would be 'a' and a unique key refuse it.
    return not isinstance(inspector.dialect, MySQLDialect) or _collation(inspector, name) == COLLATION


def _collation(inspector: Inspector, name: str) -> str | None:
    options: dict[str, Any] = dict(inspector.get_table_options(name))
    return next((str(value).lower() for key, value in options.items() if key.endswith("_collate")), None)


def column_collation(inspector: Inspector, table: str, kind: Any) -> str | None:
    """Return the collation of a column that was found in a table; None for one that has none, as a number. MariaDB
    does not tell of one that is the table's, MySQL does."""
    if not isinstance(inspector.dialect, MySQLDialect) or not isinstance(kind, String):
        return None
    return str(kind.collation).lower() if kind.collation else _collation(inspector, table)


def _columns(inspector: Inspector, table: Table) -> list[Result]:
    dialect = inspector.dialect
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    results = []
    for column in table.columns:
        seen = found.pop(column.name, None)
        agrees = (
            seen is not None
            and type_name(seen["type"], dialect) == type_name(column.type, dialect)
            and bool(seen["nullable"]) == bool(column.nullable)
            and _collates(
                column_collation(inspector, table.name, seen["type"]), column.type.dialect_impl(dialect)
            )
        )
        results.append(Result(column.name, "column", agrees))
    for name, extra in found.items():
        if not extra["nullable"] and extra["default"] is None and not extra.get("computed"):
            results.append(Result(name, "column", False))
    return results


def _collates(found: str | None, wanted: Any) -> bool:
    return found is None or found == str(getattr(wanted, "collation", None) or COLLATION).lower()


def type_name(kind: Any, dialect: Dialect) -> str:
    """Return a column's type as every server spells it, without what does not change what is stored."""
    name = str(kind.dialect_impl(dialect).compile(dialect=dialect)).lower()
    for pattern, replacement in _NOISE:
        name = pattern.sub(replacement, name)
    return name.strip()


def _indexes(inspector: Inspector, table: Table) -> list[Result]:
    primary = inspector.get_pk_constraint(table.name)["constrained_columns"]
    results = [Result("PRIMARY", "index", primary == [column.name for column in table.primary_key.columns])]
    found = found_indexes(inspector, table.name)
    for name, expected in wanted_indexes(table).items():
        results.append(Result(name, "index", found.pop(name, None) == expected))
    results += [Result(name, "index", False) for name, (_, unique) in found.items() if unique]
    return results


def found_indexes(inspector: Inspector, name: str) -> dict[str, IndexShape]:
    """Return the indexes and unique constraints that a table has, by their names."""
    found: dict[str, IndexShape] = {
        str(index["name"]): (tuple(str(name) for name in index["column_names"]), bool(index["unique"]))
        for index in inspector.get_indexes(name)
    }
    for unique in inspector.get_unique_constraints(name):
        found[str(unique["name"])] = (tuple(unique["column_names"]), True)
    return found


def wanted_indexes(table: Table) -> dict[str, IndexShape]:
    """Return the indexes and unique constraints that a model declares, by their names."""
    wanted: dict[str, IndexShape] = {
        str(index.name): (tuple(column.name for column in index.columns), bool(index.unique))
        for index in _ordered(table)
    }
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            wanted[str(constraint.name)] = (tuple(column.name for column in constraint.columns), True)
    return wanted


def _foreign_keys(inspector: Inspector, table: Table) -> list[Result]:
    found = {
        tuple(key["constrained_columns"]): (key["referred_table"], tuple(key["referred_columns"]))
        for key in inspector.get_foreign_keys(table.name)
    }
    return [
        Result(
            str(constraint.name),
            "foreign_key",
            found.get(tuple(constraint.column_keys))
            == (
                constraint.referred_table.name,
                tuple(element.column.name for element in constraint.elements),
            ),
        )
        for constraint in sorted(table.foreign_key_constraints, key=lambda item: str(item.name))
    ]
