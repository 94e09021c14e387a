"""Migrations on real servers: from empty, at once, interrupted, and equal to the models."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection as Line
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, inspect, select, text
from sqlalchemy.engine import Connection, make_url

from chalicelib.apps.models import App, AppCredential
from chalicelib.core.cache_log import SCOPES, CacheVersion
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.table_check import SchemaMismatch
from chalicelib.events import migration
from chalicelib.events.migration import MODELS, alembic_config, migrate_database, upgrade
from chalicelib.plugins.install_models import PluginGraph
from migrations import generate
from tests import databases
from tests.agent_tables import NOTES, SHARED_NAMES, World, newest_model, owned, shared_tables
from tests.conftest import create_schema
from tests.processes import PROCESSES

HEAD = str(ScriptDirectory.from_config(alembic_config()).get_current_head())


def structure(connection: Connection) -> dict[str, Any]:
    """Return what an application can tell of the schema, table by table, without Alembic's own."""
    inspector = inspect(connection)
    tables = [name for name in inspector.get_table_names() if name != "alembic_version"]
    if connection.dialect.name == "mysql":
        return {name: create_statement(connection, name) for name in tables}
    return {
        name: (
            [
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(name)
            ],
            inspector.get_pk_constraint(name),
            sorted(inspector.get_indexes(name), key=str),
            sorted(inspector.get_unique_constraints(name), key=str),
            sorted(inspector.get_foreign_keys(name), key=str),
        )
        for name in tables
    }


def create_statement(connection: Connection, name: str) -> list[str]:
    """SHOW CREATE TABLE, its indexes in the order of their names: the order they were made in tells
    nothing."""
    lines = connection.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1].splitlines()
    columns = [line for line in lines if line.startswith("  `")]
    rest = sorted(line.rstrip(",") for line in lines if not line.startswith("  `"))
    return [*columns, *rest]


# -- equal to the models -------------------------------------------------------------------------------------


def test_an_empty_database_upgraded_is_what_the_models_say(database_url: str, tmp_path: Path) -> None:
    migrated = DatabaseService(database_url)
    assert upgrade(migrated) == HEAD
    if migrated.is_sqlite:
        compare(migrated, f"sqlite:///{tmp_path}/models.db")
    else:
        with databases.new_database() as other:
            compare(migrated, other)
    migrated.close()


def compare(migrated: DatabaseService, url: str) -> None:
    created = create_schema(url)
    with migrated.connection() as ours:
        from_revisions = structure(ours)
        context = MigrationContext.configure(ours, opts=generate.only(MODELS))
        assert compare_metadata(context, Base.metadata) == []
    with created.connection() as theirs:
        assert from_revisions == structure(theirs)
    assert set(from_revisions) == {model.__tablename__ for model in MODELS}
    created.close()


def test_nothing_is_left_to_generate() -> None:
    assert generate.missing_revisions() == []


def test_revisions_form_one_line_with_four_digits() -> None:
    revisions = list(ScriptDirectory.from_config(alembic_config()).walk_revisions())
    numbers = [revision.revision for revision in reversed(revisions)]
    assert numbers == [f"{number:04d}" for number in range(1, len(numbers) + 1)]
    for revision in revisions:
        assert Path(revision.path).name.startswith(f"{revision.revision}_")


@pytest.mark.parametrize(
    "path", sorted((migration.MIGRATIONS / "versions").glob("*.py")), ids=lambda path: path.stem
)
def test_a_revision_does_not_depend_on_the_models(path: Path) -> None:
    assert "chalicelib" not in path.read_text()


# -- what migrate does ---------------------------------------------------------------------------------------


def test_migrate_seeds_what_must_exist_and_shows_the_first_admin_once(database_url: str) -> None:
    service = DatabaseService(database_url)
    first = migrate_database(service)
    assert first["revision"] == HEAD
    assert first["tables"] == len(MODELS)
    key, _, secret = first["adminCredential"].partition(":")
    with service.reads() as session:
        assert session.scalars(select(AppCredential.api_key)).all() == [key]
        rows = list(session.scalars(select(CacheVersion)))
        graph = session.scalars(select(PluginGraph.id)).all()
    assert len(secret) >= 32
    assert sorted(row.scope for row in rows) == sorted(SCOPES)
    assert len({row.epoch for row in rows}) == 1
    assert list(graph) == [migration.PLUGIN_GRAPH_ROW]

    again = migrate_database(service)
    nothing = {"created": [], "changed": [], "problems": {}}
    assert again == first | {"adminCredential": None, "agentTables": nothing}
    with service.reads() as session:
        assert {row.epoch for row in session.scalars(select(CacheVersion))} == {rows[0].epoch}
        assert session.scalar(select(func.count()).select_from(App)) == 1
    service.close()


def run_migrate(url: str, line: Line) -> None:
    service = DatabaseService(url)
    line.send(migrate_database(service, [*shared_tables(), owned(newest_model())]))
    service.close()


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_six_migrations_at_once_do_it_once(kind: str, tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path}/hotplug.db")
    if kind == "mysql":
        # Even the database is missing.
        url = databases.server_url().set(database=f"hotplug_test_six_{id(tmp_path):x}")
    text_url = url.render_as_string(hide_password=False)
    try:
        pipes = [PROCESSES.Pipe(duplex=False) for _ in range(6)]
        runs = [PROCESSES.Process(target=run_migrate, args=(text_url, sending)) for _, sending in pipes]
        for run in runs:
            run.start()
        for run in runs:
            run.join(180)
        assert [run.exitcode for run in runs] == [0] * 6
        answers = [receiving.recv() for receiving, _ in pipes]
        assert {answer["revision"] for answer in answers} == {HEAD}
        assert len([answer for answer in answers if answer["adminCredential"]]) == 1
        tables = [answer["agentTables"] for answer in answers]
        created = sorted(name for one in tables for name in one["created"])
        assert created == sorted([*SHARED_NAMES, NOTES])
        assert [one for one in tables if one["changed"] or one["problems"]] == []
        service = DatabaseService(text_url)
        with service.reads() as session:
            assert session.scalar(select(func.count()).select_from(App)) == 1
            assert session.scalar(select(func.count()).select_from(CacheVersion)) == len(SCOPES)
        assert [
            result for model in MODELS for result in service.check_table(model) if not result.success
        ] == []
        world = World(service)
        assert world.names() == created
        assert world.failures(newest_model()) == []
        service.close()
    finally:
        if kind == "mysql":
            databases.drop_database(url)


# -- what stops it -------------------------------------------------------------------------------------------


def break_after(service: DatabaseService, statement: str) -> None:
    upgrade(service)
    with service.connection() as connection:
        connection.exec_driver_sql(statement)


def test_a_table_that_differs_after_the_last_revision_fails_the_migration(database_url: str) -> None:
    service = DatabaseService(database_url)
    break_after(service, "ALTER TABLE plugin_graph DROP COLUMN changes")
    with pytest.raises(SchemaMismatch, match="plugin_graph: column changes"):
        upgrade(service)
    service.close()


Undo = Callable[[Connection], None]


def unmake_index(connection: Connection) -> None:
    on = "" if connection.dialect.name == "sqlite" else " ON audit_log"
    connection.exec_driver_sql(f"DROP INDEX ix_audit_log_object{on}")


@pytest.mark.parametrize(
    "undo", [unmake_index, lambda connection: None], ids=["half done", "done, not recorded"]
)
def test_a_revision_that_was_killed_is_run_again_from_its_beginning(database_url: str, undo: Undo) -> None:
    # GIVEN a database whose revision of the audit log was killed between its statements, or before it was
    # recorded
    service = DatabaseService(database_url)
    upgrade(service)
    before = revision_before("audit_log")
    with service.connection() as connection:
        undo(connection)
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{before}'")
    # WHEN it is migrated again THEN it and all after it are repeated
    assert upgrade(service) == HEAD
    assert [result for model in MODELS for result in service.check_table(model) if not result.success] == []
    service.close()


def revision_before(table: str) -> str:
    script = ScriptDirectory.from_config(alembic_config())
    revision = next(one for one in script.walk_revisions() if Path(one.path).stem.endswith(f"_{table}"))
    return str(revision.down_revision)


def test_a_migration_that_failed_leaves_no_lock(database_url: str) -> None:
    # GIVEN a table in the way, so that the check after the last revision fails
    service = DatabaseService(database_url)
    with service.connection() as connection:
        connection.exec_driver_sql("CREATE TABLE plugin_graph (id INTEGER NOT NULL PRIMARY KEY)")
    with pytest.raises(SchemaMismatch, match="plugin_graph"):
        upgrade(service)
    # WHEN somebody repairs it THEN the next migration goes through
    with service.connection() as connection:
        connection.exec_driver_sql("DROP TABLE plugin_graph")
        if not service.is_sqlite:
            # On SQLite nothing of the failed migration was kept.
            before = revision_before("plugin_graph")
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{before}'")
    assert upgrade(service, lock_within_s=0) == HEAD
    service.close()


def test_a_migration_does_not_wait_for_ever(database_url: str) -> None:
    service, other = DatabaseService(database_url), DatabaseService(database_url)
    with migration.exclusive_connection(other), pytest.raises(Unavailable) as caught:
        upgrade(service, lock_within_s=0)
    assert caught.value.code == "database.migrating"
    assert upgrade(service) == HEAD
    service.close()
    other.close()


def test_units_of_work_go_on_after_a_migration(database_url: str) -> None:
    """No lock is left behind, and the driver's own transaction state is what the pool expects."""
    service = DatabaseService(database_url)
    migrate_database(service)
    service.run(lambda session: session.get_one(PluginGraph, 1).changes)
    with service.reads() as session:
        assert session.execute(text("SELECT COUNT(*) FROM alembic_version")).scalar() == 1
    service.close()
