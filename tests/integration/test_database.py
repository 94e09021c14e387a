"""Units of work on real servers: two writers, retries, lost connections, and the schema check."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from chalicelib.apps.models import App, AppCredential, AppSource
from chalicelib.core import guards
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.connections import PINNING_STATEMENT
from chalicelib.core.database import (
    UNIT_ATTEMPTS,
    CommitUnknown,
    DatabaseService,
    Result,
    SecondConnection,
    Unit,
    is_disconnect,
)
from chalicelib.core.errors import Unavailable
from chalicelib.core.table_check import SchemaMismatch, check_table
from chalicelib.events.migration import MODELS
from chalicelib.plugins.install_models import PluginGraph
from chalicelib.plugins.models import Plugin, PluginHistory
from tests import databases
from tests.conftest import create_schema
from tests.processes import PROCESSES
from tests.wire import WireProxy

WRITERS, WRITES = 8, 100


@pytest.fixture
def graph(database: DatabaseService) -> DatabaseService:
    """A database with two rows that the writers count on, and an app."""
    with database.session_getter() as session:
        session.add_all([PluginGraph(id=2), App(id=1, name="one", alias_id="one")])
    return database


@pytest.fixture
def wire(mysql_url: str, with_schema: None) -> Iterator[WireProxy]:
    create_schema(mysql_url).close()
    with WireProxy(mysql_url) as proxy:
        yield proxy


@pytest.fixture
def through(wire: WireProxy) -> Iterator[DatabaseService]:
    """A service whose line can be cut."""
    service = DatabaseService(wire.url)
    with service.reads() as session:
        session.execute(text("SELECT 1"))
    yield service
    service.close()


# -- two writers ---------------------------------------------------------------------------------------------


def count_up(url: str, writes: int) -> None:
    service = DatabaseService(url)

    def work(session: Unit) -> None:
        row = session.scalars(select(PluginGraph).where(PluginGraph.id == 1).with_for_update()).one()
        row.changes += 1

    for _ in range(writes):
        service.run(work)
    service.close()


def test_no_update_of_many_processes_is_lost(graph: DatabaseService) -> None:
    writers = [PROCESSES.Process(target=count_up, args=(graph.database_url, WRITES)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(180)
        assert writer.exitcode == 0
    with graph.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == WRITERS * WRITES


def test_a_check_after_a_lock_sees_what_was_committed_meanwhile(graph: DatabaseService) -> None:
    # GIVEN a unit that has read (under REPEATABLE READ its snapshot would be taken now)
    other = DatabaseService(graph.database_url)
    with ThreadPoolExecutor(1) as pool, graph.session_getter() as session:
        if not graph.is_sqlite:
            assert session.get_one(PluginGraph, 2).changes == 0
            pool.submit(other.run, lambda unit: setattr(unit.get_one(PluginGraph, 2), "changes", 5)).result(
                10
            )
        session.scalars(select(PluginGraph).where(PluginGraph.id == 1).with_for_update()).one()
        session.expire_all()
        # THEN it sees the other's commit; on SQLite no other can commit while a unit is open
        assert session.get_one(PluginGraph, 2).changes == (0 if graph.is_sqlite else 5)
    other.close()


def test_a_deadlock_is_run_again_until_both_have_won(graph: DatabaseService) -> None:
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    def work(session: Unit, first: int, second: int) -> None:
        attempts.append(first)
        session.scalars(
            select(PluginGraph).where(PluginGraph.id == first).with_for_update()
        ).one().changes += 1
        if not graph.is_sqlite and len(attempts) <= 2:
            both_hold_one.wait(10)
        session.scalars(
            select(PluginGraph).where(PluginGraph.id == second).with_for_update()
        ).one().changes += 1

    services = [DatabaseService(graph.database_url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(service.run, lambda session, a=a, b=3 - a: work(session, a, b))
            for service, a in zip(services, (1, 2), strict=True)
        ]
        for job in jobs:
            job.result(60)
    for service in services:
        service.close()
    with graph.reads() as session:
        assert [row.changes for row in session.scalars(select(PluginGraph).order_by(PluginGraph.id))] == [
            2,
            2,
        ]
    assert len(attempts) == (2 if graph.is_sqlite else 3), "the server chose one victim, which ran again"


def test_a_unit_that_never_gets_its_lock_ends_as_contended(graph: DatabaseService) -> None:
    attempts: list[int] = []

    def work(_: Unit) -> None:
        attempts.append(1)
        error = OperationalError("UPDATE", {}, Exception(1213, "Deadlock found"))
        error.orig = Exception(1213, "Deadlock found")
        raise error

    with pytest.raises(Unavailable) as caught:
        graph.run(work)
    assert (caught.value.code, caught.value.retry_after) == ("database.contended", 1)
    assert len(attempts) == UNIT_ATTEMPTS


def test_a_lock_is_waited_for_five_seconds_at_most(mysql_url: str) -> None:
    service = DatabaseService(mysql_url)
    with service.reads() as session:
        assert session.execute(text("SELECT @@innodb_lock_wait_timeout")).scalar() <= 5
    service.close()


def test_a_wrong_statement_is_not_run_again(graph: DatabaseService) -> None:
    attempts: list[int] = []

    def work(session: Unit) -> None:
        attempts.append(1)
        session.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(Exception, match="nowhere"):
        graph.run(work)
    assert len(attempts) == 1


# -- one connection ------------------------------------------------------------------------------------------


def test_nothing_checks_out_a_second_connection_while_one_is_open(graph: DatabaseService) -> None:
    ways = {"unit": graph.session_getter, "reads": graph.reads, "connection": graph.connection}
    for outer in ways.values():
        with outer():
            for inner in ways.values():
                with pytest.raises(SecondConnection), inner():
                    raise AssertionError("a second connection was handed out")
    # And each way gives its connection back.
    for way in ways.values():
        with way():
            assert guards.unit_open() is (way is ways["unit"])


def test_another_thread_may_use_its_own(graph: DatabaseService) -> None:
    other = DatabaseService(graph.database_url)

    def read() -> int:
        with other.reads() as session:
            return session.get_one(PluginGraph, 1).changes

    with graph.session_getter(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(read).result(10) == 0
    other.close()


def test_the_service_itself_is_a_unit_of_work(graph: DatabaseService) -> None:
    with graph as session:
        session.get_one(PluginGraph, 1).changes = 7
    with pytest.raises(KeyError), graph as session:
        session.get_one(PluginGraph, 1).changes = 8
        session.flush()
        raise KeyError
    with graph.reads() as reading:
        assert reading.get_one(PluginGraph, 1).changes == 7


def test_get_session_commits_when_its_generator_ends(graph: DatabaseService) -> None:
    for session in graph.get_session():
        session.get_one(PluginGraph, 1).changes = 9
    with graph.reads() as reading:
        assert reading.get_one(PluginGraph, 1).changes == 9


# -- lost connections ----------------------------------------------------------------------------------------


def bump_graph(session: Unit) -> None:
    session.get_one(PluginGraph, 1).changes += 1


def test_a_line_lost_before_the_commit_is_503_and_nothing_happened(
    wire: WireProxy, through: DatabaseService
) -> None:
    wire.cut = lambda command: command.startswith("QUERY UPDATE plugin_graph")
    with pytest.raises(Unavailable) as caught:
        through.run(bump_graph)
    assert caught.value.code == "database.away"
    wire.cut = lambda _: False
    with through.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == 0


def test_a_line_lost_during_the_commit_is_an_unknown_outcome(
    wire: WireProxy, through: DatabaseService
) -> None:
    # Setting the isolation level sends a COMMIT of its own; the one that counts comes after the update.
    updated = "QUERY UPDATE plugin_graph"
    wire.cut = lambda now: now == "QUERY COMMIT" and any(one.startswith(updated) for one in wire.commands)
    with pytest.raises(CommitUnknown) as caught:
        through.run(bump_graph)
    assert caught.value.code == "database.commit_unknown"
    # WHEN the server is back THEN reading back tells, and the same service goes on
    wire.cut = lambda _: False
    with through.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == 0
    through.run(bump_graph)
    with through.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == 1


def test_a_unit_that_begins_on_a_dead_line_gets_a_new_one(wire: WireProxy, through: DatabaseService) -> None:
    wire.hang_up()
    through.run(bump_graph)
    with through.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == 1


def test_a_unit_that_gets_no_line_is_503_and_the_next_goes_on(
    wire: WireProxy, through: DatabaseService
) -> None:
    wire.cut = lambda _: True
    with pytest.raises(Unavailable) as caught:
        through.run(bump_graph)
    assert caught.value.code == "database.away"
    wire.cut = lambda _: False
    through.run(bump_graph)


@pytest.mark.parametrize("code", [1053, 1290, 1836, 1927, 2006, 2013, 3169, 4031])
def test_errors_of_a_server_that_goes_away_are_told_from_wrong_statements(code: int) -> None:
    error = OperationalError("SELECT 1", {}, Exception(code, "gone"))
    assert is_disconnect(error)
    assert not is_disconnect(OperationalError("SELECT 1", {}, Exception(1064, "syntax")))


def test_a_connection_that_a_long_statement_pins_is_given_back(through: DatabaseService) -> None:
    def connection_id() -> int:
        with through.reads() as session:
            return int(session.execute(text("SELECT CONNECTION_ID()")).scalar_one())

    def write(detail: str) -> None:
        with through.session_getter() as session:
            session.add(
                PluginHistory(plugin_id="p", app_id=1, action="a", version="1", outcome="o", detail=detail)
            )

    first = connection_id()
    write("short")
    assert connection_id() == first
    write("x" * PINNING_STATEMENT)
    assert connection_id() != first


def test_no_statement_text_or_address_is_in_what_a_client_sees(
    wire: WireProxy, through: DatabaseService
) -> None:
    wire.cut = lambda _: True
    with pytest.raises(Unavailable) as caught:
        through.run(bump_graph)
    shown = f"{caught.value.detail} {caught.value.extensions} {caught.value.errors}"
    assert "127.0.0.1" not in shown and "SELECT" not in shown and "plugin_graph" not in shown


# -- values --------------------------------------------------------------------------------------------------

EAST = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 999999, tzinfo=EAST),
        datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=-8))),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
    ids=str,
)
def test_a_moment_comes_back_as_it_was(graph: DatabaseService, moment: datetime) -> None:
    with graph.session_getter() as session:
        session.add(
            AppCredential(
                id=1, app_id=1, api_key="k", secret_hash=b"\0" * 32, role="viewer", expires_at=moment
            )
        )
    with graph.reads() as session:
        read = session.get_one(AppCredential, 1)
        assert read.expires_at == moment
        assert read.expires_at.utcoffset() == timedelta(0)
        assert read.last_used_at is None
        assert session.scalars(select(AppCredential.id).where(AppCredential.expires_at == moment)).all() == [
            1
        ]


def test_a_naive_moment_is_refused(graph: DatabaseService) -> None:
    with pytest.raises(Exception, match="naive"), graph.session_getter() as session:
        session.get_one(App, 1).create_at = datetime(2026, 1, 2)


def test_a_document_keeps_the_order_of_its_keys_and_every_character(graph: DatabaseService) -> None:
    document = {"z": 1, "a": [None, True, 1.5, "𝄞 ü \\ ' \" %s :x"], "": {"n": 2**62}}
    plugin = Plugin(
        id=1,
        plugin_id="plugin_x_000000",
        app_id=1,
        name="x",
        version="1.0.0",
        plugin_type="custom",
        entry_point="x.py",
        checksum="0" * 64,
        **dict.fromkeys(("config_schema", "params_schema", "default_config", "manifest"), document),
    )
    with graph.session_getter() as session:
        session.add(plugin)
    with graph.reads() as session:
        read = session.get_one(Plugin, 1).manifest
    assert read == document
    assert list(read) == ["z", "a", ""]


def test_identifiers_compare_byte_for_byte(graph: DatabaseService) -> None:
    with graph.session_getter() as session:
        session.add_all(
            [AppSource(id=1, source=1, source_id="Ab"), AppSource(id=2, source=1, source_id="ab")]
        )
    with graph.reads() as session:
        assert session.scalars(select(AppSource.id).where(AppSource.source_id == "ab")).all() == [2]


# -- the schema check ----------------------------------------------------------------------------------------


def failures(service: DatabaseService, model: Any) -> list[tuple[str, str]]:
    return [(result.type, result.name) for result in service.check_table(model) if not result.success]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__tablename__)
def test_a_table_that_was_made_from_its_model_agrees_with_it(shared: DatabaseService, model: Any) -> None:
    results = shared.check_table(model)
    assert results[0] == Result(model.__tablename__, "table", True)
    assert {result.name for result in results if result.type == "column"} == set(
        model.__table__.columns.keys()
    )
    assert [result for result in results if not result.success] == []


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DatabaseService]:
    """One schema for the tests that only look at it."""
    if request.param == "sqlite":
        service = create_schema(f"sqlite:///{tmp_path_factory.mktemp('shared')}/hotplug.db")
        yield service
        service.close()
        return
    with databases.new_database() as url:
        service = create_schema(url)
        yield service
        service.close()


def alter(service: DatabaseService, *statements: str) -> None:
    with service.connection() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_missing_table_is_found(graph: DatabaseService) -> None:
    alter(graph, "DROP TABLE app_source")
    assert graph.check_table(AppSource) == [Result("app_source", "table", False)]


def test_a_missing_index_is_found(graph: DatabaseService) -> None:
    alter(graph, "DROP INDEX ix_audit_log_app" + ("" if graph.is_sqlite else " ON audit_log"))
    assert failures(graph, AuditLog) == [("index", "ix_audit_log_app")]


def test_an_index_over_other_columns_is_found(graph: DatabaseService) -> None:
    alter(
        graph,
        "DROP INDEX ix_audit_log_app" + ("" if graph.is_sqlite else " ON audit_log"),
        "CREATE INDEX ix_audit_log_app ON audit_log (id, app_id)",
    )
    assert failures(graph, AuditLog) == [("index", "ix_audit_log_app")]


def test_an_index_that_is_unique_and_should_not_be_is_found(graph: DatabaseService) -> None:
    alter(
        graph,
        "DROP INDEX ix_audit_log_app" + ("" if graph.is_sqlite else " ON audit_log"),
        "CREATE UNIQUE INDEX ix_audit_log_app ON audit_log (app_id, id)",
        "CREATE UNIQUE INDEX one_action_each ON audit_log (action)",
        "CREATE INDEX harmless ON audit_log (action)",
    )
    assert failures(graph, AuditLog) == [("index", "ix_audit_log_app"), ("index", "one_action_each")]


def test_a_missing_column_is_found(graph: DatabaseService) -> None:
    alter(graph, "ALTER TABLE app_source DROP COLUMN description")
    assert failures(graph, AppSource) == [("column", "description")]


def test_an_extra_column_is_found_where_it_would_refuse_our_rows(graph: DatabaseService) -> None:
    alter(
        graph,
        "ALTER TABLE app_source ADD COLUMN harmless INTEGER",
        "ALTER TABLE app_source ADD COLUMN given INTEGER NOT NULL DEFAULT 0",
    )
    assert failures(graph, AppSource) == []
    if not graph.is_sqlite:
        # SQLite does not add such a column.
        alter(graph, "ALTER TABLE app_source ADD COLUMN needed INTEGER NOT NULL")
        assert failures(graph, AppSource) == [("column", "needed")]


@pytest.mark.usefixtures("with_schema")
@pytest.mark.parametrize(
    ("model", "statement", "column"),
    [
        (AppSource, "MODIFY source_id VARCHAR(63) NOT NULL", "source_id"),
        (AppSource, "MODIFY source_id VARCHAR(64) NULL", "source_id"),
        (AppSource, "MODIFY source SMALLINT NOT NULL", "source"),
        (AppSource, "MODIFY create_at DATETIME NOT NULL", "create_at"),
        (AppSource, "MODIFY create_at DATETIME(3) NOT NULL", "create_at"),
        (AuditLog, "MODIFY app_id INT NOT NULL", "app_id"),
        (AuditLog, "MODIFY app_id BIGINT UNSIGNED NOT NULL", "app_id"),
        (PluginHistory, "MODIFY detail MEDIUMTEXT NOT NULL", "detail"),
    ],
)
def test_a_changed_column_is_found(mysql_url: str, model: Any, statement: str, column: str) -> None:
    service = create_schema(mysql_url)
    alter(service, f"ALTER TABLE {model.__tablename__} {statement}")
    assert failures(service, model) == [("column", column)]
    service.close()


def test_a_changed_column_is_found_on_sqlite(sqlite_url: str) -> None:
    service = DatabaseService(sqlite_url)
    alter(
        service,
        "CREATE TABLE cache_version (scope VARCHAR(31) NOT NULL, version INTEGER NOT NULL, epoch VARCHAR(36),"
        " updated_at DATETIME NOT NULL, PRIMARY KEY (version))",
    )
    assert failures(service, CacheVersion) == [
        ("column", "scope"),
        ("column", "version"),
        ("column", "epoch"),
        ("index", "PRIMARY"),
    ]
    service.close()


@pytest.mark.usefixtures("with_schema")
def test_another_collation_fails_the_table(mysql_url: str) -> None:
    service = create_schema(mysql_url)
    alter(service, "ALTER TABLE app_source CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    assert failures(service, AppSource) == [
        ("table", "app_source"),
        ("column", "source_id"),
        ("column", "description"),
    ]
    service.close()


@pytest.mark.usefixtures("with_schema")
def test_another_collation_for_columns_to_come_fails_the_table_alone(mysql_url: str) -> None:
    service = create_schema(mysql_url)
    alter(service, "ALTER TABLE app_source DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    assert failures(service, AppSource) == [("table", "app_source")]
    alter(service, "ALTER TABLE app_source MODIFY description VARCHAR(255) NOT NULL")
    assert failures(service, AppSource) == [("table", "app_source"), ("column", "description")]
    service.close()


@pytest.mark.usefixtures("with_schema")
def test_a_missing_foreign_key_is_found(mysql_url: str) -> None:
    service = create_schema(mysql_url)
    alter(service, "ALTER TABLE app_credential DROP FOREIGN KEY fk_app_credential_app_id")
    assert failures(service, AppCredential) == [("foreign_key", "fk_app_credential_app_id")]
    service.close()


# -- creating what is missing --------------------------------------------------------------------------------


def create_all(url: str) -> None:
    service = DatabaseService(url)
    service.create_db_and_tables(list(MODELS))
    service.close()


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_many_processes_create_the_database_at_once(kind: str, tmp_path: Path) -> None:
    """From nothing at all: on a server even the database is missing."""
    url = make_url(f"sqlite:///{tmp_path}/hotplug.db")
    if kind == "mysql":
        url = databases.server_url().set(database=f"hotplug_test_{tmp_path.name[-8:]}_{id(tmp_path):x}")
    text_url = url.render_as_string(hide_password=False)
    try:
        creators = [PROCESSES.Process(target=create_all, args=(text_url,)) for _ in range(6)]
        for creator in creators:
            creator.start()
        for creator in creators:
            creator.join(120)
        assert [creator.exitcode for creator in creators] == [0] * 6
        service = DatabaseService(text_url)
        assert [failures(service, model) for model in MODELS] == [[]] * len(MODELS)
        if kind == "mysql":
            with service.reads() as session:
                defaults = session.execute(
                    text("SELECT @@character_set_database, @@collation_database")
                ).one()
            assert tuple(defaults) == ("utf8mb4", "utf8mb4_bin")
        service.close()
    finally:
        if kind == "mysql":
            databases.drop_database(url)


def test_only_what_is_missing_is_created_and_nothing_is_altered(database_url: str) -> None:
    service = DatabaseService(database_url)
    service.create_db_and_tables([PluginGraph])
    with service.connection() as connection:
        assert inspect(connection).get_table_names() == ["plugin_graph"]
        connection.exec_driver_sql("INSERT INTO plugin_graph (id, changes) VALUES (1, 42)")
    service.create_db_and_tables([PluginGraph, AuditLog])
    with service.reads() as session:
        assert session.get_one(PluginGraph, 1).changes == 42
    service.close()


def test_a_table_that_differs_is_named_and_left_alone(database_url: str) -> None:
    service = DatabaseService(database_url)
    alter(service, "CREATE TABLE plugin_graph (id INTEGER NOT NULL PRIMARY KEY)")
    with pytest.raises(SchemaMismatch, match=r"plugin_graph: column changes"):
        service.create_db_and_tables([PluginGraph])
    with service.connection() as connection:
        assert [column["name"] for column in inspect(connection).get_columns("plugin_graph")] == ["id"]
        assert check_table(connection, PluginGraph)[0].type == "table"
    service.close()
