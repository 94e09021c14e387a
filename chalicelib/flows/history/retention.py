"""The daily jobs that bound what flows remember: turns of nodes, and variables.

Rows go by their primary keys, in batches that are units of their own, found in the order of an index: a batch reads
what it deletes and little more, however large the table is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, delete, func, or_, select, text
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.housekeeping import BATCH, COUNTED, DAY_S
from chalicelib.core.ids import id_at
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.paging import through
from chalicelib.core.steps import declare, step
from chalicelib.flows.history.models import NodeHistory
from chalicelib.flows.models import DRAFT, Flow
from chalicelib.flows.names import flow_id_of
from chalicelib.flows.variables.models import FlowVariable

STEPS = declare("flow_retention", ("delete_rows",))
KEPT = timedelta(days=90)
# Pairs of an app and a flow that one statement finds.
WALK = 500
# Of a run; the next one goes on.
PAIRS_A_RUN = 200

_HISTORY, _VARIABLE = cast(Table, NodeHistory.__table__), cast(Table, FlowVariable.__table__)
_INDEXES = {_HISTORY.name: "ix_workflow_node_history_chat", _VARIABLE.name: "ix_flow_variable_chat"}
Pair = tuple[int, str]


def memory_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs that bound what flows remember."""
    return (
        Job(
            "retain_flow_history",
            "Delete turns of flows' nodes older than ninety days, and variables that were not set for as long",
            DAY_S,
            lambda _: _plan_old(database, now() - KEPT),
        ),
        Job(
            "purge_flow_history",
            "Delete what flows remember of flows and apps that were deleted",
            DAY_S,
            lambda _: _plan_gone(database),
        ),
    )


@dataclass(frozen=True)
class _Cut:
    """What of a table goes: all rows for which `old` holds, in an order that an index gives."""

    table: Table
    old: ColumnElement[bool]
    order: Sequence[ColumnElement[Any]]

    @property
    def key(self) -> ColumnElement[Any]:
        return self.table.primary_key.columns[0]

    def oldest(self, most: int) -> Select[Any]:
        return select(self.key).where(self.old).order_by(*self.order).limit(most)


def _plan_old(database: DatabaseService, before: datetime) -> Plan:
    # Ids that were given by another system are smaller than any of ours: on those the time alone decides.
    old = and_(_HISTORY.c.id < id_at(before), _HISTORY.c.create_time < before)
    unset = _VARIABLE.c.updated_at < before
    cuts = [_Cut(_HISTORY, old, [_HISTORY.c.id]), _Cut(_VARIABLE, unset, [_VARIABLE.c.updated_at])]
    with database.reads() as session:
        return _planned(database, session, [("delete_rows", cut.table.name, cut) for cut in cuts])


def _plan_gone(database: DatabaseService) -> Plan:
    found: list[tuple[str, str, _Cut]] = []
    with database.reads() as session:
        for table in (_HISTORY, _VARIABLE):
            for app_id, flow_id in _gone(session, table):
                of_pair = and_(table.c.app_id == app_id, table.c.flow_id == flow_id)
                name = f"{table.name} of flow {flow_id}, app {app_id}"
                found.append(("delete_memory", name, _Cut(table, of_pair, [table.c.app_id, table.c.flow_id])))
                if len(found) == PAIRS_A_RUN:
                    return _planned(database, session, found, more=True)
        return _planned(database, session, found)


def _planned(
    database: DatabaseService, session: Session, found: list[tuple[str, str, _Cut]], *, more: bool = False
) -> Plan:
    counted = [(what, name, cut, _count(session, cut)) for what, name, cut in found]
    actions = [Action(what, name, _work(database, cut), count) for what, name, cut, count in counted if count]
    return Plan(tuple(actions), more=more or any(action.count == COUNTED for action in actions))


def _count(session: Session, cut: _Cut) -> int:
    first = cut.oldest(COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(first)) or 0


# -- of what is deleted ------------------------------------------------------------------------------------------


def _gone(session: Session, table: Table) -> Iterator[Pair]:
    """Yield the apps and flows of which a table holds rows though one of the two was deleted."""
    after: Pair | None = None
    while pairs := _pairs(session, table, after):
        flow_ids = [number for _, flow_id in pairs if (number := flow_id_of(flow_id)) is not None]
        live = (Flow.id.in_(flow_ids), Flow.version == DRAFT, Flow.is_deleted == 0)
        flows = {str(number) for number in session.scalars(select(Flow.id).where(*live))}
        apps = set(session.scalars(select(App.id).where(App.id.in_({app_id for app_id, _ in pairs}))))
        yield from (pair for pair in pairs if pair[0] not in apps or pair[1] not in flows)
        if len(pairs) < WALK:
            return
        after = pairs[-1]


def _pairs(session: Session, table: Table, after: Pair | None) -> list[Pair]:
    app_id, flow_id = table.c.app_id, table.c.flow_id
    query = select(app_id, flow_id).distinct().order_by(app_id, flow_id).limit(WALK)
    if after is not None:
        query = query.where(or_(and_(app_id == after[0], flow_id > after[1]), app_id > after[0]))
    rows: Any = session.execute(through(query, table, _INDEXES[table.name]))
    return [(int(row.app_id), str(row.flow_id)) for row in rows]


# -- carrying it out -----------------------------------------------------------------------------------------------


def _work(database: DatabaseService, cut: _Cut) -> Callable[[], bool]:
    def work() -> bool:
        step("flow_retention", "delete_rows")
        return database.run(lambda session: _delete_batch(session, cut))

    return work


def _delete_batch(session: Unit, cut: _Cut) -> bool:
    """Delete the first of the rows that go; return whether there may be more."""
    # Held: a variable that is set meanwhile is not old any more.
    keys = list(session.scalars(cut.oldest(BATCH).with_for_update()))
    if not keys:
        return False
    if session.get_bind().dialect.name == "sqlite":
        session.execute(delete(cut.table).where(cut.key.in_(keys)))
    else:
        # Told an order and a number a server goes along the primary key; left to itself it reads a table of some
        # thousand rows from end to end for five hundred keys, and locks the rows that stay one by one.
        statement = text(
            f"DELETE FROM {cut.table.name} WHERE {cut.key.key} IN :keys ORDER BY {cut.key.key} LIMIT :most"  # noqa: S608
        )
        session.execute(statement.bindparams(bindparam("keys", keys, expanding=True), most=len(keys)))
    return len(keys) == BATCH
