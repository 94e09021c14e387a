"""What tables are made of: the root of all models, and column types that agree on MySQL, MariaDB and SQLite.

core/database passes them on: a model has one place to import from.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, MetaData, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# Identifiers and slugs compare byte for byte; people's text is searched with lower().
MYSQL_TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class Base(DeclarativeBase):
    """Root of every table. `cache_scope` and `cache_key` say which hot-cache entries a row's change must
    drop; both None for rows that no function keeps in memory (executions, tasks, logs)."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    cache_scope: ClassVar[str | None] = None
    cache_key: ClassVar[str | None] = None


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as naive UTC with microseconds: every backend drops the offset silently."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        if dialect.name == "mysql" or dialect.name == "mariadb":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class JsonDocument(TypeDecorator[Any]):
    """A JSON value as MEDIUMTEXT: MySQL's JSON type reorders keys, MariaDB's does not; text keeps what was
    given."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(MEDIUM_TEXT)

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        import json

        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        import json

        return None if value is None else json.loads(value)


MEDIUM_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def identifier(length: int) -> String:
    """Return the type of an id column: up to `length` characters, compared byte for byte."""
    return String(length)


def ascii_text(length: int) -> Any:
    """Return the type of a column of ASCII text, compared byte for byte: a quarter of the bytes in an index."""
    ascii_column = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(ascii_column, "mysql", "mariadb")


class TimestampMixin:
    """created_at and updated_at, set by the process that writes."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime(), default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC)
    )
