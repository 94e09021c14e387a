"""The rows of one agent in two tables: ranges of ids, digests, and making one range equal to the other.

Everything walks by ascending ids through a range that is closed above, so that both sides are cut alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, String, delete, func, insert, literal, select, type_coerce
from sqlalchemy.orm import Session

from chalicelib.agents.history.place import is_shared, of_agent
from chalicelib.core import paging
from chalicelib.core.database import Unit, UtcDateTime

BATCH = 500
# Beyond this a batch has fewer rows: a unit of 500 long messages would hold its locks for minutes.
BATCH_BYTES = 8 * 1024 * 1024
EVERYTHING = 2**63 - 1
_NULL = "-"


class Foreign(Exception):
    """The target has another owner's row under an id of the source."""


@dataclass(frozen=True)
class Pair:
    """The two tables of a move, as their models."""

    source: Any
    target: Any
    agent_name: str


@dataclass(frozen=True)
class Range:
    """Ids of the source above `after`, through `through`.

    Parameters
    ----------
    apps
        The rows that there are, by ascending id, with their apps.
    last
        True where the source has no rows beyond it; `through` is then the greatest id that there can be.
    """

    after: int
    through: int
    apps: Mapping[int, int]
    last: bool


def next_range(session: Session, pair: Pair, after: int) -> Range:
    """Return the source's next batch of ids."""
    model = pair.source
    query = select(model.id, model.app_id, func.length(model.content))
    rows = session.execute(_walk(query, model, pair.agent_name, after, EVERYTHING).limit(BATCH)).all()
    apps: dict[int, int] = {}
    weight = 0
    for row_id, app_id, size in rows:
        weight += size
        if apps and weight > BATCH_BYTES:
            return Range(after, max(apps), apps, False)
        apps[row_id] = app_id
    last = len(rows) < BATCH
    return Range(after, EVERYTHING if last else max(apps), apps, last)


def align(session: Unit, pair: Pair, part: Range, differing: Sequence[int] = ()) -> bool:
    """Make the agent's rows of the target in a range those of the source; the agent's row is held alone.

    What is there already stays: messages never change, so the same id of the same agent is the same message, and where
    that is not believed (`differing`) it is replaced.

    Returns
    -------
    False where there were more superfluous rows than a batch: it deleted some of them and copied nothing yet.

    Raises
    ------
    Foreign
        Nothing was overwritten then.
    """
    there = _present(session, pair, part)
    own = select(pair.target.id)
    own = _walk(own, pair.target, pair.agent_name, part.after, part.through).limit(2 * BATCH + 1)
    superfluous = [row_id for row_id in session.scalars(own) if row_id not in part.apps]
    _delete(session, pair.target, pair.agent_name, [*superfluous[:BATCH], *differing])
    if len(superfluous) > BATCH:
        return False
    missing = sorted((set(part.apps) - there) | set(differing))
    if missing:
        _insert(session, pair, missing)
    return True


def digests(session: Session, model: Any, agent_name: str, part: Range) -> list[tuple[int, str]]:
    """Return id and SHA-256 of each of the agent's rows in a range; at most one more than a batch, by id.

    MySQL and MariaDB compute them: only digests go over the wire, not the messages. SQLite has no SHA-256.
    """
    # Two models may declare their columns in another order.
    columns = sorted(
        (column for column in model.__table__.c if column.name != "agent_name"),
        key=lambda column: str(column.name),
    )
    here = session.get_bind().dialect.name == "sqlite"
    shown = [_stored(column) for column in columns] if here else [_row_digest(columns)]
    query = _walk(select(model.id, *shown), model, agent_name, part.after, part.through)
    rows = session.execute(query.limit(BATCH + 1)).all()
    if here:
        return [(row[0], row_digest(columns, row[1:])) for row in rows]
    return [(row[0], row[1]) for row in rows]


def row_digest(columns: Sequence[Any], values: Sequence[Any]) -> str:
    """Return what the server's digest of a row is, from its values as they are stored."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        if value is None:
            parts.append(_NULL)
        elif _is_bounded(column):
            parts.append(str(value))
        else:
            parts.append(hashlib.sha256(value.encode()).hexdigest())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def chained(before: str | None, rows: Iterable[tuple[int, str]]) -> str:
    """Return the digest over all batches so far: of the one before, and of the rows' digests."""
    running = hashlib.sha256((before or "").encode())
    for row_id, digest in rows:
        running.update(f"{row_id} {digest}\n".encode())
    return running.hexdigest()


def purge(session: Unit, model: Any, agent_name: str, through: int) -> int:
    """Delete one batch of an agent's rows from a table that it does not read; return how many went."""
    ids = session.scalars(_walk(select(model.id), model, agent_name, -1, through).limit(BATCH)).all()
    _delete(session, model, agent_name, ids)
    return len(ids)


def _walk(query: Any, model: Any, agent_name: str, after: int, through: int) -> Any:
    """One agent's rows in a range, by id: along the primary key of its own table, or the shared one's index for it."""
    query = query.where(*of_agent(model, agent_name), model.id > after, model.id <= through)
    index = move_index(model)
    if index is not None:
        query = paging.through(query, model, index)
    return query.order_by(model.id)


def move_index(model: Any) -> str | None:
    """Return the name of the index that has an agent's rows in the order of their ids, None for an own table."""
    for index in model.__table__.indexes:
        if tuple(column.name for column in index.columns) == ("agent_name", "id"):
            return str(index.name)
    return None


def _present(session: Session, pair: Pair, part: Range) -> set[int]:
    """Return which of a range's ids the target has."""
    target = pair.target
    owner = target.agent_name if is_shared(target) else literal(pair.agent_name)
    rows = session.execute(select(target.id, target.app_id, owner).where(target.id.in_(part.apps)))
    found = set()
    for row_id, app_id, agent_name in rows:
        if (app_id, agent_name) != (part.apps[row_id], pair.agent_name):
            raise Foreign(row_id)
        found.add(row_id)
    return found


def _insert(session: Unit, pair: Pair, ids: Sequence[int]) -> None:
    """Copy rows within the server."""
    source, target = pair.source.__table__, pair.target.__table__
    names = [column.name for column in target.c if column.name != "agent_name"]
    values = [source.c[name] for name in names]
    if is_shared(pair.target):
        names, values = [*names, "agent_name"], [*values, literal(pair.agent_name)]
    rows = select(*values).where(source.c.id.in_(ids), *of_agent(pair.source, pair.agent_name))
    session.execute(insert(target).from_select(names, rows, include_defaults=False))


def _delete(session: Unit, model: Any, agent_name: str, ids: Sequence[int]) -> None:
    if ids:
        gone = delete(model).where(model.id.in_(ids), *of_agent(model, agent_name))
        session.execute(gone, execution_options={"synchronize_session": False})


def _is_bounded(column: Any) -> bool:
    """True for a column whose text has no `|` and is short; what else there is stands in the digest as its own."""
    return isinstance(column.type, Integer | UtcDateTime)


def _stored(column: Any) -> Any:
    return type_coerce(column, String()).label(f"stored_{column.name}")


def _row_digest(columns: Sequence[Any]) -> Any:
    # The hash of a text: with the text itself CONCAT_WS is NULL beyond max_allowed_packet, and NULLs look equal.
    parts = [column if _is_bounded(column) else func.sha2(column, 256) for column in columns]
    return func.sha2(func.concat_ws("|", *(func.coalesce(func.concat(part), _NULL) for part in parts)), 256)
