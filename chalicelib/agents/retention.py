"""The daily job that keeps the agents' tables as long as admins want them kept.

Rows go by their primary keys, in batches that are units of their own: no gap is locked that somebody inserts into, and
no row that stays. The oldest rows are found in the order of an index, so a batch reads what it deletes and little more,
however large the table is. Tables between which a history is being moved are left alone: the move compares what it
copied with what is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    MetaData,
    Select,
    Table,
    TableClause,
    bindparam,
    column,
    delete,
    func,
    or_,
    select,
    table,
    text,
)  # fmt: skip
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.orm import Session

from chalicelib.agents.models import COPYING, VERIFYING, AgentMove, AgentRow, AgentTable
from chalicelib.agents.names import SHARED_OWNER
from chalicelib.agents.tables.ordering import CREATED_AT, ID, Ordering, ordering_of
from chalicelib.core import telemetry
from chalicelib.core.database import DatabaseService, Unit, UtcDateTime
from chalicelib.core.housekeeping import BATCH, COUNTED, DAY_S
from chalicelib.core.ids import id_at
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.steps import declare, step

STEPS = declare("agent_retention", ("delete_rows",))
# Of the ids that one statement walks over to find the oldest row that is kept.
WALK = 10_000


def retention_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the job that bounds the agents' tables."""
    return (
        Job(
            "retain_agents",
            "Delete what the agents' tables hold beyond the days and the rows that each of them keeps",
            DAY_S,
            lambda _: _plan(database, now),
        ),
    )


@dataclass(frozen=True)
class _Cut:
    """What of one table goes.

    Parameters
    ----------
    rows
        The table, with the columns that are needed here.
    order
        The column whose index finds the oldest rows first.
    reach
        How far along that index there can be any that go.
    old
        Which of those go.
    """

    owner: str
    rows: TableClause
    order: ColumnElement[Any]
    reach: ColumnElement[bool]
    old: ColumnElement[bool]

    @property
    def name(self) -> str:
        return self.rows.name

    def oldest(self, most: int, after: int | None = None) -> Select[Any]:
        """Return the statement that finds the rows that may go first: their ids, and whether they do."""
        query = select(self.rows.c.id, self.old.label("old")).where(self.reach)
        if after is not None:
            query = query.where(self.rows.c.id > after)
        return query.order_by(self.order).limit(most)


# -- the plan --------------------------------------------------------------------------------------------------


def _plan(database: DatabaseService, now: Clock) -> Plan:
    kept = or_(AgentTable.retain_days.is_not(None), AgentTable.retain_rows.is_not(None))
    with database.reads() as session:
        rows = session.scalars(select(AgentTable).where(kept).order_by(AgentTable.table_name)).all()
        cuts = [
            cut
            for row in rows
            if not _is_moving(session, row.table_name)
            for cut in _cuts(session, row, now())
        ]
        counted = [(cut, _count(session, cut)) for cut in cuts]
    actions = [
        Action("delete_rows", cut.name, _delete(database, cut), count) for cut, count in counted if count
    ]
    return Plan(tuple(actions), more=any(count == COUNTED for _, count in counted))


def _cuts(session: Session, row: AgentTable, now: datetime) -> Iterator[_Cut]:
    """Yield what is to go of a table: what is too old, and what is too much.

    The table is looked at as it is: the agent that declares it need not be here.
    """
    try:
        found = Table(row.table_name, MetaData(), autoload_with=session.connection(), resolve_fks=False)
    except NoSuchTableError:
        return
    ordering = ordering_of(found)
    rows = table(row.table_name, column(ID), column(CREATED_AT, UtcDateTime()))
    if row.retain_days is not None:
        if ordering.for_days:
            yield _too_old(row.owner, rows, ordering, now - timedelta(days=row.retain_days))
        else:
            telemetry.event("agent.retention_unsupported", table=row.table_name, keeps="days")
    if row.retain_rows is not None:
        if ordering.for_rows:
            lowest = _lowest_kept(session, rows, row.retain_rows)
            if lowest is not None:
                yield _Cut(row.owner, rows, rows.c.id, rows.c.id < lowest, rows.c.id < lowest)
        else:
            telemetry.event("agent.retention_unsupported", table=row.table_name, keeps="rows")


def _too_old(owner: str, rows: TableClause, ordering: Ordering, before: datetime) -> _Cut:
    old = rows.c.created_at < before
    if not ordering.by_id:
        return _Cut(owner, rows, rows.c.created_at, old, old)
    # Numbers that a server gave are smaller than any id of ours; on those `created_at` alone decides.
    return _Cut(owner, rows, rows.c.id, rows.c.id < id_at(before), old)


def _lowest_kept(session: Session, rows: TableClause, keep: int) -> int | None:
    """Return the id of the oldest of the newest `keep` rows, None where there are not so many."""
    lowest: int | None = None
    for walked in range(0, keep, WALK):
        query = select(rows.c.id).order_by(rows.c.id.desc()).offset(min(WALK, keep - walked) - 1).limit(1)
        if lowest is not None:
            query = query.where(rows.c.id < lowest)
        lowest = session.scalar(query)
        if lowest is None:
            return None
    return lowest


def _count(session: Session, cut: _Cut) -> int:
    first = cut.oldest(COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(first).where(first.c.old)) or 0


# -- carrying it out -------------------------------------------------------------------------------------------


def _delete(database: DatabaseService, cut: _Cut) -> Callable[[], bool]:
    # How far the rows were looked at of which some stay, and how many batches held none that goes.
    after: int | None = None
    barren = 0

    def work() -> bool:
        nonlocal after, barren
        step("agent_retention", "delete_rows")
        batch = database.run(lambda session: _delete_batch(session, cut, after))
        after = batch.after
        barren = 0 if batch.deleted else barren + 1
        # Where the server gives the ids they tell no end: as far as the plan counted, and no further.
        return batch.is_full and barren < COUNTED // BATCH

    return work


@dataclass(frozen=True)
class _Batch:
    deleted: int
    is_full: bool
    after: int | None


def _delete_batch(session: Unit, cut: _Cut, after: int | None) -> _Batch:
    """Delete those of the oldest rows that go."""
    _hold_agents(session, cut.owner)
    if _is_moving(session, cut.name):
        return _Batch(0, False, after)
    found = session.execute(cut.oldest(BATCH, after)).all()
    keys = [row.id for row in found if row.old]
    if keys:
        session.execute(_gone(session, cut, keys))
    return _Batch(len(keys), len(found) == BATCH, after if len(keys) == len(found) else found[-1].id)


def _gone(session: Unit, cut: _Cut, keys: list[Any]) -> Executable:
    """Return the statement that deletes rows by their keys, in the order of the keys.

    Left to itself a MySQL-family server reads a table of some thousand rows from end to end for five hundred keys; then
    it locks, one by one, the rows that stay as well, and waits for whoever writes to them. Told an order and a number
    it goes along the primary key and ends at the last row that goes. (MariaDB 10.11 minds no FORCE INDEX here.)
    """
    preparer = session.get_bind().dialect.identifier_preparer
    if preparer.dialect.name == "sqlite":
        return delete(cut.rows).where(cut.rows.c.id.in_(keys))
    # The name is one of `agent_table`, and quoted.
    name = preparer.quote_identifier(cut.name)
    statement = text(f"DELETE FROM {name} WHERE id IN :keys ORDER BY id LIMIT :most")  # noqa: S608
    return statement.bindparams(bindparam("keys", keys, expanding=True), most=len(keys))


def _hold_agents(session: Unit, owner: str) -> None:
    """Let no move begin until the unit ends: whoever begins one holds the agent's row alone."""
    rows = select(AgentRow.name).order_by(AgentRow.name).with_for_update(read=True)
    session.execute(rows if owner == SHARED_OWNER else rows.where(AgentRow.name == owner)).all()


def _is_moving(session: Session, name: str) -> bool:
    going = select(AgentMove.id).where(
        AgentMove.state.in_((COPYING, VERIFYING)),
        or_(AgentMove.source_table == name, AgentMove.target_table == name),
    )
    return session.scalars(going.limit(1)).first() is not None
