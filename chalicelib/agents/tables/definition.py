"""What a model says of its table, in one form for all servers, and its hash."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Table, UniqueConstraint
from sqlalchemy.dialects.mysql import pymysql

from chalicelib.core.representation import canonical

# One dialect for every hash: a deployment that changes its server would otherwise find all tables outdated.
_DIALECT = pymysql.dialect()


def definition(table: Table) -> dict[str, Any]:
    """Return a table's columns, keys and indexes as a JSON value; their order of declaration does not count."""
    return {
        "table": table.name,
        "columns": {
            column.name: {
                "type": str(column.type.dialect_impl(_DIALECT).compile(dialect=_DIALECT)),
                "nullable": bool(column.nullable),
            }
            for column in table.columns
        },
        "primaryKey": [column.name for column in table.primary_key.columns],
        "indexes": {
            str(index.name): {
                "columns": [column.name for column in index.columns],
                "unique": bool(index.unique),
            }
            for index in table.indexes
        },
        "uniques": {
            str(constraint.name): [column.name for column in constraint.columns]
            for constraint in table.constraints
            if isinstance(constraint, UniqueConstraint)
        },
    }


def schema_hash(table: Table) -> str:
    """Return the SHA-256 of a table's definition, as hex."""
    return hashlib.sha256(canonical(definition(table))).hexdigest()
