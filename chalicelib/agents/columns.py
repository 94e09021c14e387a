"""Columns that the tables of agents have in common, and who fills them.

`app_id` and `agent_name` are filled by the session that inserts, by a default of the column. A default is asked
wherever a row is inserted: by the ORM, in bulk, by Core, from a SELECT. Nobody can forget it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnDefault, String, Table
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.names import MAX_AGENT_NAME, SHARED_PREFIX
from chalicelib.agents.scope.scope import AGENT_COLUMN, APP_COLUMN, value_of
from chalicelib.core.ids import new_id


def _app_id() -> Any:
    return value_of(APP_COLUMN)


def _agent_name() -> Any:
    return value_of(AGENT_COLUMN)


class OwnTable:
    """Mixin of an independent table: a time-ordered `id`, and `app_id`."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger, default=_app_id)


class SharedTable(OwnTable):
    """Mixin of a shared table: `agent_name` as well."""

    agent_name: Mapped[str] = mapped_column(String(MAX_AGENT_NAME), default=_agent_name)


def fill_by_scope(table: Table) -> None:
    """Let the session fill these columns of a model that declares them itself.

    Before the first row: a mapper remembers which columns have no default.
    """
    defaults = {APP_COLUMN: _app_id}
    if table.name.startswith(SHARED_PREFIX):
        defaults[AGENT_COLUMN] = _agent_name
    for name, value in defaults.items():
        if table.c[name].default is None:
            ColumnDefault(value)._set_parent_with_dispatch(table.c[name])
