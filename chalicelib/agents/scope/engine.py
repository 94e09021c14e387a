"""An engine whose every statement is scoped: another compiler over the same connections, and the last check.

The check does not trust the compiler. It reads what the compiler recorded and what the statement is about to send, so a
way round the criteria that nobody thought of ends in `ScopeViolation`, not in a row of another.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Insert, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.util import LRUCache

from chalicelib.agents.scope.access import (
    AGENT_BIND,
    APP_BIND,
    OPTION,
    Access,
    ScopeViolation,
    current,
    is_shared,
)
from chalicelib.agents.scope.compiler import ScopedCompiler, scoped_compiler
from chalicelib.agents.scope.filling import refuse_foreign_values

_STATEMENTS = 500
# What a unit of work on SQLite begins with (core/database.py); nothing else comes without having been compiled.
_BEGIN = "BEGIN IMMEDIATE"
_RESERVED = frozenset({APP_BIND, AGENT_BIND})


class Engines:
    """The scoped engines over a service's own, each made once: the compiled statements are kept in them.

    Parameters
    ----------
    mixin
        What is put in front of the dialect's compiler.
    """

    def __init__(self, mixin: type[ScopedCompiler] = ScopedCompiler) -> None:
        self._mixin = mixin
        self._made: dict[Engine, Engine] = {}
        self._lock = threading.Lock()
        # Statements that read across agents have other criteria under the same key.
        self.across: Any = LRUCache(_STATEMENTS)

    def over(self, base: Engine, access: Access) -> Engine:
        """Return an engine over the pool of `base` whose connections do what `access` allows.

        It may open the process's first connection, so no other may be held.
        """
        with self._lock:
            if base not in self._made:
                self._made[base] = _scoped(base, self._mixin)
        return self._made[base].execution_options(**{OPTION: access})


def _scoped(base: Engine, mixin: type[ScopedCompiler]) -> Engine:
    if getattr(base.dialect, "server_version_info", None) is None:
        # The first connection tells the dialect which server it has; a copy that was made before would never know.
        base.connect().close()
    made = base.execution_options(compiled_cache=LRUCache(_STATEMENTS))
    dialect: Any = copy.copy(base.dialect)
    dialect.statement_compiler = scoped_compiler(dialect.statement_compiler, mixin)
    made.dialect = dialect
    event.listen(made, "before_execute", _before_execute)
    event.listen(made, "before_cursor_execute", _before_cursor_execute)
    return made


def _access(connection: Connection) -> Access:
    # Of the connection alone: a statement may carry options of its own.
    access = connection.get_execution_options().get(OPTION)
    if not isinstance(access, Access):
        raise ScopeViolation("a scoped connection without a scope")
    return access


def _before_execute(
    connection: Connection,
    statement: Any,
    many: Sequence[Mapping[str, Any]],
    one: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    access = _access(connection)
    if isinstance(statement, ExecutableDDLElement):
        raise ScopeViolation("an agent makes and changes no tables")
    if options.get("schema_translate_map"):
        raise ScopeViolation("an agent has no other schema")
    rows = [*many, one] if one else list(many)
    for row in rows:
        if not _RESERVED.isdisjoint(row):
            raise ScopeViolation("the parameters of the scope are set by the session")
    if isinstance(statement, Insert):
        refuse_foreign_values(statement, rows, access.scope)
    current.set(access)


def _before_cursor_execute(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    access = _access(connection)
    compiled = getattr(context, "compiled", None)
    if not isinstance(compiled, ScopedCompiler):
        if compiled is None and statement == _BEGIN:
            return
        raise ScopeViolation("a statement that was not compiled for the scope")
    _check_record(compiled, access)
    _check_values(compiled, context.compiled_parameters, access)


def _check_record(compiled: Any, access: Access) -> None:
    if compiled.across is not access.across:
        raise ScopeViolation("a statement that was compiled for another reach")
    if not access.writes and (compiled.isinsert or compiled.isupdate or compiled.isdelete):
        raise ScopeViolation("a read session does not write; open a unit of work")
    if +compiled.rendered != +compiled.scoped:
        missing = ", ".join(
            sorted((compiled.rendered - compiled.scoped) + (compiled.scoped - compiled.rendered))
        )
        raise ScopeViolation(f"the criteria of the scope do not fit the tables of a statement: {missing}")
    if compiled.isinsert and not compiled.filled:
        raise ScopeViolation("an INSERT without the columns of the scope")
    for table in compiled.tables:
        access.require(table)


def _check_values(compiled: Any, rows: Iterable[Mapping[str, Any]], access: Access) -> None:
    wanted: dict[str, Any] = {}
    if compiled.tables:
        wanted[APP_BIND] = access.scope.app_id
    if any(is_shared(table) for table in compiled.tables) and not access.across:
        wanted[AGENT_BIND] = access.scope.agent
    for row in rows:
        if any(row.get(name) != value for name, value in wanted.items()):
            raise ScopeViolation("a statement without the values of the scope")
