"""The agents' tables on real servers: made, added to, told, taken over, and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    select,
    text,
)

from chalicelib.agents.loading.process import registry_of_process
from chalicelib.agents.loading.registry import agent_tables
from chalicelib.agents.names import shortened
from chalicelib.agents.tables import changes
from chalicelib.agents.tables.definition import schema_hash
from chalicelib.agents.tables.migration import Report
from chalicelib.agents.tables.states import check, stored_rows
from chalicelib.core import steps
from chalicelib.core.cache_log import CacheChange
from chalicelib.core.database import DatabaseService
from chalicelib.events.migration import migrate_database
from tests.agent_tables import (
    NOTES,
    OWNER,
    SHARED_NAMES,
    World,
    columns,
    copied,
    fresh,
    model,
    newest_model,
    owned,
    shared_tables,
)
from tests.wire import WireProxy


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    service = fresh(database_url)
    yield World(service)
    service.close()


# -- made ------------------------------------------------------------------------------------------------------


def test_migrate_makes_the_tables_of_all_agents_and_records_them(database_url: str) -> None:
    world = World(DatabaseService(database_url))
    declared = agent_tables(registry_of_process())
    names = sorted(table.name for table in declared)
    assert set(names) > set(SHARED_NAMES)
    assert sorted(migrate_database(world.database)["agentTables"]["created"]) == names
    assert world.names() == names
    for table in declared:
        assert world.failures(table.model) == []
        row = world.row(table.name)
        assert (row.owner, row.mode, row.problems) == (table.owner, table.mode, [])
        assert row.schema_hash == schema_hash(table.model)
    assert migrate_database(world.database)["agentTables"] == {"created": [], "changed": [], "problems": {}}
    world.database.close()


def test_a_table_is_made_once_and_what_is_as_it_was_is_not_written(world: World) -> None:
    declared = model(Index("ix_notes_title", "app_id", "title"))
    assert world.migrate(declared).created == (NOTES,)
    assert world.failures(declared) == []
    made, version = world.row(), world.version()
    assert world.migrate(declared) == Report()
    again = world.row()
    assert again.updated_at == made.updated_at
    assert world.version() == version


def test_a_recorded_change_reaches_every_warm_function(world: World) -> None:
    version = world.version()
    world.migrate(model())
    assert world.version() == version + 1
    with world.database.reads() as session:
        changed = select(CacheChange.item_key).where(CacheChange.scope == "agents")
        assert session.scalars(changed).all() == [NOTES]
    world.migrate(model(Column("extra", Text)))
    assert world.version() == version + 2


def test_names_of_64_characters_hold_on_every_server(world: World) -> None:
    # GIVEN two agents whose tables and indexes had the same long names before they were shortened
    made = []
    for agent in ("alpha", "beta"):
        table = shortened(f"agentflow_{agent}_{'conversation_history_of_everything_' * 2}")
        names = [shortened(f"ix_{table}_{column}") for column in ("thread_id_created_at", "title")]
        assert {len(name) for name in (table, *names)} == {64}
        declared = model(Index(names[0], "app_id", "created_at"), Index(names[1], "title"), name=table)
        made.append(owned(declared, agent))
    # WHEN they are migrated THEN both are there with all that they declare
    assert world.migrate(*made) == Report(created=tuple(one.name for one in made))
    assert [world.failures(one.model) for one in made] == [[], []]


# -- added to ----------------------------------------------------------------------------------------------------


def test_what_can_be_added_is_added(world: World) -> None:
    world.migrate(model())
    world.sql(f"INSERT INTO {NOTES} VALUES (1, 2, 'notes', 'kept', '2026-01-01 00:00:00')")
    newer = model(
        Column("extra", Text),
        Column("stars", Integer, nullable=False, server_default="3"),
        Index("ix_notes_title", "app_id", "title"),
        Index("ix_notes_stars", "stars", "id"),
    )
    assert world.migrate(newer) == Report(changed=(NOTES,))
    assert world.failures(newer) == []
    assert world.row().schema_hash == schema_hash(newer)
    # Functions of the release before, which are there until they are replaced, work on.
    assert check([world.row()], [owned(model())]) == {NOTES: "ready"}
    with world.database.connection() as connection:
        stored = connection.execute(text(f"SELECT title, extra, stars FROM {NOTES}")).one()
    assert tuple(stored) == ("kept", None, 3)
    assert world.migrate(newer) == Report()


HINDERING = [
    ("type", {"base": [*columns()[:3], Column("title", Text, nullable=False), columns()[4]]}, "column title: is "),
    ("narrower", {"base": [*columns()[:3], Column("title", String(9), nullable=False), columns()[4]]},
     "column title: is varchar(50) not null, and the model's is varchar(9) not null"),
    ("nullable", {"base": [*columns()[:3], Column("title", String(50)), columns()[4]]},
     "column title: is varchar(50) not null, and the model's is varchar(50) null"),
    ("needed", {"parts": [Column("stars", Integer, nullable=False)]},
     "column stars: is missing, and cannot be added: it has neither NULL nor a default for the rows that are there"),
    ("dropped", {"base": columns()[:4]}, "column created_at: must be given a value, and the model does not know it"),
    ("unique", {"parts": [UniqueConstraint("title", name="uq_notes")]},
     "index uq_notes: is missing, and a unique one is not added: rows that are there may break it"),
    ("unique index", {"parts": [Index("uq_notes", "title", unique=True)]},
     "index uq_notes: is missing, and a unique one is not added: rows that are there may break it"),
    ("changed index", {"parts": [Index("ix_notes", "title", "app_id")]},
     "index ix_notes: is (app_id, title), and the model's is (title, app_id)"),
    ("primary", {"base": [columns()[0], Column("app_id", BigInteger, primary_key=True), *columns()[2:]]},
     "index PRIMARY: is not the model's"),
    ("foreign key", {"parts": [Column("other", BigInteger), ForeignKeyConstraint(["other"], [f"{NOTES}.id"])]},
     "foreign_key None: is not the model's"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "newer", "problem"), HINDERING, ids=[name for name, _, _ in HINDERING])
def test_what_cannot_be_added_is_told_and_the_table_stays(
    world: World, name: str, newer: dict[str, Any], problem: str
) -> None:
    before = model(Index("ix_notes", "app_id", "title"))
    world.migrate(before)
    parts = [Index("ix_notes", "app_id", "title")] if name != "changed index" else []
    base = [column._copy() for column in newer.get("base", columns())]
    declared = model(*parts, *(copied(part) for part in newer.get("parts", ())), base=base)
    report = world.migrate(declared)
    told = report.problems[NOTES]
    assert [one for one in told if one.startswith(problem)], told
    row = world.row()
    assert (list(row.problems), row.schema_hash) == (list(told), schema_hash(before))
    assert check([row], [owned(declared)]) == {NOTES: "outdated"}
    assert world.failures(before) == []
    # Nothing changed: what was told is not written again.
    version = world.version()
    assert world.migrate(declared).problems == report.problems
    assert world.version() == version
    # WHEN the model is as it was THEN all is well.
    world.migrate(before)
    assert check([world.row()], [owned(before)]) == {NOTES: "ready"}


def test_what_the_model_does_not_know_any_more_stays_and_hinders_nobody(world: World) -> None:
    world.migrate(model(Column("extra", Text), Index("ix_notes", "title")))
    older = model()
    report = world.migrate(older)
    assert report.problems == {
        NOTES: [
            "column extra: the model does not know it; it stays",
            "index ix_notes: the model does not know it; it stays",
        ]
    }
    assert check([world.row()], [owned(older)]) == {NOTES: "ready"}
    assert world.failures(model(Column("extra", Text), Index("ix_notes", "title"))) == []


def test_what_was_mended_by_hand_is_no_problem_any_more(world: World) -> None:
    world.migrate(model())
    newer = model(Column("stars", Integer, nullable=False))
    assert world.migrate(newer).problems
    world.sql(f"ALTER TABLE {NOTES} ADD COLUMN stars INTEGER NOT NULL DEFAULT 0")
    assert world.migrate(newer) == Report()
    assert (world.row().problems, world.row().schema_hash) == ([], schema_hash(newer))


def test_another_collation_is_told(mysql_url: str) -> None:
    world = World(fresh(mysql_url))
    world.migrate(model())
    world.sql(f"ALTER TABLE {NOTES} MODIFY title VARCHAR(50) COLLATE utf8mb4_general_ci NOT NULL")
    told = "column title: is varchar(50) not null collate utf8mb4_general_ci, and the model's is varchar(50) not null"
    assert world.migrate(model()).problems == {NOTES: [told]}
    world.sql(f"ALTER TABLE {NOTES} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    problems = world.migrate(model()).problems[NOTES]
    assert problems[0] == f"table {NOTES}: has another collation than utf8mb4_bin"
    assert told in problems
    assert check([world.row()], [owned(model())]) == {NOTES: "outdated"}
    world.database.close()


def test_what_the_server_refuses_is_told_and_stops_no_other_table(world: World) -> None:
    if world.database.is_sqlite:
        # An index's name is the whole database's there.
        bad = model(Index("ix_taken", "title"))
        world.sql("CREATE INDEX ix_taken ON agent (version)")
        why = "index ix_taken: the server refused it: index ix_taken already exists"
    else:
        bad = model(Column("long", String(20_000)))
        why = f"table {NOTES}: the server refused it: Column length too big"
    good = model(name="agentflow_zebra_note")
    report = world.migrate(bad, owned(good, "zebra"))
    assert report.created == ("agentflow_zebra_note",)
    assert report.problems[NOTES][0].startswith(why)
    assert check([world.row()], [owned(bad)]) == {NOTES: "outdated"}


def test_a_type_that_the_server_has_not_is_told(mysql_url: str) -> None:
    world = World(fresh(mysql_url))
    endless = model(Column("endless", String))
    assert "VARCHAR requires a length" in world.migrate(endless).problems[NOTES][0]
    assert world.names() == []
    world.database.close()


def test_a_table_in_use_keeps_nobody_waiting_for_long(
    mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, other = World(fresh(mysql_url)), DatabaseService(mysql_url)
    world.migrate(model())
    monkeypatch.setattr("chalicelib.agents.tables.migration.METADATA_LOCK_WAIT_S", 1)
    newer = model(Column("extra", Text))
    # GIVEN a transaction that has read the table and goes on
    with other.session_getter() as session:
        session.execute(text(f"SELECT * FROM {NOTES}")).all()
        told = "column extra: the table was in use for too long; migrate again"
        assert world.migrate(newer).problems == {NOTES: [told]}
    assert world.migrate(newer) == Report(changed=(NOTES,))
    world.database.close()
    other.close()


# -- whose it is -------------------------------------------------------------------------------------------------


def test_the_first_owner_stays(world: World) -> None:
    world.migrate(model())
    newer = model(Column("extra", Text))
    report = world.migrate(owned(newer, "thief"))
    assert report == Report(problems={NOTES: [f"owned by {OWNER}; refused to thief"]})
    row = world.row()
    assert (row.owner, row.schema_hash, row.problems) == (OWNER, schema_hash(model()), report.problems[NOTES])
    assert check([row], [owned(newer, "thief")]) == {NOTES: "foreign"}
    assert world.failures(newer) == ["extra"]
    # Both at once, in whichever order: the owner's model is what counts.
    assert world.migrate(owned(newer, "thief"), owned(model())).problems == report.problems
    assert world.failures(newer) == ["extra"]
    assert world.migrate(model()) == Report()
    assert world.row().problems == []


def test_of_two_new_owners_the_first_gets_it(world: World) -> None:
    report = world.migrate(owned(model(), "first"), owned(model(), "second"), owned(model(), "first"))
    assert report == Report(created=(NOTES,), problems={NOTES: ["owned by first; refused to second"]})
    assert world.row().owner == "first"


def test_what_is_told_of_a_table_stays_while_its_owner_is_not_here(world: World) -> None:
    world.migrate(model(Column("extra", Text)))
    [harmless] = world.migrate(model()).problems[NOTES]
    assert world.migrate(owned(model(), "thief")).problems[NOTES] == [
        harmless,
        f"owned by {OWNER}; refused to thief",
    ]
    assert world.migrate() == Report()
    assert len(world.row().problems) == 2


def test_a_table_from_elsewhere_is_taken_over(world: World) -> None:
    # GIVEN a table without a row, with a row in it and less than the model wants
    with world.database.connection() as connection:
        changes.create_table(connection, model().__table__)
    world.sql(f"INSERT INTO {NOTES} VALUES (1, 2, 'notes', 'kept', '2026-01-01 00:00:00')")
    newer = model(Column("extra", Text), Index("ix_notes", "title"))
    assert world.migrate(newer) == Report(changed=(NOTES,))
    assert (world.row().owner, world.row().schema_hash) == (OWNER, schema_hash(newer))
    with world.database.connection() as connection:
        assert connection.execute(text(f"SELECT title FROM {NOTES}")).scalars().all() == ["kept"]


def test_a_table_from_elsewhere_that_does_not_fit_is_not_served(world: World) -> None:
    world.sql(f"CREATE TABLE {NOTES} (id INTEGER NOT NULL PRIMARY KEY)")
    assert world.migrate(model()).problems[NOTES]
    assert check([world.row()], [owned(model())]) == {NOTES: "outdated"}


# -- interrupted -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process."""


@pytest.mark.parametrize("existing", [False, True], ids=["new", "old"])
def test_killed_at_any_step_the_next_migration_goes_on(world: World, existing: bool) -> None:
    """Each step is killed in turn, on the remains of the one before."""
    newest = newest_model()
    other = owned(model(name="agentflow_other_note"), "other")
    if existing:
        world.migrate(model())
    reached: list[str] = []
    for kill_at in range(20):
        count = iter(range(20))

        def observe(operation: str, step: str, count: Any = count, kill_at: int = kill_at) -> None:
            reached.append(step)
            assert operation == changes.OPERATION
            if next(count) == kill_at // 2:
                raise Killed

        before = steps.observe(observe)
        try:
            world.migrate(owned(newest), other)
        except Killed:
            continue
        finally:
            steps.observe(before)
        break
    else:
        pytest.fail(f"it never came to its end: {reached}")
    assert set(reached) == set(changes.STEPS) if existing else {"create_table", "record"}
    assert [world.failures(newest), world.failures(other.model)] == [[], []]
    assert check([world.row(), world.row(other.name)], [owned(newest), other]) == {
        NOTES: "ready",
        other.name: "ready",
    }
    assert world.migrate(owned(newest), other) == Report()


def test_a_process_that_was_faster_is_no_failure(mysql_url: str) -> None:
    """Past the lock too: each statement finds that another process has just done the same."""
    world, other = World(fresh(mysql_url)), DatabaseService(mysql_url)
    newest = newest_model()

    def overtake(operation: str, step: str) -> None:
        if step != "record":
            steps.observe(None)
            with other.connection() as connection:
                for change in changes.plan_changes(connection, target):
                    assert changes.apply(connection, change, target) is None
            steps.observe(overtake)

    before = steps.observe(overtake)
    try:
        for target in (model(), newest):
            assert world.migrate(target).problems == {}
            assert check([world.row()], [owned(target)]) == {NOTES: "ready"}
    finally:
        steps.observe(before)
    other.close()
    world.database.close()


# -- a cold start ------------------------------------------------------------------------------------------------


def test_a_cold_start_sends_no_ddl_and_one_statement(mysql_url: str) -> None:
    world = World(fresh(mysql_url))
    world.migrate(*shared_tables(), model())
    older = owned(model(Column("extra", Text)))
    with WireProxy(mysql_url) as wire:
        cold = DatabaseService(wire.url)
        with cold.reads() as session:
            rows = stored_rows(session, [*shared_tables(), older])
        found = check(rows, [*shared_tables(), older])
        cold.close()
        sent = [command for command in wire.commands if "agent" in command.lower()]
        others = [command for command in wire.commands if command not in sent]
    assert found == dict.fromkeys(SHARED_NAMES, "ready") | {NOTES: "outdated"}
    assert len(sent) == 1 and sent[0].startswith("QUERY SELECT"), sent
    # What every new line of the pool begins with, and nothing else.
    assert {command.split()[1] for command in others if command.startswith("QUERY ")} <= {"SET", "SELECT"}
    world.database.close()
