"""What cmdb keeps, in the scoped sessions that it has: apart from every other app, with several writers at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, update

from chalicelib.agents.cmdb.memory import MOST_PURGED, Memory
from chalicelib.agents.cmdb.models import CmdbQueryCache, SharedAnalyticsEvents, SharedUserPreferences
from chalicelib.agents.loading.process import registry_of_process
from chalicelib.agents.scope.access import Scope
from chalicelib.agents.scope.sessions import for_agent
from chalicelib.core.database import DatabaseService
from tests.deployed_agents import make_tables
from tests.http import settings
from tests.plugin_rows import OTHER, OWNER, caller

MINUTE = timedelta(seconds=60)
HOSTS = {"hosts": [], "found": 0}


@pytest.fixture(autouse=True)
def _tables(database: DatabaseService, database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        make_tables(database)
        yield


def memory(database: DatabaseService, app_id: int = OWNER, cached_for: timedelta = MINUTE) -> Memory:
    loaded = registry_of_process().get("cmdb")
    assert loaded is not None
    return Memory(for_agent(database, Scope.of(caller(app_id, "caller"), "cmdb", loaded.tables)), cached_for)


def at_once(database: DatabaseService, work: Any, writers: int = 4) -> None:
    """Do `work(memory, number)` in several functions at the same time."""
    failures: list[BaseException] = []
    ready = threading.Barrier(writers)

    def function(number: int) -> None:
        own = DatabaseService(database.database_url)
        try:
            mine = memory(own)
            ready.wait(30)
            for _ in range(5):
                work(mine, number)
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=function, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def count(database: DatabaseService, model: Any) -> int:
    with database.reads() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_an_answer_is_kept_for_one_app_and_a_while(database: DatabaseService) -> None:
    asked = {"service": "nginx"}
    memory(database).keep("t", asked, {"hosts": [], "found": 3}, 3)
    assert memory(database).answer(asked) == {"hosts": [], "found": 3}
    assert memory(database).answer({"service": "redis"}) is None
    assert memory(database, OTHER).answer(asked) is None
    with database.session_getter() as session:
        session.execute(update(CmdbQueryCache).values(expires_at=datetime.now(UTC)))
    assert memory(database).answer(asked) is None
    # Asked again, it is the same row.
    memory(database).keep("t", asked, HOSTS, 0)
    assert memory(database).answer(asked) == HOSTS
    assert (count(database, CmdbQueryCache), count(database, SharedAnalyticsEvents)) == (1, 2)


def test_without_a_cache_lookups_are_still_counted(database: DatabaseService) -> None:
    made = memory(database, cached_for=timedelta())
    made.keep("t", {"service": "nginx"}, HOSTS, 0)
    assert made.answer({"service": "nginx"}) is None
    assert (count(database, CmdbQueryCache), count(database, SharedAnalyticsEvents)) == (0, 1)


def test_what_has_expired_goes_a_few_at_a_time_and_of_one_app(database: DatabaseService) -> None:
    for app_id, rows in ((OWNER, MOST_PURGED + 5), (OTHER, 3)):
        for number in range(rows):
            memory(database, app_id).keep("t", {"service": f"s{number}"}, HOSTS, 0)
    with database.session_getter() as session:
        past = datetime.now(UTC) - MINUTE
        session.execute(update(CmdbQueryCache).values(expires_at=past))
    memory(database).keep("t", {"service": "new"}, HOSTS, 0)
    assert count(database, CmdbQueryCache) == 1 + 5 + 3
    memory(database).keep("t", {"service": "new"}, HOSTS, 0)
    # The others' are theirs to delete; what is still good stays.
    assert count(database, CmdbQueryCache) == 1 + 3
    assert memory(database).answer({"service": "new"}) == HOSTS


def test_a_users_environment_is_of_one_app(database: DatabaseService) -> None:
    memory(database).remember("ada", "staging")
    memory(database).remember("alan", "dev")
    memory(database).remember("ada", "prod")
    memory(database, OTHER).remember("ada", "dev")
    assert [memory(database).environment(user) for user in ("ada", "alan", "grace")] == ["prod", "dev", None]
    assert memory(database, OTHER).environment("ada") == "dev"
    with database.reads() as session:
        rows = session.execute(
            select(
                SharedUserPreferences.app_id, SharedUserPreferences.agent_name, SharedUserPreferences.user_id
            )
        )
        assert sorted(tuple(row) for row in rows) == [
            (OWNER, "cmdb", "ada"),
            (OWNER, "cmdb", "alan"),
            (OTHER, "cmdb", "ada"),
        ]


def test_writers_of_one_answer_leave_one_row_and_every_count(database: DatabaseService) -> None:
    at_once(database, lambda mine, number: mine.keep("t", {"service": "nginx"}, HOSTS, number))
    assert (count(database, CmdbQueryCache), count(database, SharedAnalyticsEvents)) == (1, 20)


def test_writers_that_purge_the_same_rows_do_not_fail(database: DatabaseService) -> None:
    for number in range(10):
        memory(database).keep("t", {"service": f"s{number}"}, HOSTS, 0)
    with database.session_getter() as session:
        session.execute(update(CmdbQueryCache).values(expires_at=datetime.now(UTC) - MINUTE))
    # Each renews what the others are about to delete.
    at_once(database, lambda mine, number: mine.keep("t", {"service": f"s{number}"}, HOSTS, 0))
    assert all(memory(database).answer({"service": f"s{number}"}) == HOSTS for number in range(4))
    assert count(database, CmdbQueryCache) == 4


class Interrupting:
    """A database whose units another function interrupts before they delete."""

    def __init__(self, database: Any, meanwhile: Callable[[], None]) -> None:
        self._database = database
        self._meanwhile = meanwhile

    def run(self, work: Any) -> Any:
        def interrupted(session: Any) -> Any:
            return work(Interrupted(session, other_thread(self._meanwhile)))

        return self._database.run(interrupted)


def other_thread(work: Callable[[], None]) -> Callable[[], None]:
    def started() -> None:
        # Its own: the guards that forbid a second connection belong to a thread.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)

    return started


class Interrupted:
    """A session before whose deletion another function does something."""

    def __init__(self, session: Any, meanwhile: Callable[[], None]) -> None:
        self._session = session
        self._meanwhile = meanwhile

    def execute(self, statement: Any) -> Any:
        self._meanwhile()
        return self._session.execute(statement)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


# SQLite has one writer at a time.
@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_an_answer_that_was_renewed_meanwhile_is_not_purged(database: DatabaseService) -> None:
    memory(database).keep("t", {"service": "old"}, HOSTS, 0)
    with database.session_getter() as session:
        session.execute(update(CmdbQueryCache).values(expires_at=datetime.now(UTC) - MINUTE))
    elsewhere = DatabaseService(database.database_url)
    try:
        renew = partial(memory(elsewhere).keep, "t", {"service": "old"}, HOSTS, 0)
        scoped = Interrupting(memory(database).database, renew)
        Memory(scoped, MINUTE).keep("t", {"service": "new"}, HOSTS, 0)  # type: ignore[arg-type]
    finally:
        elsewhere.close()
    assert memory(database).answer({"service": "old"}) == HOSTS


def test_writers_of_one_environment_leave_one_of_theirs(database: DatabaseService) -> None:
    at_once(database, lambda mine, number: mine.remember("ada", ("prod", "dev")[number % 2]))
    assert count(database, SharedUserPreferences) == 1
    assert memory(database).environment("ada") in ("prod", "dev")
