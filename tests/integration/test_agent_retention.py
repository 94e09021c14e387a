"""What the daily job keeps of the agents' tables, and that nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, Index, Integer, String, event, insert, text

from chalicelib.agents import retention
from chalicelib.agents.models import (
    CANCELLED,
    COPYING,
    DONE,
    FAILED,
    VERIFYING,
    AgentMove,
    AgentRow,
    AgentTable,
)
from chalicelib.agents.retention import retention_jobs
from chalicelib.core import steps
from chalicelib.core.database import DatabaseService
from chalicelib.core.housekeeping import BATCH
from chalicelib.core.ids import id_at
from chalicelib.core.jobs import Runner
from tests.agent_tables import NOTES, World, columns, fresh, model, shared_tables

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@dataclass
class Kept(World):
    """Tables with rows of a known age, and a clock that does not move."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def make(self, declared: type[Any] | None = None, **retain: int) -> type[Any]:
        """Make a table of which something is kept."""
        made = declared or model()
        assert self.migrate(made).problems == {}
        self.keep(made.__tablename__, **retain)
        return made

    def keep(self, name: str = NOTES, **retain: int) -> None:
        def work(session: Any) -> None:
            row = session.get_one(AgentTable, name)
            row.retain_days, row.retain_rows = retain.get("days"), retain.get("rows")

        self.database.run(work)

    def put(self, declared: type[Any], *ages: timedelta, ids: Any = None) -> list[int]:
        """Add rows made that long ago, with ids of then."""
        keys = (
            [id_at(self.now - age) + number for number, age in enumerate(ages)] if ids is None else list(ids)
        )
        rows = [
            {"id": key, "app_id": 1, "agent_name": "x", "title": "t", "created_at": self.now - age}
            for key, age in zip(keys, ages, strict=True)
        ]
        with self.database.connection() as connection:
            connection.execute(insert(declared.__table__), rows)
        return keys

    def left(self, name: str = NOTES) -> list[Any]:
        with self.database.connection() as connection:
            return list(connection.execute(text(f"SELECT id FROM {name} ORDER BY id")).scalars())

    def run(self) -> dict[str, Any]:
        [job] = retention_jobs(self.database, lambda: self.now)
        report = Runner(self.database, deadline_s=120).run(job)
        assert (report["failures"], report["left"]) == ([], 0)
        return report

    def planned(self) -> list[tuple[str, int]]:
        [job] = retention_jobs(self.database, lambda: self.now)
        plan = Runner(self.database, deadline_s=60).preview(job)["plan"]
        return [(one["target"], one["count"]) for one in plan]


@pytest.fixture
def kept(database_url: str) -> Iterator[Kept]:
    service = fresh(database_url)
    yield Kept(service)
    service.close()


def is_delete(statement: str) -> bool:
    return statement.startswith("DELETE") and "agentflow_" in statement


@pytest.fixture
def server(mysql_url: str) -> Iterator[Kept]:
    """On the real server."""
    service = fresh(mysql_url)
    yield Kept(service)
    service.close()


@pytest.fixture
def other(mysql_url: str) -> Iterator[DatabaseService]:
    """Another process; what it left open ends with it."""
    service = DatabaseService(mysql_url)
    yield service
    service.close()


# -- what goes ---------------------------------------------------------------------------------------------------


def test_rows_go_at_their_second(kept: Kept) -> None:
    declared = kept.make(days=30)
    ids = kept.put(declared, 400 * DAY, 30 * DAY + SECOND, 30 * DAY, 30 * DAY - SECOND, 0 * DAY)
    assert kept.planned() == [(NOTES, 2)]
    assert kept.left() == ids
    assert kept.run()["done"] == 1
    assert kept.left() == ids[2:]
    assert kept.planned() == []


def test_the_newest_rows_stay(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three walks find the oldest of twenty.
    monkeypatch.setattr(retention, "WALK", 8)
    declared = kept.make(rows=20)
    ids = kept.put(declared, *(timedelta(hours=100 - number) for number in range(50)))
    assert kept.planned() == [(NOTES, 30)]
    kept.run()
    assert kept.left() == ids[30:]
    assert kept.planned() == []
    for rows in (20, 21):
        kept.keep(rows=rows)
        assert kept.planned() == []
    kept.keep(rows=16)
    kept.run()
    assert kept.left() == ids[34:]


def test_days_and_rows_each_take_their_part(kept: Kept) -> None:
    declared = kept.make(days=30, rows=4)
    ids = kept.put(declared, *(age * DAY for age in (50, 40, 20, 10, 5, 4, 3)))
    kept.run()
    assert kept.left() == ids[3:]
    kept.keep(days=5, rows=100)
    kept.run()
    assert kept.left() == ids[4:]


def test_nothing_goes_of_a_table_that_keeps_all(kept: Kept) -> None:
    declared = kept.make()
    ids = kept.put(declared, 4000 * DAY, DAY)
    assert kept.run()["planned"] == 0
    assert kept.left() == ids


def test_the_shared_tables_are_bounded_too(kept: Kept) -> None:
    kept.migrate(*shared_tables())
    name = "agentflow_shared_conversation_history"
    kept.keep(name, days=1)
    with kept.database.connection() as connection:
        for age in (3 * DAY, 2 * DAY, timedelta(hours=1)):
            at = kept.now - age
            row = {
                "id": id_at(at),
                "app_id": 1,
                "agent_name": "x",
                "thread_id": "t",
                "role": "user",
                "content": "c",
            }
            table = shared_tables()[1].model.__table__
            connection.execute(insert(table), row | {"created_at": at, "updated_at": at})
    kept.run()
    assert kept.left(name) == [id_at(kept.now - timedelta(hours=1))]


def test_every_batch_is_a_unit_of_its_own_and_none_takes_more_rows(kept: Kept) -> None:
    declared = kept.make(days=30)
    many = 2 * BATCH + 7
    ids = kept.put(declared, *[31 * DAY] * many, DAY)
    taken: list[int] = []

    def after(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if is_delete(statement):
            taken.append(cursor.rowcount)

    commits: list[int] = []
    event.listen(kept.database.engine, "after_cursor_execute", after)
    event.listen(kept.database.engine, "commit", lambda _: commits.append(len(taken)))
    kept.run()
    assert taken == [BATCH, BATCH, 7]
    # Between two of them something was committed.
    assert {1, 2, 3} <= set(commits)
    assert kept.left() == ids[-1:]


# -- what might be taken for old ---------------------------------------------------------------------------------


def test_numbers_that_a_server_gave_are_no_times(kept: Kept) -> None:
    """1, 2, 3 would be ids of 2024: `created_at` is what counts."""
    declared = kept.make(days=30)
    kept.put(declared, 40 * DAY, 35 * DAY, 3 * DAY, DAY, ids=[1, 2, 3, 4])
    fresh_ids = kept.put(declared, timedelta(hours=1))
    kept.run()
    assert kept.left() == [3, 4, *fresh_ids]


def test_a_row_that_stays_among_old_ones_does_not_end_the_job(kept: Kept) -> None:
    declared = kept.make(days=30)
    young = BATCH + 3
    ages = [DAY if number < young or number % 400 == 0 else 40 * DAY for number in range(3 * BATCH)]
    ids = kept.put(declared, *ages, ids=range(1, 3 * BATCH + 1))
    kept.run()
    assert kept.left() == [key for key, age in zip(ids, ages, strict=True) if age == DAY]


def test_the_walk_over_rows_that_stay_ends_where_the_plan_ended(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    monkeypatch.setattr(retention, "COUNTED", 30)
    declared = kept.make(days=30)
    kept.put(declared, *[40 * DAY] + [DAY] * 99, ids=range(1, 101))
    looked: list[str] = []
    before = steps.observe(lambda operation, _: looked.append(operation))
    kept.run()
    steps.observe(before)
    assert looked.count("agent_retention") == 1 + 3
    assert kept.left() == list(range(2, 101))


def test_an_index_on_created_at_serves_where_the_id_is_no_number(kept: Kept) -> None:
    def keyed(*parts: Any) -> type[Any]:
        return model(*parts, base=[Column("id", String(26), primary_key=True), *columns()[1:]])

    declared = kept.make(keyed(Index("ix_notes_created_at", "created_at", "id")), days=30, rows=1)
    kept.put(declared, 40 * DAY, 2 * DAY, 31 * DAY, ids=["c", "a", "b"])
    kept.run()
    # How many rows there are to keep cannot be told by these ids.
    assert kept.left() == ["a"]


@pytest.mark.parametrize("days", [30, None], ids=["days", "rows"])
def test_a_table_without_an_order_is_left_alone_and_told(
    kept: Kept, days: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [
        Column("part", BigInteger, primary_key=True),
        Column("id", Integer, primary_key=True),
        *columns()[1:],
    ]
    declared = kept.make(model(base=base), **({"days": days} if days else {"rows": 1}))
    with kept.database.connection() as connection:
        for key in (1, 2):
            row = {"part": 1, "id": key, "app_id": 1, "agent_name": "x", "title": "t"}
            connection.execute(insert(declared.__table__), row | {"created_at": kept.now - 99 * DAY})
    capsys.readouterr()
    assert kept.planned() == []
    assert "agent.retention_unsupported" in capsys.readouterr().out
    assert kept.left() == [1, 2]


def test_a_table_that_is_gone_stops_no_other(kept: Kept) -> None:
    kept.make(days=30)
    other = kept.make(model(name="agentflow_other_note"), days=30)
    kept.put(other, 40 * DAY)
    kept.sql(f"DROP TABLE {NOTES}")
    assert kept.run()["done"] == 1
    assert kept.left("agentflow_other_note") == []


# -- while a history moves ---------------------------------------------------------------------------------------


def put_move(kept: Kept, state: str, source: str = "a", target: str = "b") -> None:
    moving = "shared" if state in (COPYING, VERIFYING) else None
    move = AgentMove(
        agent_name="notes", target="shared", state=state, source_table=source, target_table=target,
        keep_days=1, created_by=1,
    )  # fmt: skip

    def work(session: Any) -> None:
        row = session.get(AgentRow, "notes") or AgentRow(name="notes", version="1")
        row.moving_to = moving
        session.add_all([row, move])

    kept.database.run(work)


@pytest.mark.parametrize("state", [COPYING, VERIFYING])
@pytest.mark.parametrize("end", ["source", "target"])
def test_tables_of_a_move_are_left_alone(kept: Kept, state: str, end: str) -> None:
    declared = kept.make(days=30)
    other = kept.make(model(name="agentflow_other_note"), days=30)
    ids = kept.put(declared, 40 * DAY)
    kept.put(other, 40 * DAY)
    put_move(kept, state, **{end: NOTES})
    assert kept.planned() == [("agentflow_other_note", 1)]
    kept.run()
    assert kept.left() == ids


@pytest.mark.parametrize("state", [DONE, CANCELLED, FAILED])
def test_a_move_that_ended_hinders_nothing(kept: Kept, state: str) -> None:
    declared = kept.make(days=30)
    kept.put(declared, 40 * DAY)
    put_move(kept, state, source=NOTES)
    kept.run()
    assert kept.left() == []


def test_a_move_that_begins_between_two_batches_stops_the_job(kept: Kept) -> None:
    declared = kept.make(days=30)
    ids = kept.put(declared, *[40 * DAY] * (2 * BATCH))
    batches: list[str] = []

    def observe(operation: str, name: str) -> None:
        if operation == "agent_retention":
            batches.append(name)
            if len(batches) == 2:
                put_move(kept, COPYING, source=NOTES)

    before = steps.observe(observe)
    kept.run()
    steps.observe(before)
    assert kept.left() == ids[BATCH:]


def test_no_move_begins_while_a_batch_is_deleted(server: Kept, other: DatabaseService) -> None:
    """Whoever begins one holds the agent's row: a batch holds it shared, as whoever stores a message does."""
    declared = server.make(days=30)
    server.put(declared, 40 * DAY)
    put_move(server, DONE)
    holders: list[str] = []

    def before_delete(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not is_delete(statement):
            return
        for mode in ("LOCK IN SHARE MODE", "FOR UPDATE"):
            with closing(other.engine.raw_connection()) as line, closing(line.cursor()) as cursor:
                cursor.execute("SET innodb_lock_wait_timeout = 1")
                cursor.execute("BEGIN")
                try:
                    cursor.execute(f"SELECT name FROM agent WHERE name = 'notes' {mode}")
                    holders.append(mode)
                except other.engine.dialect.loaded_dbapi.OperationalError as error:
                    assert error.args[0] == 1205
                cursor.execute("ROLLBACK")

    event.listen(server.database.engine, "before_cursor_execute", before_delete)
    server.run()
    assert holders == ["LOCK IN SHARE MODE"]


# -- nobody waits ------------------------------------------------------------------------------------------------


def test_rows_that_stay_are_never_locked_nor_waited_for(server: Kept, other: DatabaseService) -> None:
    """Other transactions hold every row that stays, and add rows wherever there is a gap, while the job runs."""
    declared = server.make(
        model(Index("ix_notes_created_at", "created_at"), Index("ix_notes_app", "app_id")), days=30
    )
    gone, stays = 3 * BATCH, 50
    step = 1 << 10
    old = range(step, (gone + 1) * step, step)
    server.put(declared, *[40 * DAY] * gone, ids=old)
    young = server.put(declared, *[DAY] * stays)
    added: list[int] = []
    with closing(other.engine.raw_connection()) as line, closing(line.cursor()) as cursor:
        # One lock wait, of either, would be an error at once.
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE {NOTES} SET title = 'held' WHERE id >= {young[0]}")
        assert cursor.rowcount == stays

        def while_it_holds_its_locks(_c: Any, deleting: Any, statement: str, *_: Any) -> None:
            if is_delete(statement):
                # Between the rows of this batch, and beyond them.
                for key in (old[0] + len(added) + 1, old[-1] + len(added) + 1, young[-1] + len(added) + 1):
                    row = f"({key}, 1, 'x', 't', '{server.now - DAY:%Y-%m-%d %H:%M:%S}')"
                    cursor.execute(f"INSERT INTO {NOTES} VALUES {row}")
                    added.append(key)

        event.listen(server.database.engine, "after_cursor_execute", while_it_holds_its_locks)
        server.run()
        cursor.execute("COMMIT")
    assert len(added) == 3 * 3
    assert server.left() == sorted([*young, *added])


def test_a_batch_locks_what_it_deletes_and_a_writer_goes_on_in_between(
    server: Kept, other: DatabaseService, mysql_url: str
) -> None:
    declared = server.make(days=30)
    batches = 4
    old = server.put(declared, *[40 * DAY] * (batches * BATCH), *[DAY] * BATCH)
    watching = DatabaseService(mysql_url)
    done, updated = threading.Event(), []

    def write() -> None:
        """Ask for one row after the other; a wait for more than one batch would be an error."""
        with closing(other.engine.raw_connection()) as line, closing(line.cursor()) as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 3")
            while not done.is_set():
                key = old[len(updated) * 97 % len(old)]
                updated.append(cursor.execute(f"UPDATE {NOTES} SET title = 'x' WHERE id = {key}"))

    held: list[int] = []

    def count_locks(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if is_delete(statement):
            # The server counts for a tenth of a second at a time.
            time.sleep(0.15)
            locks = text(
                "SELECT trx_rows_locked FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = :id"
            )
            with watching.connection() as connection:
                held.append(connection.scalar(locks, {"id": cursor.connection.thread_id()}) or 0)

    event.listen(server.database.engine, "after_cursor_execute", count_locks)
    writer = threading.Thread(target=write)
    writer.start()
    server.run()
    done.set()
    writer.join(30)
    watching.close()
    assert server.left() == old[batches * BATCH :]
    assert len(held) == batches
    assert BATCH <= max(held) <= BATCH + 10, held
    assert len(updated) > batches


# -- the plans ---------------------------------------------------------------------------------------------------


def test_what_the_job_reads_is_what_it_deletes_however_large_the_table_is(server: Kept) -> None:
    declared = server.make(days=30, rows=2000)
    many = 4000
    server.put(declared, *[40 * DAY] * 20, *[DAY] * many)
    server.sql(f"ANALYZE TABLE {NOTES}")
    sent: list[tuple[str, Any]] = []

    def record(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if NOTES in statement and statement.startswith(("SELECT", "DELETE")):
            sent.append((statement, parameters))

    event.listen(server.database.engine, "before_cursor_execute", record)
    server.run()
    event.remove(server.database.engine, "before_cursor_execute", record)
    assert any(statement.startswith("DELETE") for statement, _ in sent)
    with closing(server.database.engine.raw_connection()) as line, closing(line.cursor()) as cursor:
        for statement, parameters in sent:
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {cursor.mogrify(statement, parameters)}")
            names = [one[0] for one in cursor.description]
            for row in (dict(zip(names, values, strict=True)) for values in cursor.fetchall()):
                if row["table"] == NOTES:
                    assert row["key"] == "PRIMARY" and row["type"] in ("range", "index"), (statement, row)
                    assert "filesort" not in (row["Extra"] or ""), (statement, row)
