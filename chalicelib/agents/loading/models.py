"""Which tables an agent has: discovered in its `models` package, and held against the rules of names and columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from sqlalchemy import BigInteger, Table, UniqueConstraint

from chalicelib.agents.columns import fill_by_scope
from chalicelib.agents.history.place import missing_columns, thread_index
from chalicelib.agents.models import INDEPENDENT, SHARED
from chalicelib.agents.names import (
    MAX_TABLE_NAME,
    PREFIX,
    SHARED_OWNER,
    SHARED_PREFIX,
    shortened,
)
from chalicelib.agents.scope.scope import AGENT_COLUMN, APP_COLUMN
from chalicelib.agents.spec import LoadError, OwnedTable
from chalicelib.core.database import Base


def exported(module: ModuleType) -> list[type[Base]]:
    """Return the models that a package exports, each once: `__all__`, else its public names."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    found: list[Any] = [getattr(module, name, None) for name in names]
    return list(dict.fromkeys(one for one in found if _is_model(one)))


def _is_model(one: Any) -> bool:
    if not (isinstance(one, type) and issubclass(one, Base) and one is not Base):
        return False
    return getattr(one, "__tablename__", None) is not None and not one.__dict__.get("__abstract__", False)


def owned_table(model: type[Base], owner: str) -> OwnedTable:
    """Return a model's table as one of `owner`, after checking that it may be.

    Raises
    ------
    LoadError
        `agent.table_prefix`, `agent.columns`.
    """
    table = table_of(model)
    mode = SHARED if owner == SHARED_OWNER else INDEPENDENT
    _check_prefix(table, owner)
    _check_columns(model, table, mode)
    name_indexes(table)
    fill_by_scope(table)
    return OwnedTable(table.name, owner, mode, model)


def table_of(model: type[Base]) -> Table:
    """Return the table of a model."""
    table = model.__table__
    if not isinstance(table, Table):
        raise LoadError("agent.columns", f"{model.__name__} is mapped to something that is no table.")
    return table


def _check_prefix(table: Table, owner: str) -> None:
    # A name that was shortened still begins with the owner's name, which has at most 63 characters.
    if not table.name.startswith(f"{PREFIX}{owner}_"):
        raise LoadError(
            "agent.table_prefix",
            f"The table {table.name} must be named {PREFIX}{owner}_… as it is {owner}'s.",
        )
    if owner != SHARED_OWNER and table.name.startswith(SHARED_PREFIX):
        raise LoadError("agent.table_prefix", f"The table {table.name} would be a shared one.")
    if len(table.name) > MAX_TABLE_NAME:
        raise LoadError(
            "agent.table_prefix",
            f"The table {table.name} has more than {MAX_TABLE_NAME} characters; name it {shortened(table.name)}.",
        )
    if table.schema is not None:
        raise LoadError("agent.table_prefix", f"The table {table.name} names a schema.")


def _check_columns(model: type[Base], table: Table, mode: str) -> None:
    wanted = (APP_COLUMN,) if mode == INDEPENDENT else (APP_COLUMN, AGENT_COLUMN)
    for name in wanted:
        column = table.columns.get(name)
        # Under another attribute a program could set it without naming it.
        if column is None or column.nullable or name not in model.__mapper__.column_attrs:
            raise LoadError("agent.columns", f"{table.name} needs a column {name} that is never NULL.")
    if not isinstance(table.columns[APP_COLUMN].type, BigInteger):
        raise LoadError("agent.columns", f"{table.name}.{APP_COLUMN} must be a BigInteger.")
    if mode == INDEPENDENT and AGENT_COLUMN in table.columns:
        raise LoadError("agent.columns", f"{table.name} is its agent's own: it must not have {AGENT_COLUMN}.")


def name_indexes(table: Table) -> None:
    """Let the names of a table's indexes and keys derive from its own: SQLite has one name space for all indexes, and
    the servers admit 64 characters."""
    for index in table.indexes:
        index.name = _derived("ix", table, index.name, [column.name for column in index.columns])
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            columns = [column.name for column in constraint.columns]
            constraint.name = _derived("uq", table, constraint.name, columns)
    table.primary_key.name = shortened(f"pk_{table.name}")


def _derived(kind: str, table: Table, given: Any, columns: list[str]) -> Any:
    if given is not None and table.name in given and len(given) <= MAX_TABLE_NAME:
        return str(given)
    return shortened(f"{kind}_{table.name}_{'_'.join(columns)}")


def history_models(
    tables: tuple[OwnedTable, ...], named: type[Base] | None, shared_history: type[Base]
) -> tuple[dict[str, type[Base]], str | None]:
    """Return the models that can keep an agent's history, by mode, and the mode of the one that it names.

    The other mode's is the shared history, or the agent's first own table (by name) that has the columns.

    Raises
    ------
    LoadError
        `agent.history_model`: the named one is not among its tables, or cannot keep a history.
    """
    if named is None:
        return {}, None
    own = {table.model: table.mode for table in tables} | {shared_history: SHARED}
    if named not in own:
        raise LoadError(
            "agent.history_model", f"{named.__name__} is not exported by the agent's models package."
        )
    if problem := _no_history(named, own[named]):
        raise LoadError("agent.history_model", f"{named.__name__} {problem}.")
    found = {SHARED: shared_history, own[named]: named}
    if INDEPENDENT not in found:
        fitting = (
            table.model
            for table in sorted(tables, key=lambda table: table.name)
            if table.mode == INDEPENDENT and not _no_history(table.model, INDEPENDENT)
        )
        candidate = next(fitting, None)
        if candidate is not None:
            found[INDEPENDENT] = candidate
    return found, own[named]


def _no_history(model: type[Base], mode: str) -> str | None:
    table = table_of(model)
    if missing := missing_columns(model):
        return f"has no {', '.join(missing)}"
    if not isinstance(table.columns["id"].type, BigInteger) or list(table.primary_key.columns) != [
        table.columns["id"]
    ]:
        return "needs a BigInteger `id` as its primary key"
    if thread_index(model) is None:
        lead = [APP_COLUMN, *([AGENT_COLUMN] if mode == SHARED else []), "thread_id", "created_at", "id"]
        return f"needs an index on ({', '.join(lead)})"
    return None


def class_name_warnings(tables: tuple[OwnedTable, ...]) -> Iterator[str]:
    """Yield a text for each class that is not named after its owner."""
    for table in tables:
        prefix = table.owner.replace("_", "")
        if not table.model.__name__.lower().replace("_", "").startswith(prefix):
            yield f"{table.model.__name__} should be named {table.owner.title().replace('_', '')}…"


def index_warnings(tables: tuple[OwnedTable, ...]) -> Iterator[str]:
    """Yield a text for each table that every statement of a session will read as a whole."""
    for table in tables:
        if table.mode == INDEPENDENT and not leads_with_app(table_of(table.model)):
            yield f"{table.name} has no index that begins with {APP_COLUMN}"


def leads_with_app(table: Table) -> bool:
    """Whether an index of the table begins with the app."""
    uniques = [
        constraint.columns for constraint in table.constraints if isinstance(constraint, UniqueConstraint)
    ]
    indexes = [index.columns for index in table.indexes]
    return any(
        next(iter(columns)).name == APP_COLUMN for columns in (*uniques, *indexes, table.primary_key.columns)
    )


def not_exported(module: str, models: Mapping[str, type[Base]]) -> Iterator[str]:
    """Yield a text for each table that an agent's modules declare, and that nobody makes.

    Parameters
    ----------
    module
        The import name of the agent's package.
    models
        What the agent exports, by table.
    """
    declared = {
        table_of(mapper.class_).name
        for mapper in Base.registry.mappers
        if mapper.class_.__module__.startswith(f"{module}.")
    }
    for name in sorted(declared - models.keys()):
        yield f"The model of {name} is not exported by models/__init__.py: the table is not made"
