"""Where the criteria are added: at the place where a table is rendered into a FROM, and nowhere else.

Criteria that are added to statements before they are compiled miss what a statement reads without naming it in its
FROM (an entity that stands in the WHERE alone, a Core table); docs/decisions/0018 shows it. What is rendered is
complete by definition: a table that no FROM has cannot be read.

`_compose_select_body` is SQLAlchemy's own, not public; the version is pinned, and tests/unit/agents/scope fails where
it is not called any more. The listeners of scope/engine.py refuse what was compiled by anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import Alias, FromGrouping, Join, TableClause, TableSample

from chalicelib.agents.names import PREFIX
from chalicelib.agents.scope.scope import AGENT_COLUMN, APP_COLUMN, ScopeViolation, current, value_of

_NAME = re.compile(r"[a-z_][a-z0-9_$]*", re.IGNORECASE)
# What may follow these words in a text is a table.
_READS = re.compile(r"\b(?:from|join|into|update|table|using)\b[\s(`\"]*([a-z_][a-z0-9_$]*)?", re.IGNORECASE)
# The names of the criteria's parameters.
CRITERIA = frozenset({f"hotplug_{APP_COLUMN}", f"hotplug_{AGENT_COLUMN}"})
# As an assignment is rendered; a comparison has blanks around its sign.
_MOVES = re.compile(rf"\b(?:{APP_COLUMN}|{AGENT_COLUMN})[`\"]?=")


def scoped(compiler: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return a dialect's compiler that adds the criteria of the session's scope."""
    return type(f"Scoped{compiler.__name__}", (Scoping, compiler), {})


class Scoping(SQLCompiler):
    """Mixed in before a dialect's compiler.

    A compiled statement is used again by other scopes, so it holds the columns only: their values are asked for at each
    execution, and `tables`, what it touches, is held against the executing session's scope.
    """

    tables: set[str]
    targets: list[str]
    cross_agent: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Before the base class, which compiles.
        self.tables = set()
        self.targets = []
        self.cross_agent = current().cross_agent
        super().__init__(*arguments, **options)

    # -- reading ---------------------------------------------------------------------------------------------

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, inner_columns: Any, froms: Any, *more: Any
    ) -> Any:
        criteria = self._criteria(froms)
        if criteria:
            select = select.where(*criteria)
        return super()._compose_select_body(  # type: ignore[no-untyped-call]
            text, select, compile_state, inner_columns, froms, *more
        )

    def visit_join(self, join: Any, *arguments: Any, **options: Any) -> Any:
        if join.full:
            raise ScopeViolation("a full outer join cannot be narrowed to a scope")
        # In ON, so that an outer join stays one: in WHERE it would drop the rows that have no partner.
        criteria = self._criteria([join.right])
        if criteria:
            join = join._clone()
            join.onclause = and_(join.onclause, *criteria)
        return super().visit_join(join, *arguments, **options)  # type: ignore[no-untyped-call]

    def _criteria(self, froms: Iterable[Any]) -> list[ColumnElement[bool]]:
        return [one for source in froms for one in self._narrowed(_first(source))]

    def _narrowed(self, source: Any) -> list[ColumnElement[bool]]:
        table = _table_of(source)
        if table is None:
            # A subquery, a CTE, VALUES: what it reads is rendered inside of it.
            return []
        self._met(table)
        return [
            source.c[name]
            == bindparam(f"hotplug_{name}", callable_=partial(value_of, name), type_=source.c[name].type)
            for name in current().columns(table.name)
        ]

    def _met(self, table: TableClause) -> None:
        if table.schema is not None:
            raise ScopeViolation(f"the table {table.name} of another schema is nobody's")
        # Refused here as well as at each execution: its columns may not even be there to be compared.
        wanted = current().columns(table.name)
        missing = [name for name in wanted if name not in table.c]
        if missing:
            raise ScopeViolation(
                f"{table.name} is named without {' and '.join(missing)}, by which it is narrowed to a scope; "
                "use its model"
            )
        self.tables.add(table.name)

    # -- writing ---------------------------------------------------------------------------------------------

    def visit_update(self, update_stmt: Any, *arguments: Any, **options: Any) -> Any:
        text = super().visit_update(self._narrowed_change(update_stmt, options), *arguments, **options)
        if _MOVES.search(text):
            raise ScopeViolation("an UPDATE that would give rows to another app or agent")
        return text

    def visit_delete(self, delete_stmt: Any, *arguments: Any, **options: Any) -> Any:
        return super().visit_delete(self._narrowed_change(delete_stmt, options), *arguments, **options)  # type: ignore[no-untyped-call]

    def _narrowed_change(self, statement: Any, options: dict[str, Any]) -> Any:
        self._refuse_writing_across()
        options = {key: value for key, value in options.items() if key != "visiting_cte"}
        state = statement._compile_state_factory(statement, self, **options)
        return statement.where(*self._criteria([statement.table, *state._extra_froms]))

    def visit_insert(self, insert_stmt: Any, *arguments: Any, **options: Any) -> Any:
        self._refuse_writing_across()
        table = insert_stmt.table
        self._met(table)
        self.targets.append(table.name)
        if insert_stmt._post_values_clause is not None or insert_stmt._prefixes:
            # A row that is in the way may be another's: it would be changed, or replaced.
            raise ScopeViolation("an INSERT that may change a row which is there already")
        given = set(insert_stmt._select_names or ())
        if given & {APP_COLUMN, AGENT_COLUMN}:
            raise ScopeViolation("an INSERT from a SELECT leaves app_id and agent_name to the session")
        return super().visit_insert(insert_stmt, *arguments, **options)  # type: ignore[no-untyped-call]

    def _refuse_writing_across(self) -> None:
        if self.cross_agent:
            raise ScopeViolation("reading across agents is reading only")

    # -- texts -----------------------------------------------------------------------------------------------

    def visit_textclause(self, textclause: Any, *arguments: Any, **options: Any) -> Any:
        self._check_text(textclause.text, textclause._bindparams)
        return super().visit_textclause(textclause, *arguments, **options)  # type: ignore[no-untyped-call]

    def visit_column(self, column: Any, *arguments: Any, **options: Any) -> Any:
        if column.is_literal:
            self._check_text(column.name, ())
        return super().visit_column(column, *arguments, **options)

    def _check_text(self, text: str, given: Any) -> None:
        """Let a text pass that names tables of the scope together with the binds that narrow it.

        Whether the text uses them well cannot be seen from here; that it has them shows that its author thought of it.
        """
        named = {name.lower() for name in _NAME.findall(text)}
        tables = {name for name in named if name.startswith(PREFIX)}
        read = {name.lower() for name in _READS.findall(text)}
        if strangers := sorted(read - tables):
            raise ScopeViolation(f"a text that reads or writes {strangers[0] or 'what cannot be seen'}")
        for table in sorted(tables):
            for column in current().columns(table):
                if column not in given:
                    raise ScopeViolation(f"a text about {table} needs `{column} = :{column}`")
            self.tables.add(table)


def _first(source: Any) -> Any:
    """The table of a FROM whose criteria belong into the WHERE or ON that the FROM stands under."""
    while isinstance(source, FromGrouping | Join):
        source = source.element if isinstance(source, FromGrouping) else source.left
    return source


def _table_of(source: Any) -> TableClause | None:
    while isinstance(source, Alias | TableSample):
        source = source.element
    return source if isinstance(source, TableClause) else None
