"""Write the revisions that lead from the newest one to the models: `python -m migrations.generate`.

One file per new table (with its indexes), and one per column or index that is added to a table or goes. What
it cannot write (a changed type, a rename, moving data) it names and leaves to a hand-written revision.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from alembic.autogenerate import produce_migrations
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    DefaultClause,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.pool import NullPool

from chalicelib.core.database import Base
from chalicelib.events.migration import MIGRATIONS, MODELS, alembic_config, run_revisions

_TYPES = {
    "TINYINT": "schema.FLAG",
    "MEDIUMTEXT": "schema.MEDIUM_TEXT",
    "DATETIME(6)": "schema.UTC_DATETIME",
    "BINARY(32)": "schema.DIGEST",
    "BIGINT": "sa.BigInteger()",
    "INTEGER": "sa.Integer()",
    "SMALLINT": "sa.SmallInteger()",
    "TEXT": "sa.Text()",
    "FLOAT": "sa.Float()",
    "DOUBLE": "sa.Double()",
}
_HEADER = '''"""{title}"""

from __future__ import annotations

{imports}

revision = "{revision}"
down_revision = {parent}


def upgrade() -> None:
'''


def main() -> int:
    """Write the files and print their names; 1 where something needs a revision by hand."""
    by_hand = 0
    for title, lines in missing_revisions():
        if lines:
            print(_write(title, lines))  # noqa: T201 - a command line tool
        else:
            by_hand += 1
            print(f"write by hand: {title}", file=sys.stderr)  # noqa: T201
    return 1 if by_hand else 0


def missing_revisions() -> list[tuple[str, list[str]]]:
    """Return (title, statements) of each revision between the newest one and the models; without statements,
    where it cannot be written by rote."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(
            f"sqlite:///{folder}/empty.db", isolation_level="AUTOCOMMIT", poolclass=NullPool
        )
        with engine.connect() as connection:
            run_revisions(connection)
            context = MigrationContext.configure(connection, opts=only(MODELS))
            upgrades = produce_migrations(context, Base.metadata).upgrade_ops
    return list(_revisions(list(upgrades.ops) if upgrades else []))


def only(models: Iterable[type[Base]]) -> dict[str, Callable[..., bool]]:
    """Return Alembic's options for comparing the tables of these models alone, on both sides: those of agents, which
    `migrate` makes by itself, are declared on the same metadata."""
    tables = {model.__tablename__ for model in models}

    def named(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in tables

    def declared(_object: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:
        return kind != "table" or name in tables

    return {"include_name": named, "include_object": declared}


def _revisions(operations: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield (title, statements): a table with its indexes together, everything else on its own."""
    created = {op.table_name: op for op in operations if isinstance(op, ops.CreateTableOp)}
    changes = [op for op in operations if not isinstance(op, ops.CreateTableOp | ops.ModifyTableOps)]
    changes += [change for op in operations if isinstance(op, ops.ModifyTableOps) for change in op.ops]
    for name, op in created.items():
        indexes = [_index(change) for change in changes if _indexes(change, name)]
        yield f"Table {name}", [*_table(op), *sorted(indexes)]
    for change in changes:
        if not any(_indexes(change, name) for name in created):
            yield _change(str(getattr(change, "table_name", "?")), change)


def _indexes(change: Any, table: str) -> bool:
    return isinstance(change, ops.CreateIndexOp) and change.table_name == table


def _change(table: str, op: Any) -> tuple[str, list[str]]:
    if isinstance(op, ops.AddColumnOp):
        return f"Column {table}.{op.column.name}", [f'schema.add_column("{table}", {_column(op.column)})']
    if isinstance(op, ops.DropColumnOp):
        return f"Drop {table}.{op.column_name}", [f'schema.drop_column("{table}", "{op.column_name}")']
    if isinstance(op, ops.CreateIndexOp):
        return f"Index {op.index_name}", [_index(op)]
    if isinstance(op, ops.DropIndexOp):
        return f"Drop index {op.index_name}", [f'schema.drop_index("{op.index_name}", "{table}")']
    return f"{type(op).__name__} on {table}", []


def _table(op: ops.CreateTableOp) -> list[str]:
    table = op.to_table()
    constraints = sorted(table.constraints, key=lambda item: (type(item).__name__, str(item.name)))
    parts = [_column(column) for column in table.columns]
    parts += [text for constraint in constraints if (text := _constraint(constraint))]
    return ["schema.create_table(", f'    "{table.name}",', *(f"    {part}," for part in parts), ")"]


def _column(column: Column[Any]) -> str:
    options = ["nullable=True"] if column.nullable else ["nullable=False"]
    if column.primary_key:
        # Keys are ours: a single integer key would otherwise become AUTO_INCREMENT.
        options.append("autoincrement=False")
    if isinstance(column.server_default, DefaultClause):
        options.append(f'server_default="{column.server_default.arg}"')
    return f'sa.Column("{column.name}", {_type(column)}, {", ".join(options)})'


def _type(column: Column[Any]) -> str:
    from sqlalchemy.dialects import mysql

    dialect = mysql.dialect()
    kind: Any = column.type.dialect_impl(dialect)
    name = str(kind.compile(dialect=dialect))
    if match := re.fullmatch(r"VARCHAR\((\d+)\)", name):
        return f"sa.String({match[1]})"
    if match := re.fullmatch(r"VARCHAR\((\d+)\) CHARACTER SET ascii COLLATE ascii_bin", name):
        return f"schema.ascii_text({match[1]})"
    if name not in _TYPES:
        raise SystemExit(f"{column}: no name is known for the type {name}; add it to migrations/schema.py")
    return _TYPES[name]


def _constraint(constraint: Any) -> str:
    names = [column.name for column in constraint.columns]
    quoted = ", ".join(f'"{name}"' for name in names)
    if isinstance(constraint, PrimaryKeyConstraint):
        return f'sa.PrimaryKeyConstraint({quoted}, name="{constraint.name}")'
    if isinstance(constraint, UniqueConstraint):
        return f'sa.UniqueConstraint({quoted}, name="{constraint.name}")'
    if isinstance(constraint, ForeignKeyConstraint):
        targets = ", ".join(f'"{element.target_fullname}"' for element in constraint.elements)
        return f'sa.ForeignKeyConstraint([{quoted}], [{targets}], name="{constraint.name}")'
    raise SystemExit(f"{constraint!r} needs a revision by hand")


def _index(op: ops.CreateIndexOp) -> str:
    columns = ", ".join(f'"{getattr(column, "name", column)}"' for column in op.columns)
    unique = ", unique=True" if op.unique else ""
    lengths = f", lengths={prefixes}" if (prefixes := op.kw.get("mysql_length")) else ""
    return f'schema.create_index("{op.index_name}", "{op.table_name}", [{columns}]{unique}{lengths})'


def _write(title: str, lines: list[str]) -> Path:
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    number = f"{int(head or 0) + 1:04d}"
    slug = re.sub(r"[^a-z0-9]+", "_", title.lower().removeprefix("table ")).strip("_")
    path = MIGRATIONS / "versions" / f"{number}_{slug}.py"
    uses_types = any("sa." in line for line in lines)
    imports = ("import sqlalchemy as sa\n\n" if uses_types else "") + "from migrations import schema"
    header = _HEADER.format(
        title=f"{title}.", imports=imports, revision=number, parent=f'"{head}"' if head else "None"
    )
    path.write_text(header + "".join(f"    {line}\n" for line in lines))
    return path


if __name__ == "__main__":
    sys.exit(main())
