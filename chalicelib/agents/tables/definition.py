"""What a model says of its table, as a digest that every process of a release computes alike."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import CompileError

from chalicelib.core.database import Base
from chalicelib.core.representation import canonical
from chalicelib.core.table_check import table_of

# Types are spelled for one server whichever the deployment uses: the one that tells MEDIUMTEXT from TEXT, and
# microseconds from seconds.
_NEUTRAL = mysql.dialect()


@cache
def schema_hash(model: type[Base]) -> str:
    """Return the SHA-256 hex of a model's table: columns, primary key, indexes, unique constraints, foreign keys.

    The order in which a model declares its columns, indexes and constraints makes no difference; that of the columns
    within one of them does.
    """
    return hashlib.sha256(canonical(_description(table_of(model)))).hexdigest()


def _description(table: Table) -> dict[str, Any]:
    return {
        "columns": sorted([column.name, _type(column), bool(column.nullable)] for column in table.columns),
        "primary": [column.name for column in table.primary_key.columns],
        "indexes": sorted(
            (
                [str(index.name), bool(index.unique), [_expression(one) for one in index.expressions]]
                + [[name, str(value)] for name, value in sorted(index.dialect_kwargs.items())]
                for index in table.indexes
            ),
            key=str,
        ),
        "uniques": sorted(
            [str(constraint.name), [column.name for column in constraint.columns]]
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        ),
        "foreign": sorted(
            [list(constraint.column_keys), [element.target_fullname for element in constraint.elements]]
            for constraint in table.foreign_key_constraints
        ),
    }


def _type(column: Column[Any]) -> str:
    kind = column.type.dialect_impl(_NEUTRAL)
    try:
        return str(kind.compile(dialect=_NEUTRAL)).lower()
    except CompileError:
        # A text without a length is no column on MySQL: making the table fails with the server's own words, and a cold
        # start, which only compares, must not.
        return str(kind.compile()).lower()


def _expression(part: Any) -> str:
    return part.name if isinstance(part, Column) else str(part)
