"""Bringing the database to what this release needs: on deploy, and when the local stack starts.

The revisions of migrations/ run under a lock, so that several functions that migrate at once do it once. Then
every table is compared with its model, the rows that must exist are added, the agents' tables are made or added to
under the same lock, and the first admin app is created.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

import chalicelib.agents.models
import chalicelib.apps.models
import chalicelib.core.audit
import chalicelib.core.cache_log
import chalicelib.core.idempotency_record
import chalicelib.core.instances
import chalicelib.core.jobs
import chalicelib.core.keys.data_keys
import chalicelib.core.leases
import chalicelib.core.outbound.circuit_record
import chalicelib.flows.history.models
import chalicelib.flows.models
import chalicelib.flows.runs.models
import chalicelib.flows.variables.models
import chalicelib.plugins.configs.models
import chalicelib.plugins.install_models
import chalicelib.plugins.models
import chalicelib.plugins.run_models
import chalicelib.tools.models
from chalicelib.core import cache_log
from chalicelib.core.connections import mysql_connect_args
from chalicelib.core.database import Base, DatabaseService, Unit, is_lock_failure
from chalicelib.core.errors import Unavailable
from chalicelib.core.table_check import SchemaMismatch, check_table, create_database
from chalicelib.plugins.install_models import PluginGraph

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

    from chalicelib.agents.loading.registry import AgentRegistry
    from chalicelib.agents.spec import OwnedTable

# Every module that declares tables. A module that is missing here has no table after a migration; a test
# compares this with the tree.
MODEL_MODULES = (
    chalicelib.agents.models,
    chalicelib.apps.models,
    chalicelib.core.audit,
    chalicelib.core.cache_log,
    chalicelib.core.outbound.circuit_record,
    chalicelib.core.keys.data_keys,
    chalicelib.core.idempotency_record,
    chalicelib.core.instances,
    chalicelib.core.jobs,
    chalicelib.core.leases,
    chalicelib.flows.history.models,
    chalicelib.flows.models,
    chalicelib.flows.runs.models,
    chalicelib.flows.variables.models,
    chalicelib.plugins.configs.models,
    chalicelib.plugins.install_models,
    chalicelib.plugins.models,
    chalicelib.plugins.run_models,
    chalicelib.tools.models,
)
_NAMES = frozenset(module.__name__ for module in MODEL_MODULES)
MODELS: tuple[type[Base], ...] = tuple(
    sorted(
        (mapper.class_ for mapper in Base.registry.mappers if mapper.class_.__module__ in _NAMES),
        key=lambda model: model.__tablename__,
    )
)
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
PLUGIN_GRAPH_ROW = 1
# CloudFormation gives the migrate function ten minutes.
LOCK_WITHIN_S = 300
DDL_TIMEOUT_S = 540
# One wait of GET_LOCK stays far below the connection's read timeout.
_LOCK_TRY_S = 10


def migrate(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Bring the database of this deployment to the newest revision.

    Returns
    -------
    `{"revision": ..., "tables": n, "agentTables": {"created": [...], "changed": [...], "problems": {...}},
    "adminCredential": "key:secret" or None}`; the credential only where this call created the first admin app.

    Raises
    ------
    SchemaMismatch
        A table does not agree with its model after the last revision.
    errors.Unavailable
        Another migration holds the lock for longer than `LOCK_WITHIN_S`.
    """
    from chalicelib.core import process

    return migrate_database(process.database())


def migrate_database(
    database: DatabaseService,
    agent_tables: Sequence[OwnedTable] | None = None,
    admin: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Do what `migrate` says on the given database, which is created where it is absent.

    Parameters
    ----------
    agent_tables
        What the agents declare; None for the agents of this release, which then get their rows, too.
    admin
        Where the first admin's key and the hash of its secret are; see `apps.service.ensure_first_admin`.
    """
    from chalicelib.agents.tables.migration import migrate_agent_tables
    from chalicelib.agents.tables.rows import sync_agents
    from chalicelib.apps.service import ensure_first_admin

    create_database(database)
    with exclusive_connection(database) as connection:
        revision = _upgrade(connection)
        report = migrate_agent_tables(connection, _declared() if agent_tables is None else agent_tables)
    if agent_tables is None:
        database.run(lambda session: sync_agents(session, _registry().all()))
    credential = database.run(lambda session: ensure_first_admin(_alone(session), admin))
    return {
        "revision": revision,
        "tables": len(MODELS),
        "agentTables": report.as_dict(),
        "adminCredential": credential,
    }


def _registry() -> AgentRegistry:
    from chalicelib.agents.loading.process import registry_of_process

    return registry_of_process()


def _declared() -> Sequence[OwnedTable]:
    from chalicelib.agents.loading.registry import agent_tables

    return agent_tables(_registry())


def upgrade(database: DatabaseService, *, lock_within_s: float = LOCK_WITHIN_S) -> str:
    """Run the missing revisions, check every table, seed the rows that must exist; return the revision."""
    create_database(database)
    with exclusive_connection(database, lock_within_s) as connection:
        return _upgrade(connection)


def _upgrade(connection: Connection) -> str:
    revision = run_revisions(connection)
    check_tables(connection)
    with Session(connection) as session:
        _seed(session)
        session.commit()
    return revision


def run_revisions(connection: Connection) -> str:
    """Run the missing revisions on a connection in AUTOCOMMIT and return the newest one."""
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return str(MigrationContext.configure(connection).get_current_revision())


def check_tables(connection: Connection) -> None:
    """Compare every table with its model.

    Raises
    ------
    SchemaMismatch
        Naming each difference.
    """
    wrong = [
        f"{model.__tablename__}: {result.type} {result.name}"
        for model in MODELS
        for result in check_table(connection, model)
        if not result.success
    ]
    if wrong:
        raise SchemaMismatch(
            "After the last revision the database does not agree with the models: " + "; ".join(wrong),
            code="database.schema",
        )


def alembic_config() -> Config:
    """Return Alembic's configuration; there is no alembic.ini, because no command line runs it."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _seed(session: Session) -> None:
    cache_log.seed(session)
    if session.get(PluginGraph, PLUGIN_GRAPH_ROW) is None:
        session.add(PluginGraph(id=PLUGIN_GRAPH_ROW))


def _alone(session: Unit) -> Unit:
    """Take the lock that the bump of a new app takes anyway, so that one of several migrations finds no
    admin."""
    scope = select(cache_log.CacheVersion).where(cache_log.CacheVersion.scope == "apps")
    session.scalars(scope.with_for_update()).one()
    return session


# -- one at a time -------------------------------------------------------------------------------------------


@contextmanager
def exclusive_connection(
    database: DatabaseService, lock_within_s: float = LOCK_WITHIN_S
) -> Iterator[Connection]:
    """Yield a connection of its own, in AUTOCOMMIT and with time for DDL, that holds the migration lock.

    It must not go through a proxy: GET_LOCK belongs to the server's session.

    Raises
    ------
    errors.Unavailable
        Somebody else has held the lock for `lock_within_s`.
    """
    url = database.engine.url
    arguments: dict[str, Any] = {"timeout": min(_LOCK_TRY_S, lock_within_s)}
    if not database.is_sqlite:
        arguments = mysql_connect_args(url, 5, database.ca_file)
        arguments |= {"read_timeout": DDL_TIMEOUT_S, "write_timeout": DDL_TIMEOUT_S}
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=arguments)
    lock = _sqlite_lock if database.is_sqlite else _mysql_lock
    with engine.connect() as connection, lock(connection, time.monotonic() + lock_within_s):
        yield connection


@contextmanager
def _sqlite_lock(connection: Connection, end: float) -> Iterator[None]:
    # SQLite's DDL is transactional: either all missing revisions happen, or none.
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            break
        except OperationalError as error:
            if not is_lock_failure(error):
                raise
            if time.monotonic() >= end:
                raise _held() from error
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


@contextmanager
def _mysql_lock(connection: Connection, end: float) -> Iterator[None]:
    # Lock names are the server's, not the database's, and at most 64 characters long.
    name = f"hotplug_migrate_{connection.engine.url.database}"[:64]
    query, wait = text("SELECT GET_LOCK(:name, :wait)"), _LOCK_TRY_S
    while (
        connection.scalar(query, {"name": name, "wait": max(0, min(wait, int(end - time.monotonic())))}) != 1
    ):
        if time.monotonic() >= end:
            raise _held()
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


def _held() -> Unavailable:
    return Unavailable("Another migration is running.", code="database.migrating", retry_after=30)
