"""What flows remember: variables of one app, flow, person and conversation.

`get` and `put` are one statement each. Two writers of one variable follow each other, and the later one's value
stays: a variable has no history, and nothing is computed from what was read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from chalicelib.core.database import Unit
from chalicelib.core.errors import Invalid, TooLarge, Violation
from chalicelib.core.paging import through
from chalicelib.flows.dsl.limits import MAX_NAME_LENGTH
from chalicelib.flows.history.chat import Chat
from chalicelib.flows.history.models import MAX_PERSON
from chalicelib.flows.variables.models import FlowVariable

MAX_VALUE_BYTES = 256 * 1024
"""Of a value as JSON."""
MAX_SET_BYTES = 4 * 1024 * 1024
"""Of the values of one `put`: escaped, which may double them, within the smallest `max_allowed_packet` (16 MiB)."""
MAX_VARIABLES = 200
"""Of one app, flow, person and conversation."""

# For reading: the first use of any model configures all of them.
_VARIABLE = cast(Table, FlowVariable.__table__)


class Scope(Chat):
    """Whose variables: those of a conversation."""

    def digest(self, name: str) -> bytes:
        """Return the key of a variable."""
        # As JSON: ('a', 'bc') and ('ab', 'c') are two.
        parts = [str(self.app_id), str(self.flow_id), self.uid, self.chat_id, name]
        return hashlib.sha256(json.dumps(parts).encode()).digest()


def get(session: Session, scope: Scope, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of variables by their names; one that was never set is left out."""
    keys = {scope.digest(name): name for name in names}
    if not keys:
        return {}
    query = select(_VARIABLE.c.digest, _VARIABLE.c.value).where(_VARIABLE.c.digest.in_(list(keys)))
    return {keys[row.digest]: row.value for row in session.execute(query)}


def put(session: Unit, scope: Scope, values: Mapping[str, Any]) -> None:
    """Set variables in the caller's unit, by one statement: all of them or none.

    Parameters
    ----------
    values
        JSON values by name.

    Raises
    ------
    errors.Invalid
        `variable.invalid`, with every violation: a name that is empty or too long, a value that is no JSON.
    errors.TooLarge
        `variable.too_large`: a value, or all of them together.
    errors.Invalid
        `variable.too_many`: the scope would have more than `MAX_VARIABLES`. Writers at the same moment may pass that by
        what they set themselves: it bounds what is stored, and is worth no lock.
    """
    rows = _rows(scope, values)
    if not rows:
        return
    _check_count(session, scope, values)
    _upsert(session, rows)


def _rows(scope: Scope, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    if len(scope.uid) > MAX_PERSON or len(scope.chat_id) > MAX_PERSON:
        raise ValueError("a person or a chat has a longer name than the variables hold")
    problems: list[Violation] = []
    sizes = {name: _size(name, value, problems) for name, value in values.items()}
    if problems:
        raise Invalid("The variables cannot be kept.", code="variable.invalid", errors=problems)
    if max(sizes.values(), default=0) > MAX_VALUE_BYTES or sum(sizes.values()) > MAX_SET_BYTES:
        raise TooLarge(
            f"A variable has at most {MAX_VALUE_BYTES} bytes, and those that are set at once {MAX_SET_BYTES}.",
            code="variable.too_large",
        )
    now = datetime.now(UTC)
    fixed = {
        "app_id": scope.app_id,
        "flow_id": str(scope.flow_id),
        "uid": scope.uid,
        "chat_id": scope.chat_id,
        "updated_at": now,
    }
    rows = [
        {"digest": scope.digest(name), "name": name, "value": value, **fixed}
        for name, value in values.items()
    ]
    # In one order: two units that hold several variables cannot wait for each other in a circle.
    return sorted(rows, key=lambda row: row["digest"])


def _size(name: str, value: Any, problems: list[Violation]) -> int:
    """Return the bytes of a value, and note what keeps it from being stored."""
    shown = name[:64].encode(errors="replace").decode()
    pointer = f"/{shown.replace('~', '~0').replace('/', '~1')}"
    try:
        name.encode()
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError):
        # A lone surrogate, or what JSON has no word for.
        problems.append(Violation(pointer, "variable.value", "is no JSON value, or no Unicode"))
        return 0
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        problems.append(Violation(pointer, "variable.name", f"a name has 1 to {MAX_NAME_LENGTH} characters"))
    return size


def _check_count(session: Session, scope: Scope, values: Mapping[str, Any]) -> None:
    others = _VARIABLE.c.digest.not_in([scope.digest(name) for name in values])
    query = select(func.count()).select_from(_VARIABLE).where(*scope.conditions(_VARIABLE), others)
    found = session.scalar(through(query, _VARIABLE, "ix_flow_variable_chat")) or 0
    if found + len(values) > MAX_VARIABLES:
        raise Invalid(
            f"A flow keeps at most {MAX_VARIABLES} variables of one person and conversation.",
            code="variable.too_many",
        )


def _upsert(session: Unit, rows: list[dict[str, Any]]) -> None:
    if session.get_bind().dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        written = sqlite.insert(_VARIABLE)
        changes = {name: written.excluded[name] for name in ("value", "updated_at")}
        session.execute(written.values(rows).on_conflict_do_update(index_elements=["digest"], set_=changes))
        return
    from sqlalchemy.dialects import mysql

    statement = mysql.insert(_VARIABLE).values(rows)
    changes = {name: statement.inserted[name] for name in ("value", "updated_at")}
    session.execute(statement.on_duplicate_key_update(changes))
