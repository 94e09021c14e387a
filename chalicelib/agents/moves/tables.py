"""The rows of one agent in two tables: ranges of ids, digests, and making one range equal to the other.

Everything walks by ascending ids through a range that is closed above, so that both sides are cut alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Integer,
    String,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.orm import Session

from chalicelib.agents.history.place import is_shared, of_agent
from chalicelib.core import paging
from chalicelib.core.database import Unit, UtcDateTime

BATCH = 500
# Beyond this a batch has fewer rows: a unit of 500 long messages would hold its locks for minutes.
BATCH_BYTES = 8 * 1024 * 1024
EVERYTHING = 2**63 - 1
_NULL = "-"
# Of a SHA-256.
_DIGITS = 64


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
    count
        The source's rows in it, a batch at most.
    end
        The greatest id that the source has in it, `after` where there is none.
    last
        True where the source has no rows beyond it; `through` is then the greatest id that there can be.
    """

    after: int
    through: int
    count: int
    end: int
    last: bool


def next_range(session: Session, pair: Pair, after: int) -> Range:
    """Return the source's next batch."""
    model = pair.source
    query = select(model.id.label("row_id"), func.length(model.content).label("size"))
    query = _walk(query, model, pair.agent_name, after, EVERYTHING).limit(BATCH)
    part = query.subquery()
    total = select(func.count(), func.max(part.c.row_id), func.sum(part.c.size)).select_from(part)
    count, end, size = session.execute(total).one()
    if count > 1 and size > BATCH_BYTES:
        ids = _within_bytes(session.execute(query))
        if len(ids) < count:
            return Range(after, ids[-1], len(ids), ids[-1], False)
    last = count < BATCH
    return Range(after, EVERYTHING if last else end, count, after if end is None else end, last)


def _within_bytes(rows: Iterable[Any]) -> list[int]:
    """The first rows that are short enough together, one at least."""
    ids: list[int] = []
    weight = 0
    for row_id, size in rows:
        weight += size
        if ids and weight > BATCH_BYTES:
            break
        ids.append(row_id)
    return ids


def align(session: Unit, pair: Pair, part: Range, differing: Collection[int] = ()) -> bool:
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
    superfluous = _superfluous(session, pair, part)
    _delete(session, pair.target, pair.agent_name, [*superfluous[:BATCH], *differing])
    if len(superfluous) > BATCH:
        return False
    _insert(session, pair, part, there.difference(differing))
    return True


def batch_digest(session: Session, model: Any, agent_name: str, part: Range) -> tuple[int, str]:
    """Return how many of the agent's rows are in a range, counted to one more than a batch, and the SHA-256 of theirs.

    MySQL and MariaDB compute it: neither messages nor digests of rows go over the wire. SQLite has no SHA-256.
    """
    if _is_sqlite(session):
        rows = row_digests(session, model, agent_name, part)
        return len(rows), hashlib.sha256("".join(digest for _, digest in rows).encode()).hexdigest()
    # MySQL cuts what is longer than 1024 bytes off, without an error.
    session.execute(text(f"SET SESSION group_concat_max_len = {_DIGITS * (BATCH + 1)}"))
    digest = _digest_here(_columns(model))
    query = select(model.id.label("row_id"), digest.label("row_digest"))
    rows = _walk(query, model, agent_name, part.after, part.through).limit(BATCH + 1).subquery()
    joined = func.coalesce(func.group_concat(literal_column("row_digest ORDER BY row_id SEPARATOR ''")), "")
    whole = select(func.count(), func.length(joined), func.sha2(joined, 256)).select_from(rows)
    count, length, found = session.execute(whole).one()
    if length != _DIGITS * count:
        raise RuntimeError(f"{length} digits are no digests of {count} rows")
    return count, found


def row_digests(session: Session, model: Any, agent_name: str, part: Range) -> list[tuple[int, str]]:
    """Return id and SHA-256 of each of the agent's rows in a range; at most one more than a batch, by id."""
    columns = _columns(model)
    here = not _is_sqlite(session)
    shown = [_digest_here(columns)] if here else [_stored(column) for column in columns]
    query = _walk(select(model.id, *shown), model, agent_name, part.after, part.through)
    rows = session.execute(query.limit(BATCH + 1)).all()
    return [(row[0], row[1] if here else row_digest(columns, row[1:])) for row in rows]


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


def chained(before: str | None, digest: str) -> str:
    """Return the digest over all batches so far: of the one before, and of the batch's."""
    return hashlib.sha256(f"{before or ''}{digest}".encode()).hexdigest()


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
    source, target = pair.source, pair.target
    owner = target.agent_name if is_shared(target) else literal(pair.agent_name)
    query = select(source.id, source.app_id, target.app_id.label("its_app_id"), owner.label("owner"))
    # From the source to the target: between the same ids a shared target also has the rows of all other agents.
    query = query.join(target, target.id == source.id).prefix_with("STRAIGHT_JOIN", dialect="mysql")
    found = set()
    for row in session.execute(_walk(query, source, pair.agent_name, part.after, part.through)):
        if (row.its_app_id, row.owner) != (row.app_id, pair.agent_name):
            raise Foreign(row.id)
        found.add(row.id)
    return found


def _superfluous(session: Session, pair: Pair, part: Range) -> list[int]:
    """Return what the target has of the agent in a range and the source has not; one more than a batch at most."""
    source, target = pair.source, pair.target
    same = select(literal(1)).where(source.id == target.id, *of_agent(source, pair.agent_name))
    query = select(target.id).where(~same.correlate(target).exists())
    query = _walk(query, target, pair.agent_name, part.after, part.through)
    return list(session.scalars(query.limit(BATCH + 1)))


def _insert(session: Unit, pair: Pair, part: Range, there: Collection[int]) -> None:
    """Copy a range within the server."""
    source, target = pair.source, pair.target.__table__
    names = [column.name for column in target.c if column.name != "agent_name"]
    values = [source.__table__.c[name] for name in names]
    if is_shared(pair.target):
        names, values = [*names, "agent_name"], [*values, literal(pair.agent_name)]
    rows = _walk(select(*values).select_from(source), source, pair.agent_name, part.after, part.through)
    if there:
        rows = rows.where(source.id.not_in(there))
    session.execute(insert(target).from_select(names, rows, include_defaults=False))


def _delete(session: Unit, model: Any, agent_name: str, ids: Collection[int]) -> None:
    if ids:
        gone = delete(model).where(model.id.in_(ids), *of_agent(model, agent_name))
        session.execute(gone, execution_options={"synchronize_session": False})


def _is_bounded(column: Any) -> bool:
    """True for a column whose text has no `|` and is short; what else there is stands in the digest as its own."""
    return isinstance(column.type, Integer | UtcDateTime)


def _stored(column: Any) -> Any:
    return type_coerce(column, String()).label(f"stored_{column.name}")


def _columns(model: Any) -> list[Any]:
    # Two models may declare them in another order.
    columns = (column for column in model.__table__.c if column.name != "agent_name")
    return sorted(columns, key=lambda column: str(column.name))


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _digest_here(columns: Sequence[Any]) -> Any:
    # The hash of a text: with the text itself CONCAT_WS is NULL beyond max_allowed_packet, and NULLs look equal.
    parts = [column if _is_bounded(column) else func.sha2(column, 256) for column in columns]
    return func.sha2(func.concat_ws("|", *(func.coalesce(func.concat(part), _NULL) for part in parts)), 256)
