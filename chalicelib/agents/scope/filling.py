"""The scope in what is written: set in every INSERT, never changed by an UPDATE."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Insert, Select, select
from sqlalchemy.sql.base import ColumnCollection
from sqlalchemy.util import immutabledict

from chalicelib.agents.scope.access import AGENT_COLUMN, APP_COLUMN, Scope, ScopeViolation, is_shared

_COLUMNS = re.compile(r"INTO\s+[`\"]?(?P<table>[\w$]+)[`\"]?\s+(?:RETURNING[^(]*)?\((?P<columns>[^()]*)\)")


def filled(statement: Insert, values: Mapping[str, BindParameter[Any]]) -> Insert:
    """Return an INSERT that sets the columns of `values` to these, whatever it set them to.

    Raises
    ------
    ScopeViolation
        Where the table is declared without one of the columns.
    """
    table = statement._annotations.get("_emit_insert_table", statement.table)
    columns = {name: _column(table, name) for name in values}
    made: Any = statement._clone()
    if statement._select_names:
        _fill_select(made, statement, columns, values)
    elif statement._multi_values:
        keys = [column.key for column in table.c]
        rows = [_row(row, keys) for group in statement._multi_values for row in group]
        made._multi_values = ([_with(row, table, columns, values) for row in rows],)
    else:
        made._values = immutabledict(_with(statement._values or {}, table, columns, values))
    return made  # type: ignore[no-any-return]


def refuse_foreign_values(statement: Insert, rows: Sequence[Mapping[str, Any]], scope: Scope) -> None:
    """Refuse an INSERT that says itself whose its rows are, and says another than the session.

    Raises
    ------
    ScopeViolation
    """
    table = statement.table
    wanted: dict[str, Any] = {APP_COLUMN: scope.app_id}
    if is_shared(str(getattr(table, "name", "")).lower()):
        wanted[AGENT_COLUMN] = scope.agent
    for name in statement._select_names or ():
        if _name(table, name) in wanted:
            raise ScopeViolation(f"{name} of an INSERT from SELECT is set by the session; leave it out")
    keys = [column.key for column in table.c]
    given = [_row(row, keys) for group in statement._multi_values or () for row in group]
    attributes = _attributes(statement)
    for row in (statement._values or {}, *given, *rows):
        for key, value in row.items():
            column = attributes.get(key) or _name(table, key)
            if column in wanted:
                _require_value(column, value, wanted[column])


def refuse_scope_changes(state: Any, column_keys: Iterable[str] | None) -> None:
    """Refuse an UPDATE that would hand rows to another app or agent.

    Parameters
    ----------
    state
        The statement's state, in which attributes are columns already.
    column_keys
        The parameters that it is executed with.

    Raises
    ------
    ScopeViolation
    """
    table = state.statement.table
    for key in (*(state._dict_parameters or ()), *(column_keys or ())):
        owner = getattr(key, "table", None)
        name = _name(table, key)
        target = str(getattr(table if owner is None else owner, "name", "")).lower()
        if name == APP_COLUMN or (name == AGENT_COLUMN and not _independent(target)):
            raise ScopeViolation(f"an agent's UPDATE never sets {name}")


def require_columns(text: str, table: str) -> None:
    """Refuse a rendered INSERT that lacks the columns of the scope: however SQLAlchemy came to that.

    Raises
    ------
    ScopeViolation
    """
    match = _COLUMNS.search(text)
    names = [name.strip(' `"\n') for name in match["columns"].split(",")] if match else []
    wanted = {APP_COLUMN, AGENT_COLUMN} if is_shared(table) else {APP_COLUMN}
    if not match or match["table"].lower() != table or any(names.count(name) != 1 for name in wanted):
        raise ScopeViolation(f"the INSERT into {table} was not rendered with the columns of the scope")


def _independent(table: str) -> bool:
    return bool(table) and not is_shared(table)


def _fill_select(
    made: Any,
    statement: Insert,
    columns: Mapping[str, ColumnElement[Any]],
    values: Mapping[str, BindParameter[Any]],
) -> None:
    source: Any = statement.select
    if not isinstance(source, Select):
        whole = source.subquery()
        source = select(*whole.c)
    made._select_names = [*(statement._select_names or ()), *(column.key for column in columns.values())]
    made.select = source.add_columns(*values.values())


def _with(
    row: Mapping[Any, Any],
    table: Any,
    columns: Mapping[str, ColumnElement[Any]],
    values: Mapping[str, BindParameter[Any]],
) -> dict[Any, Any]:
    kept = {key: value for key, value in row.items() if _name(table, key) not in values}
    return kept | {columns[name]: value for name, value in values.items()}


def _row(row: Any, keys: list[str]) -> Mapping[Any, Any]:
    # A row may be a tuple, in the order of the table's columns.
    return row if isinstance(row, Mapping) else dict(zip(keys, row, strict=False))


def _column(table: Any, name: str) -> ColumnElement[Any]:
    columns: ColumnCollection[str, Any] = table.c
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        raise ScopeViolation(f"{table.name} is declared without {name}")
    return found  # type: ignore[no-any-return]


def _name(table: Any, key: Any) -> str:
    """Return the name in the database of what a statement calls `key`: a column, an attribute, or a column's key."""
    if not isinstance(key, str):
        key = getattr(key, "name", None) or key.key
        return str(key)
    columns = getattr(table, "c", {})
    return str(columns[key].name) if key in columns else key


def _attributes(statement: Any) -> dict[Any, str]:
    """Return which column each attribute of a mapped class is."""
    mapper = statement._propagate_attrs.get("plugin_subject")
    if mapper is None:
        return {}
    return {attribute.key: attribute.columns[0].name for attribute in mapper.mapper.column_attrs}


def _require_value(name: str, value: Any, wanted: Any) -> None:
    if isinstance(value, BindParameter) and value.callable is None and not value.required:
        value = value.value
    if isinstance(value, ColumnElement) or hasattr(value, "__clause_element__"):
        raise ScopeViolation(f"{name} is set by the session, not by an expression")
    # Nothing given is how a mapped object is flushed that was not told.
    if value is not None and value != wanted:
        raise ScopeViolation(f"{name} is set by the session, and another value was given")
