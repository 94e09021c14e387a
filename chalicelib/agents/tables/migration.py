"""The agents' part of `migrate`: their tables made or added to, and what became of it recorded.

DDL of MySQL is no part of any transaction, so a table may be there before its row is. Whoever migrates next finds it,
adds what is missing and records it; a table that was brought over from elsewhere is taken the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import select, text
from sqlalchemy.engine import Connection

from chalicelib.agents.models import AgentTable
from chalicelib.agents.spec import OwnedTable
from chalicelib.agents.tables.changes import OPERATION, TABLE, Change, apply, differences, plan_changes
from chalicelib.agents.tables.definition import schema_hash
from chalicelib.core import telemetry
from chalicelib.core.database import Unit
from chalicelib.core.steps import step

# A statement that waits for a long transaction keeps everybody else on that table waiting behind it.
METADATA_LOCK_WAIT_S = 20
# Once for what is missing, once more for what another process made half of meanwhile.
ROUNDS = 2
OWNED_BY = "owned by "
# Definitions of earlier releases that are remembered: more are never deployed at once.
EARLIER = 10


@dataclass(frozen=True)
class Report:
    """What a migration did to the agents' tables.

    Parameters
    ----------
    created, changed
        Names of tables that were made, and of those that a column or an index was added to.
    problems
        By table: what needs a revision written by hand.
    """

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {
            "created": list(self.created),
            "changed": list(self.changed),
            "problems": {name: list(texts) for name, texts in self.problems.items()},
        }


@dataclass(frozen=True)
class _Outcome:
    table: OwnedTable
    done: tuple[Change, ...]
    problems: list[str]
    serves: bool


def migrate_agent_tables(connection: Connection, tables: Iterable[OwnedTable]) -> Report:
    """Create the tables that are missing, add what may be added, and record owner, mode and definition of each.

    What fails on one table is that table's problem and stops no other. Nothing is ever dropped or narrowed.

    Parameters
    ----------
    connection
        That of `events.migration.exclusive_connection`, after the revisions: nobody else migrates meanwhile.
    tables
        What the agents declare. Of two owners of one name the first that was ever recorded keeps it, else the first
        in this order.
    """
    claims = _claims(tables)
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"SET SESSION lock_wait_timeout = {METADATA_LOCK_WAIT_S}"))
    owners = _owners(connection, claims)
    outcomes, refused = [], {}
    for name, claimed in claims.items():
        owner = owners.get(name, claimed[0].owner)
        refused[name] = [
            f"{OWNED_BY}{owner}; refused to {one.owner}" for one in claimed if one.owner != owner
        ]
        outcomes += [_bring(connection, one) for one in claimed if one.owner == owner]
    problems = _record(connection, outcomes, refused)
    report = Report(
        created=tuple(one.table.name for one in outcomes if _made(one)),
        changed=tuple(one.table.name for one in outcomes if one.done and not _made(one)),
        problems={name: texts for name, texts in problems.items() if texts},
    )
    telemetry.event(
        "database.tables.created",
        count=len(report.created),
        changed=len(report.changed),
        problems=sum(map(len, report.problems.values())),
    )
    return report


def _claims(tables: Iterable[OwnedTable]) -> dict[str, list[OwnedTable]]:
    claims: dict[str, list[OwnedTable]] = {}
    for table in tables:
        claimed = claims.setdefault(table.name, [])
        if table.owner not in {one.owner for one in claimed}:
            claimed.append(table)
    return claims


def _owners(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    query = select(AgentTable.table_name, AgentTable.owner).where(AgentTable.table_name.in_(list(names)))
    return {row.table_name: row.owner for row in connection.execute(query)}


def _made(outcome: _Outcome) -> bool:
    return any(change.kind == TABLE for change in outcome.done)


def _bring(connection: Connection, table: OwnedTable) -> _Outcome:
    """Bring one table as near to its model as additions can."""
    done: list[Change] = []
    refused: dict[Change, str] = {}
    for _ in range(ROUNDS):
        for change in plan_changes(connection, table.model):
            if change in refused:
                continue
            why = apply(connection, change, table.model)
            if why is None:
                done.append(change)
            else:
                refused[change] = why
    left = differences(connection, table.model, refused)
    return _Outcome(table, tuple(dict.fromkeys(done)), left.all, not left.hindering)


# -- the rows ----------------------------------------------------------------------------------------------------


def _record(
    connection: Connection, outcomes: Sequence[_Outcome], refused: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Write what differs from what is recorded, and return the problems of each table."""
    step(OPERATION, "record")
    with (
        _transaction(connection),
        Unit(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session,
    ):
        rows = {
            row.table_name: row
            for row in session.scalars(select(AgentTable).where(AgentTable.table_name.in_(list(refused))))
        }
        for outcome in outcomes:
            if outcome.table.name not in rows:
                rows[outcome.table.name] = _new_row(session, outcome.table)
            _update(rows[outcome.table.name], outcome)
        found = {outcome.table.name: outcome.problems for outcome in outcomes}
        for name, row in rows.items():
            # Of a table whose owner is not here what was told before still holds.
            own = found.get(name, [one for one in row.problems if not one.startswith(OWNED_BY)])
            problems = [*own, *refused[name]]
            if row.problems != problems:
                row.problems = problems
        session.commit()
        return {name: list(row.problems) for name, row in rows.items()}


def _new_row(session: Unit, table: OwnedTable) -> AgentTable:
    row = AgentTable(
        table_name=table.name,
        owner=table.owner,
        mode=table.mode,
        schema_hash="",
        earlier_hashes=[],
        problems=[],
    )
    session.add(row)
    return row


def _update(row: AgentTable, outcome: _Outcome) -> None:
    """Set what differs: a row that is set to what it is would be written, and its cache entries dropped."""
    if row.mode != outcome.table.mode:
        row.mode = outcome.table.mode
    wanted = schema_hash(outcome.table.model)
    # What the model cannot be used with stays at the definition before: to a cold start the table is outdated.
    if outcome.serves and row.schema_hash != wanted:
        before = [row.schema_hash, *row.earlier_hashes] if row.schema_hash else []
        row.earlier_hashes = [one for one in before if one != wanted][:EARLIER]
        row.schema_hash = wanted
    if not outcome.serves and row.schema_hash == wanted:
        row.schema_hash, row.earlier_hashes = "", []


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Rows and bump of the cache versions at once, on a connection in AUTOCOMMIT; SQLite is in a transaction anyway."""
    if connection.dialect.name == "sqlite":
        yield
        return
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    connection.exec_driver_sql("BEGIN")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
