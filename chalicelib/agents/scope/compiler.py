"""Adds the scope where SQL is rendered: there every table of a statement passes, however it came in.

`ScopedCompiler` is mixed into the compiler of the dialect in use. It adds to each SELECT, join, UPDATE and DELETE the
criteria of the tables that stand in it, and to each INSERT the values; and it keeps a record (`rendered`, `scoped`,
`tables`) that `engine.py` checks before a statement leaves. docs/decisions/0018-agent-isolation.md has the reasons.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, FromClause, TableClause
from sqlalchemy.sql import and_
from sqlalchemy.sql.elements import ColumnClause, Grouping
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import and_ as and_operator
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join, TextualSelect

from chalicelib.agents.scope import filling, raw_sql
from chalicelib.agents.scope.access import (
    AGENT_COLUMN,
    APP_COLUMN,
    ScopeViolation,
    agent_value,
    app_value,
    current,
    is_shared,
    require_agent_table,
)

# An insert or update that replaces what it meets could replace a row of others.
_HARMLESS_PREFIXES = frozenset({"ignore", "low_priority", "or ignore"})


class ScopedCompiler:
    """What makes a compiler of SQLAlchemy a scoped one; `scoped_compiler` puts it in front of the dialect's.

    Attributes
    ----------
    rendered, scoped
        How often each table was rendered, and how often criteria were added for it. They must be equal.
    tables
        Every table that the statement reads or writes, raw SQL included.
    filled
        Whether it is an INSERT that sets the columns of the scope.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rendered: Counter[str] = Counter()
        self.scoped: Counter[str] = Counter()
        self.tables: set[str] = set()
        self.filled = False
        # Reading across agents renders other criteria, so the engine keeps such statements apart.
        self.across = current.get().across
        self.app, self.agent = app_value(), agent_value()
        super().__init__(*args, **kwargs)

    # -- criteria --------------------------------------------------------------------------------------------------

    def criteria(self, element: FromClause) -> list[ColumnElement[bool]]:
        """Return what the rows of the leftmost table of a FROM element must fulfil; of a subquery nothing, because its
        own tables are in it."""
        leaf: Any = element
        while isinstance(leaf, FromGrouping | Join):
            leaf = leaf.left if isinstance(leaf, Join) else leaf.element
        table = leaf
        while isinstance(table, AliasedReturnsRows):
            table = table.element
        if isinstance(table, FunctionElement) and table.name not in raw_sql.TABLE_FUNCTIONS:
            raise ScopeViolation(f"an agent may not read from the function {table.name}")
        if not isinstance(table, TableClause):
            return []
        name = require_agent_table(table.name, getattr(table, "schema", None))
        self.scoped[name] += 1
        found = [self._column(leaf, APP_COLUMN, self.app) == self.app]
        if is_shared(name) and not self.across:
            found.append(self._column(leaf, AGENT_COLUMN, self.agent) == self.agent)
        return found

    @staticmethod
    def _column(leaf: FromClause, name: str, value: BindParameter[Any]) -> ColumnElement[Any]:
        # By the name in the database: a model may call the attribute otherwise, or not map the column at all.
        column: ColumnClause[Any] = ColumnClause(name, value.type)
        column.table = leaf
        return column

    def select_criteria(self, froms: list[FromClause]) -> list[ColumnElement[bool]]:
        return [each for element in froms for each in self.criteria(element)]

    def join_criteria(self, right: FromClause) -> list[ColumnElement[bool]]:
        return self.criteria(right)

    def update_criteria(self, froms: list[FromClause]) -> list[ColumnElement[bool]]:
        return [each for element in froms for each in self.criteria(element)]

    def delete_criteria(self, froms: list[FromClause]) -> list[ColumnElement[bool]]:
        return [each for element in froms for each in self.criteria(element)]

    def insert_values(self, table: str) -> dict[str, BindParameter[Any]]:
        values = {APP_COLUMN: self.app}
        return values | {AGENT_COLUMN: self.agent} if is_shared(table) else values

    # -- where the criteria go -------------------------------------------------------------------------------------

    def _compose_select_body(
        self, text: Any, select: Any, compile_state: Any, columns: Any, froms: Any, *rest: Any
    ) -> Any:
        if criteria := self.select_criteria(froms):
            select = copy.copy(select)
            # In parentheses one by one: a text may hold an OR.
            given = tuple(_closed(clause) for clause in select._where_criteria)
            select._where_criteria = (*criteria, *given)
        return super()._compose_select_body(text, select, compile_state, columns, froms, *rest)  # type: ignore[misc]

    def visit_join(self, join: Any, *args: Any, **kwargs: Any) -> Any:
        if join.full:
            # What has no partner comes from both sides, and neither WHERE nor ON could hold back one without the other.
            raise ScopeViolation("an agent makes no full outer joins")
        # Always to ON: in WHERE it would turn an outer join into an inner one.
        if criteria := self.join_criteria(join.right):
            join = copy.copy(join)
            join.onclause = and_(*criteria, _closed(join.onclause))
        return super().visit_join(join, *args, **kwargs)  # type: ignore[misc]

    def visit_update(self, update_stmt: Any, visiting_cte: Any = None, **kwargs: Any) -> Any:
        _refuse_prefixes(update_stmt)
        # Made once more by the original: only the state knows which other tables the statement has come to hold.
        state = update_stmt._compile_state_factory(update_stmt, self, **kwargs)
        filling.refuse_scope_changes(state, getattr(self, "column_keys", None))
        scoped = _narrowed(update_stmt, self.update_criteria(_targets(state)))
        return super().visit_update(scoped, visiting_cte=visiting_cte, **kwargs)  # type: ignore[misc]

    def visit_delete(self, delete_stmt: Any, visiting_cte: Any = None, **kwargs: Any) -> Any:
        _refuse_prefixes(delete_stmt)
        state = delete_stmt._compile_state_factory(delete_stmt, self, **kwargs)
        scoped = _narrowed(delete_stmt, self.delete_criteria(_targets(state)))
        return super().visit_delete(scoped, visiting_cte=visiting_cte, **kwargs)  # type: ignore[misc]

    def visit_insert(
        self, insert_stmt: Any, visited_bindparam: Any = None, visiting_cte: Any = None, **kwargs: Any
    ) -> Any:
        _refuse_prefixes(insert_stmt)
        if insert_stmt._post_values_clause is not None:
            raise ScopeViolation("an agent makes no upserts: the row that it meets could be another's")
        name = require_agent_table(insert_stmt.table.name, getattr(insert_stmt.table, "schema", None))
        self._meet(name)
        filled = filling.filled(insert_stmt, self.insert_values(name))
        text = super().visit_insert(filled, visiting_cte=visiting_cte, **kwargs)  # type: ignore[misc]
        filling.require_columns(text, name)
        self.filled = True
        return text

    # -- the record ------------------------------------------------------------------------------------------------

    def _meet(self, *tables: str) -> None:
        self.tables |= set(tables)
        for table in tables:
            # Once more than the engine, which asks whenever the statement is executed: what SQLAlchemy executes
            # beside it, a default for instance, is compiled here but not seen there.
            current.get().require(table)

    def visit_table(self, table: Any, asfrom: bool = False, **kwargs: Any) -> Any:
        # As a hint only its name is repeated: `DELETE FROM t USING t, x`.
        if asfrom and not kwargs.get("ashint"):
            name = require_agent_table(table.name, getattr(table, "schema", None))
            self._meet(name)
            self.rendered[name] += 1
        return super().visit_table(table, asfrom=asfrom, **kwargs)  # type: ignore[misc]

    # -- what is written as text -----------------------------------------------------------------------------------

    def visit_textclause(self, textclause: Any, *args: Any, **kwargs: Any) -> Any:
        outer = getattr(self, "stack", [])
        whole = not outer or isinstance(outer[-1]["selectable"], TextualSelect)
        # A text may be a FROM element itself.
        written = f"FROM {textclause.text}" if kwargs.get("asfrom") else textclause.text
        self._meet(*raw_sql.read(written, statement=whole))
        if scoped := {APP_COLUMN, AGENT_COLUMN} & set(textclause._bindparams):
            # Whatever the caller gave for them.
            textclause = copy.copy(textclause)
            ours = {APP_COLUMN: self.app, AGENT_COLUMN: self.agent}
            textclause._bindparams = dict(textclause._bindparams) | {name: ours[name] for name in scoped}
        return super().visit_textclause(textclause, *args, **kwargs)  # type: ignore[misc]

    def visit_tstring(self, element: Any, *_: Any, **__: Any) -> Any:
        raise ScopeViolation("an agent writes raw SQL with text()")

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> Any:
        if column.is_literal:
            self._meet(*raw_sql.read(column.name))
        return super().visit_column(column, *args, **kwargs)  # type: ignore[misc]

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> Any:
        raw_sql.require_operator(operator.opstring)
        return super().visit_custom_op_binary(element, operator, **kwargs)  # type: ignore[misc]

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kwargs: Any) -> Any:
        raw_sql.require_operator(operator.opstring)
        return super().visit_custom_op_unary_operator(element, operator, **kwargs)  # type: ignore[misc]

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kwargs: Any) -> Any:
        raw_sql.require_operator(operator.opstring)
        return super().visit_custom_op_unary_modifier(element, operator, **kwargs)  # type: ignore[misc]

    def visit_extract(self, extract: Any, **kwargs: Any) -> Any:
        if not str(extract.field).isidentifier():
            raise ScopeViolation(f"{extract.field!r} is no field of a time")
        return super().visit_extract(extract, **kwargs)  # type: ignore[misc]

    def format_from_hint_text(self, sqltext: Any, table: Any, hint: str, iscrud: Any) -> Any:
        raw_sql.require_hint(hint)
        return super().format_from_hint_text(sqltext, table, hint, iscrud)  # type: ignore[misc]

    def get_statement_hint_text(self, hint_texts: Any) -> Any:
        for hint in hint_texts:
            raw_sql.require_hint(hint)
        return super().get_statement_hint_text(hint_texts)  # type: ignore[misc]


def scoped_compiler(compiler: type[Any], mixin: type[ScopedCompiler] = ScopedCompiler) -> type[Any]:
    """Return a dialect's compiler with the scope in front of it."""
    return type(f"Scoped{compiler.__name__}", (mixin, compiler), {})


def _closed(clause: Any) -> ColumnElement[Any]:
    return Grouping(clause.self_group(against=and_operator))


def _targets(state: Any) -> list[FromClause]:
    target = state.statement.table
    # The tables of a join that is updated are in its ON clauses.
    return [target, *(extra for extra in state._extra_froms if extra not in set(target._from_objects))]


def _narrowed(statement: Any, criteria: list[ColumnElement[bool]]) -> Any:
    narrowed = statement._clone()
    given = tuple(_closed(clause) for clause in statement._where_criteria)
    narrowed._where_criteria = (*criteria, *given)
    return narrowed


def _refuse_prefixes(statement: Any) -> None:
    for prefix, _dialect in statement._prefixes:
        if str(prefix).strip().lower() not in _HARMLESS_PREFIXES:
            raise ScopeViolation(f"an agent's statement has no prefix {prefix}")
