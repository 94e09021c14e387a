"""The hot cache on the wire, and among real processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import pymysql
import pytest
from sqlalchemy import event, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core import cache_log
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Unavailable
from chalicelib.core.hotcache import Dependency, HotCache
from tests.conftest import create_schema
from tests.processes import PROCESSES
from tests.wire import WireProxy

WRITERS, READERS, KEYS, WRITES = 2, 3, 4, 40


def read_name(session: Session, number: int) -> tuple[str | None, list[Dependency]]:
    row = session.get(App, number)
    return (row.name, [("apps", str(number))]) if row else (None, [("apps", "*")])


def load(cache: HotCache, number: int) -> str | None:
    return cache.load(number, lambda session: read_name(session, number))


def rename(database: DatabaseService, number: int, name: str) -> None:
    with database.session_getter() as session:
        row = session.get(App, number)
        if row is None:
            session.add(App(id=number, name=name, alias_id=f"app-{number}"))
        else:
            row.name = name


# -- round trips ---------------------------------------------------------------------------------------------


@pytest.fixture
def wire(mysql_url: str, with_schema: None) -> Iterator[WireProxy]:
    """A line to a database with one app, on which each command is counted."""
    service = create_schema(mysql_url)
    rename(service, 1, "one")
    service.close()
    with WireProxy(mysql_url) as proxy:
        yield proxy


@pytest.fixture
def warm(wire: WireProxy) -> Iterator[tuple[WireProxy, DatabaseService, HotCache]]:
    service = DatabaseService(wire.url)
    cache = HotCache(service)
    cache.refresh()
    assert load(cache, 1) == "one"
    wire.commands.clear()
    yield wire, service, cache
    service.close()


def test_a_warm_cached_read_is_one_round_trip(warm: tuple[WireProxy, DatabaseService, HotCache]) -> None:
    wire, _, cache = warm
    for _ in range(3):
        cache.refresh()
        assert load(cache, 1) == "one"
    assert wire.commands == ["QUERY SELECT scope, version, epoch FROM cache_version"] * 3


def test_a_read_session_makes_one_round_trip_per_statement(
    warm: tuple[WireProxy, DatabaseService, HotCache],
) -> None:
    wire, service, _ = warm
    with service.reads() as session:
        session.scalars(select(App)).all()
        session.scalars(select(App)).all()
    assert [command.split()[:2] for command in wire.commands] == [["QUERY", "SELECT"]] * 2


def test_following_one_change_is_three_round_trips(warm: tuple[WireProxy, DatabaseService, HotCache]) -> None:
    wire, service, cache = warm
    rename(service, 1, "ONE")
    wire.commands.clear()
    cache.refresh()
    assert load(cache, 1) == "ONE"
    assert len(wire.commands) == 3, "versions, change log, the one row"


def test_the_connection_reads_in_autocommit_again_after_a_unit(
    warm: tuple[WireProxy, DatabaseService, HotCache],
) -> None:
    wire, service, cache = warm
    rename(service, 1, "ONE")
    with pytest.raises(KeyError), service.session_getter() as session:
        session.get_one(App, 1).name = "never"
        session.flush()
        raise KeyError
    cache.refresh()
    wire.commands.clear()
    cache.refresh()
    assert len(wire.commands) == 1


# -- lost connections ----------------------------------------------------------------------------------------


def test_a_dead_connection_is_replaced_by_the_version_read(
    warm: tuple[WireProxy, DatabaseService, HotCache],
) -> None:
    wire, _, cache = warm
    wire.hang_up()
    cache.refresh()
    assert load(cache, 1) == "one"
    assert wire.commands.count("QUERY SELECT scope, version, epoch FROM cache_version") == 1


def test_a_connection_that_the_server_killed_is_replaced(
    mysql_url: str, warm: tuple[WireProxy, DatabaseService, HotCache]
) -> None:
    _, service, cache = warm
    with service.reads() as session:
        number = session.connection().exec_driver_sql("SELECT CONNECTION_ID()").scalar()
    url = make_url(mysql_url)
    with pymysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=str(url.password or "")
    ) as admin:
        admin.cursor().execute("KILL %s", (number,))
    cache.refresh()
    assert load(cache, 1) == "one"


def test_it_is_replaced_once_and_not_for_ever(warm: tuple[WireProxy, DatabaseService, HotCache]) -> None:
    wire, _, cache = warm
    wire.cut = lambda command: "cache_version" in command
    with pytest.raises(Unavailable) as caught:
        cache.refresh()
    assert caught.value.code == "database.away"
    assert sum("cache_version" in command for command in wire.commands) == 2
    # WHEN the server is back THEN the same service serves again
    wire.cut = lambda _: False
    cache.refresh()
    assert load(cache, 1) == "one"


def test_after_an_outage_nothing_stale_is_served(
    mysql_url: str, warm: tuple[WireProxy, DatabaseService, HotCache]
) -> None:
    wire, _, cache = warm
    wire.cut = lambda _: True
    with pytest.raises(Unavailable):
        cache.refresh()
    other = DatabaseService(mysql_url)
    rename(other, 1, "ONE")
    other.close()
    wire.cut = lambda _: False
    cache.refresh()
    assert load(cache, 1) == "ONE"


def test_a_line_that_is_cut_while_changes_are_read_serves_nothing_old(
    warm: tuple[WireProxy, DatabaseService, HotCache],
) -> None:
    wire, service, cache = warm
    rename(service, 1, "ONE")
    wire.cut = lambda command: "cache_change" in command
    with pytest.raises(Unavailable):
        cache.refresh()
    wire.cut = lambda _: False
    cache.refresh()
    assert load(cache, 1) == "ONE"


# -- several processes ---------------------------------------------------------------------------------------


def write_names(url: str, index: int, counter: Synchronized[int], acknowledged: Any, bumping: bool) -> None:
    """Give random apps ever higher numbers as names; publish each number once its commit has been
    acknowledged."""
    if not bumping:
        event.remove(Unit, "before_commit", cache_log._bump)
    service, choose = DatabaseService(url), random.Random(index)

    def write(session: Session) -> tuple[int, int]:
        key = choose.randint(1, KEYS)
        # The lock comes before the number, so that numbers and commits of one app agree in their order.
        row = session.scalars(select(App).where(App.id == key).with_for_update()).one()
        with counter.get_lock():
            counter.value += 1
            number = counter.value
        if choose.random() < 0.2:
            session.execute(update(App).where(App.id == key).values(name=str(number)))
        else:
            row.name = str(number)
        return key, number

    for _ in range(WRITES):
        if choose.random() < 0.1:
            _write_and_roll_back(service, choose.randint(1, KEYS))
        key, number = service.run(write)
        with acknowledged.get_lock():
            acknowledged[key] = max(acknowledged[key], number)
    service.close()


def _write_and_roll_back(service: DatabaseService, key: int) -> None:
    try:
        with service.session_getter() as session:
            session.get_one(App, key).name = "999999"
            session.flush()
            raise KeyError
    except KeyError:
        # What was meant: the unit ends without a commit.
        pass


def read_names(url: str, acknowledged: Any, ended: Synchronized[int], answer: Connection) -> None:
    """Send (requests, those that showed less than what had been acknowledged before they began)."""
    service, choose = DatabaseService(url), random.Random(url)
    cache, requests, stale = HotCache(service), 0, 0
    while not ended.value or requests < 50:
        key = choose.randint(1, KEYS)
        least = acknowledged[key]
        try:
            cache.refresh()
        except Unavailable:
            # No answer is no old answer. SQLite's writers may starve a reader's first look for a moment.
            continue
        name = load(cache, key)
        stale += int(name or 0) < least or name == "999999"
        requests += 1
    service.close()
    answer.send((requests, stale))


def histories(url: str, *, bumping: bool) -> tuple[int, int]:
    """Run writers against readers; return (requests, stale ones)."""
    service = create_schema(url)
    for key in range(1, KEYS + 1):
        rename(service, key, "0")
    service.close()
    counter, ended = PROCESSES.Value("q", 0), PROCESSES.Value("i", 0)
    acknowledged = PROCESSES.Array("q", [0] * (KEYS + 1))
    pipes = [PROCESSES.Pipe(duplex=False) for _ in range(READERS)]
    readers = [
        PROCESSES.Process(target=read_names, args=(url, acknowledged, ended, sending)) for _, sending in pipes
    ]
    writers = [
        PROCESSES.Process(target=write_names, args=(url, index, counter, acknowledged, bumping))
        for index in range(WRITERS)
    ]
    for process in (*readers, *writers):
        process.start()
    for process in writers:
        process.join(120)
        assert process.exitcode == 0
    ended.value = 1
    answers = [receiving.recv() for receiving, _ in pipes if receiving.poll(60)]
    for process in readers:
        process.join(60)
        assert process.exitcode == 0
    assert len(answers) == READERS
    return sum(requests for requests, _ in answers), sum(stale for _, stale in answers)


@pytest.mark.usefixtures("with_schema")
def test_no_process_serves_what_was_replaced_before_it_was_asked(database_url: str) -> None:
    requests, stale = histories(database_url, bumping=True)
    assert requests >= 50 * READERS
    assert stale == 0


@pytest.mark.usefixtures("with_schema")
def test_the_same_histories_without_a_bump_are_found_stale(database_url: str) -> None:
    _, stale = histories(database_url, bumping=False)
    assert stale > 0


def test_a_writer_that_waits_for_a_scope_commits_the_higher_number(database: DatabaseService) -> None:
    """Versions become visible in the order of commits: a reader never skips one that commits later."""
    second = DatabaseService(database.database_url)
    parent, child = PROCESSES.Pipe()
    process = PROCESSES.Process(target=slow_writer, args=(database.database_url, child))
    process.start()
    assert parent.recv() == "bumped"
    # GIVEN a unit that has bumped and not committed WHEN another commits THEN it waits for the first
    parent.send("commit in a moment")
    rename(second, 2, "two")
    process.join(30)
    assert process.exitcode == 0
    with second.reads() as session:
        rows = session.execute(
            select(cache_log.CacheChange.version, cache_log.CacheChange.item_key).order_by(
                cache_log.CacheChange.version
            )
        )
        seen = [(number, key) for number, key in rows]
    assert seen == [(1, "1"), (2, "2")]
    second.close()


def slow_writer(url: str, line: Connection) -> None:
    service = DatabaseService(url)

    def wait(session: Unit) -> None:
        line.send("bumped")
        line.recv()
        time.sleep(0.3)

    with service.session_getter() as session:
        event.listen(session, "before_commit", wait)
        session.add(App(id=1, name="one", alias_id="app-1"))
    service.close()
