"""What the table of an agent must be like: its name, its columns, the name of its class."""

from __future__ import annotations

import re

from sqlalchemy import BigInteger, Column, String, Table

from chalicelib.agents.models import SHARED
from chalicelib.agents.names import MAX_TABLE_NAME, PREFIX, TABLE_NAME_PATTERN, shortened
from chalicelib.agents.spec import LoadError
from chalicelib.core.database import Base

_HASHED = re.compile("_[0-9a-f]{8}")


def table_of(model: type[Base]) -> Table:
    """Return the table of a mapped class.

    Raises
    ------
    LoadError
        `agent.tablename`: it is mapped to something else.
    """
    table = model.__table__
    if not isinstance(table, Table):
        raise LoadError(
            "agent.tablename", f"The model {model.__name__} is mapped to something that is no table."
        )
    return table


def check_name(owner: str, table: Table) -> None:
    """Refuse a table outside `agentflow_<owner>_`.

    Where the prefix alone is about as long as a name may be, `names.shortened` cuts it too: then the name must begin as
    it does and end in a hash.

    Raises
    ------
    LoadError
        `agent.table_prefix`.
    """
    name, prefix = table.name, f"{PREFIX}{owner}_"
    cut = shortened(prefix + "x" * MAX_TABLE_NAME)[:-8]
    hashed = len(name) == MAX_TABLE_NAME and name.startswith(cut) and _HASHED.fullmatch(name, len(cut) - 1)
    mine = (name.startswith(prefix) and len(name) > len(prefix)) or hashed
    if not mine or not re.fullmatch(TABLE_NAME_PATTERN, name) or table.schema:
        raise LoadError(
            "agent.table_prefix",
            f"The table {table.fullname[:200]} must be named {prefix}…, in small letters, digits and underscores, with"
            f" at most {MAX_TABLE_NAME} characters (agents.names.table_name shortens a longer name).",
        )


def check_columns(model: type[Base], mode: str) -> None:
    """Refuse a table that the scoped session could not keep apart.

    Raises
    ------
    LoadError
        `agent.columns`: no `app_id` BIGINT NOT NULL; a shared table without `agent_name` NOT NULL, an independent one
        with it; either of them as an attribute of another name.
    """
    table = table_of(model)
    _check_column(model, table, "app_id", BigInteger, "BIGINT NOT NULL")
    if mode == SHARED:
        _check_column(model, table, "agent_name", String, "VARCHAR NOT NULL")
    elif "agent_name" in table.columns:
        raise LoadError(
            "agent.columns", f"The table {table.name} is the agent's own, so it must have no agent_name."
        )


def _check_column(model: type[Base], table: Table, name: str, kind: type, wanted: str) -> None:
    column: Column[object] | None = table.columns.get(name)
    if column is None or column.name != name or column.nullable or not isinstance(column.type, kind):
        raise LoadError("agent.columns", f"The table {table.name} must have a column {name} {wanted}.")
    mapper = model.__mapper__
    if not mapper.has_property(name) or mapper.get_property_by_column(column).key != name:
        raise LoadError(
            "agent.columns", f"The model {model.__name__} must call the column {name} by its name."
        )


def class_name_warnings(owner: str, model: type[Base]) -> list[str]:
    """Return a warning where a class is not named `<Agent><Model>`, compared without case and underscores."""
    begin, name = _plain(owner), _plain(model.__name__)
    if name.startswith(begin) and name != begin:
        return []
    wanted = "".join(part.capitalize() for part in owner.split("_"))
    return [f"agent.class_name: {model.__name__} should be named {wanted}…"]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
