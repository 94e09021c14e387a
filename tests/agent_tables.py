"""Tables of agents for tests: models outside of the application's own metadata, so that one table has many versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase

from chalicelib.agents.models import INDEPENDENT
from chalicelib.agents.names import MAX_AGENT_NAME
from chalicelib.agents.spec import OwnedTable
from chalicelib.core.database import MYSQL_TABLE, UtcDateTime
from chalicelib.core.ids import new_id

NOTES = "agentflow_notes_note"
OWNER = "notes"
Part = Column[Any] | Index | UniqueConstraint


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
