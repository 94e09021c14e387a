"""What revisions are written with: DDL that may be repeated, and the column types that agree on three
servers.

A revision that is killed between its statements is run again from its beginning, so each statement first
looks whether its work is done. The types are frozen here: a revision must not change when a model does.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Constraint, DateTime, LargeBinary, SmallInteger, String, Text, inspect
from sqlalchemy.dialects import mysql

FLAG = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")
MEDIUM_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
UTC_DATETIME = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
DIGEST = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")
_TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def ascii_text(length: int) -> String:
    """Return the type of a column of ASCII text, compared byte for byte."""
    ascii_column = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(ascii_column, "mysql", "mariadb")


def create_table(name: str, *parts: Column[object] | Constraint) -> None:
    """Create a table, unless it is there."""
    if not inspect(op.get_bind()).has_table(name):
        op.create_table(name, *parts, **_TABLE)


def create_index(
    name: str,
    table: str,
    columns: list[str],
    *,
    unique: bool = False,
    lengths: dict[str, int] | None = None,
) -> None:
    """Create an index, unless it is there.

    Parameters
    ----------
    lengths
        Of columns of which a MySQL-family server indexes only the first characters.
    """
    if name not in _indexes(table):
        op.create_index(name, table, columns, unique=unique, mysql_length=lengths or {})


def drop_index(name: str, table: str) -> None:
    """Drop an index, if it is there."""
    if name in _indexes(table):
        op.drop_index(name, table)


def add_column(table: str, column: Column[object]) -> None:
    """Add a column, unless it is there. It must be nullable or carry a server default: the release before
    this one goes on inserting rows without it."""
    if column.name not in _columns(table):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Drop a column, if it is there; one release after the code that used it."""
    if name in _columns(table):
        op.drop_column(table, name)


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}


def _columns(table: str) -> set[str]:
    return {column["name"] for column in inspect(op.get_bind()).get_columns(table)}
