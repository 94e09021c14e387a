"""Tables of agents for tests: models outside of the application's own metadata, so that one table has many versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    inspect,
    select,
)  # fmt: skip
from sqlalchemy.orm import DeclarativeBase

from chalicelib.agents.models import INDEPENDENT, SHARED, AgentMove, AgentRow, AgentTable
from chalicelib.agents.names import MAX_AGENT_NAME, SHARED_OWNER
from chalicelib.agents.shared import models as shared_models
from chalicelib.agents.spec import OwnedTable
from chalicelib.agents.tables.migration import Report, migrate_agent_tables
from chalicelib.core import cache_log
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, UtcDateTime
from chalicelib.core.ids import new_id
from chalicelib.core.jobs import JobRun
from chalicelib.core.leases import LeaseRow
from chalicelib.core.table_check import check_table
from chalicelib.events.migration import exclusive_connection

NOTES = "agentflow_notes_note"
OWNER = "notes"


def shared_tables() -> tuple[OwnedTable, ...]:
    """Return the tables that all agents share."""
    named = (getattr(shared_models, name) for name in shared_models.__all__)
    return tuple(OwnedTable(one.__tablename__, SHARED_OWNER, SHARED, one) for one in named)


SHARED_NAMES = sorted(table.name for table in shared_tables())
Part = Column[Any] | Index | UniqueConstraint | ForeignKeyConstraint


def columns() -> list[Part]:
    """Return what every table of these tests has."""
    return [
        Column("id", BigInteger, primary_key=True, autoincrement=False, default=new_id),
        Column("app_id", BigInteger, nullable=False),
        Column("agent_name", String(MAX_AGENT_NAME), nullable=False),
        Column("title", String(50), nullable=False),
        Column("created_at", UtcDateTime(), nullable=False),
    ]


def model(*parts: Part, name: str = NOTES, base: Sequence[Part] | None = None, **options: str) -> type[Any]:
    """Return a new model of a table; `base` replaces `columns()`, `options` the options of MySQL."""
    root = type("Root", (DeclarativeBase,), {"metadata": MetaData()})
    arguments = (*(columns() if base is None else base), *parts, MYSQL_TABLE | options)
    table = {"__tablename__": name, "__table_args__": arguments}
    return type("Note", (root,), table)


def owned(declared: type[Any], owner: str = OWNER, mode: str = INDEPENDENT) -> OwnedTable:
    """Return a table as its agent declares it."""
    return OwnedTable(declared.__tablename__, owner, mode, declared)


def newest_model() -> type[Any]:
    """Return the model with all that `model()` has, and two columns and two indexes more."""
    parts = (Column("extra", Text), Column("more", Text))
    return model(*parts, Index("ix_a", "title"), Index("ix_b", "app_id", "title"))


def copied(part: Any) -> Any:
    """A column or constraint belongs to one table: return another one."""
    if isinstance(part, Index):
        return Index(part.name, *part._pending_colargs, unique=part.unique)
    if isinstance(part, UniqueConstraint):
        return UniqueConstraint(*part._pending_colargs, name=part.name)
    if isinstance(part, ForeignKeyConstraint):
        return ForeignKeyConstraint(part.column_keys, [one._get_colspec() for one in part.elements])
    return part._copy()


# What the tables of agents need of the application's own.
_NEEDED: tuple[type[Base], ...] = (
    AgentMove, AgentRow, AgentTable, AuditLog, CacheChange, CacheVersion, JobRun, LeaseRow,
)  # fmt: skip


def fresh(url: str) -> DatabaseService:
    """Return an empty database's service, with those tables."""
    service = DatabaseService(url)
    service.create_db_and_tables(list(_NEEDED))
    service.run(cache_log.seed)
    return service


@dataclass
class World:
    """A database that was migrated, without any table of an agent."""

    database: DatabaseService

    def migrate(self, *tables: OwnedTable | type[Any]) -> Report:
        given = [one if isinstance(one, OwnedTable) else owned(one) for one in tables]
        with exclusive_connection(self.database) as connection:
            return migrate_agent_tables(connection, given)

    def row(self, name: str = NOTES) -> AgentTable:
        with self.database.reads() as session:
            return session.get_one(AgentTable, name)

    def failures(self, declared: type[Any]) -> list[str]:
        with self.database.connection() as connection:
            return [result.name for result in check_table(connection, declared) if not result.success]

    def names(self) -> list[str]:
        with self.database.connection() as connection:
            return sorted(
                name for name in inspect(connection).get_table_names() if name.startswith("agentflow_")
            )

    def sql(self, statement: str) -> None:
        with self.database.connection() as connection:
            connection.exec_driver_sql(statement)

    def version(self) -> int:
        with self.database.reads() as session:
            return session.scalars(select(CacheVersion.version).where(CacheVersion.scope == "agents")).one()
