"""Fixtures of the whole suite: databases on SQLite and on a real MySQL-family server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import make_url

from chalicelib.core import cache_log
from chalicelib.core.database import DatabaseService
from chalicelib.events.migration import MODELS, PLUGIN_GRAPH_ROW
from chalicelib.plugins.install_models import PluginGraph
from tests import databases, prepared, run_folder
from tests.internet import Authority, Internet

# Neither an example nor making one is timed: on a busy machine both take long, and a fresh clone has no character
# tables yet.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        run_folder.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    prepared.end()
    if not hasattr(config, "workerinput"):
        databases.end_server()
        run_folder.end()


@pytest.fixture
def with_schema() -> None:
    """Asks for a database that has its tables already. Whoever uses it calls `create_schema` all the same, which then
    only adds the rows."""


@pytest.fixture
def mysql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of its own on the real server: empty, unless the test or a fixture of it uses
    `with_schema`."""
    asked = "with_schema" in request.fixturenames
    try:
        with prepared.prepared_database() if asked else databases.new_database() as url:
            yield url
    except databases.NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/hotplug.db"


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once on SQLite and once on the real server."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str, with_schema: None) -> Iterator[DatabaseService]:
    """A service on a fresh schema: the tables of every model, and the seeded cache versions."""
    service = create_schema(database_url)
    yield service
    service.close()


@pytest.fixture
def internet() -> Iterator[Internet]:
    """Names, addresses and servers of this machine that outbound calls can be led to."""
    fake = Internet()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of this run."""
    return Authority(tmp_path_factory.mktemp("authority"))


def create_schema(url: str) -> DatabaseService:
    """Create the tables of every model, the cache versions and the row that is the graph's lock, as
    `migrate` does; tests/integration/test_migrations.py proves that the migrations lead to the same."""
    service = DatabaseService(url)
    path = make_url(url).database if service.is_sqlite else None
    if path and not Path(path).exists():
        prepared.copy_template(Path(path))
    elif not prepared.is_prepared(url):
        service.create_db_and_tables(list(MODELS))
    with service.session_getter() as session:
        cache_log.seed(session)
        session.add(PluginGraph(id=PLUGIN_GRAPH_ROW))
    return service
