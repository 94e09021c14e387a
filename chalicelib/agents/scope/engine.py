"""The engine that agents' sessions use: the process's own, its pool and its listeners, with another compiler.

Three lines of defence: the compiler narrows what it renders; an execution is refused unless that compiler rendered it
and the session's scope may use every table that it met; the values that an INSERT is about to store are looked at.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.sql.dml import Insert, Update

from chalicelib.agents.names import PREFIX
from chalicelib.agents.scope import scope as scopes
from chalicelib.agents.scope.compiler import CRITERIA, Scoping, scoped
from chalicelib.agents.scope.scope import Scope, ScopeViolation
from chalicelib.core.database import Base

OPTION = "hotplug_scope"
# How a unit begins on SQLite; core/database.py sends it as it is.
BEGIN = "BEGIN IMMEDIATE"
_MENTIONED = re.compile(rf"\b{PREFIX}[a-z0-9_]+", re.IGNORECASE)
# `app_id`, and `app_id_m0`, `app_id_m1` … where one INSERT has several rows.
_STORED = re.compile(r"(app_id|agent_name)(?:_m\d+)?")
_engines: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()


def scoped_engine(engine: Engine, scope: Scope) -> Engine:
    """Return an engine for statements of this scope alone: a view of `engine`, over the same connections."""
    known = _engines.get(engine)
    if known is None:
        known = _engines[engine] = _made(engine)
    return known.execution_options(**{OPTION: scope})


def _made(engine: Engine) -> Engine:
    if getattr(engine.dialect, "server_version_info", None) is None:
        # The first connection tells the dialect which server it is; a copy from before would never learn it.
        engine.connect().close()
    dialect = copy.copy(engine.dialect)
    dialect.statement_compiler = scoped(engine.dialect.statement_compiler)
    # A view has listeners of its own, hears those of `engine`, and keeps its compiled statements by its dialect.
    view = engine.execution_options()
    view.dialect = dialect
    event.listen(view, "before_execute", _enter_scope, retval=True)
    event.listen(view, "before_cursor_execute", _check)
    return view


def _enter_scope(
    connection: Connection, statement: Any, many: Any, parameters: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, Any]:
    """Before a statement is compiled and its values are asked for: say whose it is."""
    scope: Scope = connection.get_execution_options()[OPTION]
    scopes.enter(scope)
    if isinstance(statement, Insert | Update):
        return statement, many, parameters
    return statement, [_given(scope, each) for each in many], _given(scope, parameters)


def _given(scope: Scope, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the names that texts may use set by the session, and without those of the criteria: what a caller
    passes under these would win over the scope."""
    return {name: value for name, value in parameters.items() if name not in CRITERIA} | scope.values()


def _check(
    connection: Connection, _cursor: Any, sql: str, _parameters: Any, context: Any, _many: bool
) -> None:
    scope: Scope = connection.get_execution_options()[OPTION]
    compiled = context.compiled
    if compiled is None and sql == BEGIN:
        return
    if not isinstance(compiled, Scoping):
        raise ScopeViolation("a statement that was not compiled for a scope")
    for table in compiled.tables:
        scope.columns(table)
    if compiled.cross_agent != scope.cross_agent:
        raise ScopeViolation("a statement that was compiled for another kind of scope")
    for name in {name.lower() for name in _MENTIONED.findall(sql)}:
        # In a hint, a prefix, or wherever else a text gets in past the compiler.
        if name in Base.metadata.tables and name not in compiled.tables:
            raise ScopeViolation(f"{name} is mentioned where it cannot be narrowed to a scope")
    if compiled.isinsert:
        _check_stored(scope, compiled, context.compiled_parameters)


def _check_stored(scope: Scope, compiled: Scoping, rows: Sequence[Mapping[str, Any]]) -> None:
    [table] = compiled.targets
    wanted = {name: scope.values()[name] for name in scope.columns(table)}
    for row in rows:
        seen = set()
        for name, value in row.items():
            found = _STORED.fullmatch(name)
            if found is None:
                continue
            seen.add(found[1])
            if found[1] in wanted and value != wanted[found[1]]:
                raise ScopeViolation(f"{table}.{found[1]} would hold another's name")
        if not seen >= wanted.keys():
            raise ScopeViolation(f"{table} would hold a {' and '.join(wanted)} that is computed")
