"""Rows that are read by their tables and used like their models.

The first use of any model configures all of them, which a read that starts cold need not pay for.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Row, Table


def part_of(row: Row[Any], table: Table) -> SimpleNamespace:
    """Return what a joined row holds of one table, to be read like its model; columns that were not asked for are
    left out."""
    held = row._mapping
    return SimpleNamespace(**{column.key: held[column] for column in table.c if column in held})
