"""Names of indexes and constraints derive from their table.

On SQLite the name of an index counts for the whole database, and on MySQL that of a foreign key or a check: the
`idx_thread_id_created` of two agents could not both be made.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Table, UniqueConstraint

from chalicelib.agents.names import MAX_TABLE_NAME, shortened
from chalicelib.core.database import Base

_KINDS = ((Index, "ix"), (UniqueConstraint, "uq"), (ForeignKeyConstraint, "fk"), (CheckConstraint, "ck"))


def derive_names(table: Table) -> None:
    """Rename what in a table has a name without the table's, one that is too long, or one that another table has.

    `ix_<table>_<columns>`, shortened to 64 characters by a hash of the whole: SQLAlchemy's own shortening keeps
    16 bits, by which two names that begin alike may become one. A second call changes nothing.
    """
    named = sorted(_named(table), key=lambda item: (str(item.name), _columns(item)))
    others = [other for other in Base.metadata.tables.values() if other is not table]
    taken = {item.name for other in others for item in _named(other)}
    for item in named:
        name = str(item.name)
        if table.name not in name or len(name) > MAX_TABLE_NAME or name in taken:
            item.name = _derived(item, table, taken | {one.name for one in named if one is not item})
        taken.add(item.name)


def _derived(item: Any, table: Table, taken: set[Any]) -> str:
    whole = f"{_prefix(item)}_{table.name}_{_columns(item)}"
    name = shortened(whole)
    # The same columns twice, an index on expressions, or `a_b` + `c` beside `a` + `b_c`.
    attempt = 0
    while name in taken:
        attempt += 1
        name = shortened(f"{whole}_{item.name}_{attempt}".ljust(MAX_TABLE_NAME + 1, "_"))
    return name


def _named(table: Table) -> list[Any]:
    items: list[Any] = [*table.indexes, *table.constraints]
    return [item for item in items if _prefix(item) and item.name is not None]


def _prefix(item: Any) -> str | None:
    return next((prefix for kind, prefix in _KINDS if isinstance(item, kind)), None)


def _columns(item: Any) -> str:
    # The condition of a check is a text, of which no columns are known.
    return "_".join(column.name for column in item.columns) or str(item.name)
