"""The circuit breaker of several warm functions over one database, and writers that race for one circuit."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout
from chalicelib.core.hotcache import HotCache
from chalicelib.core.housekeeping import housekeeping_jobs
from chalicelib.core.jobs import Runner
from chalicelib.core.outbound.breaker import Breaker, CircuitOpen
from chalicelib.core.outbound.circuit import Circuit, Outcome, Policy, State
from chalicelib.core.outbound.circuit_record import MOST_PER_APP, CircuitBreaker, StoredCircuits
from chalicelib.core.outbound.client import HttpOut
from tests.internet import OK, Server

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
POLICY = Policy(failures=3, cool_down_s=30, probe_lease_s=60)
APP, HOST = 7, "api.example:443"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
WRITERS, ROUNDS = 4, 10


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Function:
    """A warm function: its own engine, hot cache and counters."""

    database: DatabaseService
    cache: HotCache
    breaker: Breaker
    http: HttpOut

    def invoke(self, url: str, *, method: str = "GET", retries: int = 0) -> str:
        """Return what became of one call in an invocation of its own: its status, or its error's code."""
        self.cache.refresh()
        return self.call(url, method=method, retries=retries)

    def call(self, url: str, *, method: str = "GET", retries: int = 0) -> str:
        """The same in the invocation that is under way."""
        try:
            send = lambda: self.http.request(method, url, headers={}, retries=retries)  # noqa: E731
            return str(self.breaker.call(APP, url, send).status)
        except (UpstreamFailed, UpstreamTimeout, CircuitOpen) as error:
            return error.code


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    running: list[Server] = []
    yield running
    for server in running:
        server.close()


@pytest.fixture
def function(
    database: DatabaseService, database_url: str, clock: Clock, servers: list[Server]
) -> Iterator[Callable[..., Function]]:
    made: list[DatabaseService] = []

    def make(name: str, *, allowed: Server | None = None) -> Function:
        service = DatabaseService(database_url)
        made.append(service)
        cache = HotCache(service)
        cache.refresh()
        private = [f"127.0.0.1:{allowed.port}"] if allowed else []
        http = HttpOut(private, read_timeout_s=0.3, sleep=lambda _: None)
        return Function(
            service, cache, Breaker(StoredCircuits(service, cache), name, POLICY, now=clock), http
        )

    yield make
    for service in made:
        service.close()


def serve(servers: list[Server], *answers: Any) -> tuple[Server, str]:
    server = Server(*answers)
    servers.append(server)
    return server, f"http://127.0.0.1:{server.port}/"


def rows(database: DatabaseService) -> list[CircuitBreaker]:
    with database.reads() as session:
        order = (CircuitBreaker.app_id, CircuitBreaker.host)
        return list(session.scalars(select(CircuitBreaker).order_by(*order)))


def version(database: DatabaseService) -> int:
    with database.reads() as session:
        return session.scalars(select(CacheVersion.version).where(CacheVersion.scope == "breakers")).one()


# -- several functions and a real server ---------------------------------------------------------------------


def test_what_opens_in_one_function_is_refused_in_all_and_closes_in_all(
    database: DatabaseService, function: Callable[..., Function], clock: Clock, servers: list[Server]
) -> None:
    server, url = serve(servers, BUSY, BUSY, BUSY, BUSY, OK)
    a, b = function("a", allowed=server), function("b", allowed=server)
    assert b.invoke(f"{url}b") == "503"
    assert [a.invoke(url) for _ in range(3)] == ["503"] * 3
    assert server.connections == 4

    # Refused in the same invocation, in the next one, and in the other function.
    assert [a.call(url), a.invoke(url), b.invoke(url)] == ["http.circuit_open"] * 3
    assert server.connections == 4
    (row,) = rows(database)
    assert (row.app_id, row.state, row.failures, row.opened_at) == (APP, "open", 3, NOW)
    assert row.until_at == NOW + timedelta(seconds=30)

    clock.now += timedelta(seconds=30)
    assert b.invoke(url) == "200"
    assert [a.invoke(url), b.invoke(url)] == ["200", "200"]
    assert server.connections == 7
    assert rows(database)[0].state == "closed"


def test_one_probes_while_the_others_are_refused(
    function: Callable[..., Function], clock: Clock, servers: list[Server]
) -> None:
    seen: list[str] = []
    probing, released = threading.Event(), threading.Event()

    def slow(conn: Any, request: bytes) -> None:
        probing.set()
        released.wait(10)
        conn.sendall(OK)

    server, url = serve(servers, BUSY, BUSY, BUSY, slow, OK)
    a, b = function("a", allowed=server), function("b", allowed=server)
    a.http = HttpOut([f"127.0.0.1:{server.port}"])
    for _ in range(3):
        a.invoke(url)
    clock.now += timedelta(seconds=30)
    thread = threading.Thread(target=lambda: seen.append(a.invoke(url)))
    thread.start()
    assert probing.wait(10)
    assert [b.invoke(url), b.invoke(url)] == ["http.circuit_open"] * 2
    released.set()
    thread.join(10)
    assert (seen, b.invoke(url), server.connections) == (["200"], "200", 5)


def test_a_retried_call_counts_once_and_an_open_circuit_sends_none(
    function: Callable[..., Function], servers: list[Server]
) -> None:
    server, url = serve(servers, BUSY)
    a = function("a", allowed=server)
    assert [a.invoke(url, retries=2) for _ in range(4)] == ["503"] * 3 + ["http.circuit_open"]
    assert server.connections == 9


def test_a_call_that_a_retry_saved_is_no_failure(
    function: Callable[..., Function], servers: list[Server]
) -> None:
    server, url = serve(servers, BUSY, BUSY, BUSY, OK, BUSY, OK)
    a = function("a", allowed=server)
    assert [a.invoke(url), a.invoke(url)] == ["503", "503"]
    assert a.invoke(url, retries=1) == "200"
    assert [a.invoke(url, retries=1), server.connections] == ["200", 6]


def test_a_call_costs_no_statement_once_the_apps_circuits_are_known(
    function: Callable[..., Function], servers: list[Server]
) -> None:
    (server, url), (other, elsewhere) = serve(servers, OK), serve(servers, OK)
    a = function("a")
    a.http = HttpOut([f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}"])
    a.invoke(url)
    statements: list[str] = []
    event.listen(a.database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert a.invoke(url) == "200"
    assert a.call(elsewhere) == "200"
    assert len(statements) == 1  # the refresh of the invocation
    assert "cache_version" in statements[0]


def test_counted_failures_write_nothing_and_bump_nothing(
    database: DatabaseService, function: Callable[..., Function], servers: list[Server]
) -> None:
    server, url = serve(servers, BUSY)
    a = function("a", allowed=server)
    before = version(database)
    assert [a.invoke(url), a.invoke(url)] == ["503", "503"]
    assert (version(database), rows(database)) == (before, [])
    a.invoke(url)
    a.invoke(url)
    assert version(database) == before + 1


# -- writers that race ---------------------------------------------------------------------------------------


def race(url: str, act: Callable[[StoredCircuits, str], bool]) -> int:
    """Let the writers act at the same moment, each with an engine of its own; return how many won."""
    barrier, won, failed = threading.Barrier(WRITERS), list[bool](), list[Exception]()

    def write(name: str) -> None:
        service = DatabaseService(url)
        try:
            cache = HotCache(service)
            cache.refresh()
            circuits = StoredCircuits(service, cache)
            barrier.wait(30)
            won.append(act(circuits, name))
        except Exception as error:
            failed.append(error)
        finally:
            service.close()

    writers = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failed == []
    return won.count(True)


def test_of_several_that_open_at_once_one_does(database: DatabaseService, database_url: str) -> None:
    for number in range(ROUNDS):
        host = f"host-{number}:443"
        opened = Circuit().opened(3, NOW, POLICY)
        assert race(database_url, lambda c, _, h=host, o=opened: c.swap(APP, h, Circuit(), o, NOW)[0]) == 1
    assert [(row.host, row.revision, row.state) for row in rows(database)] == [
        (f"host-{number}:443", 1, "open") for number in range(ROUNDS)
    ]


def test_of_several_that_want_to_probe_one_does(database: DatabaseService, database_url: str) -> None:
    opened = Circuit().opened(3, NOW, POLICY)
    for number in range(ROUNDS):
        host = f"host-{number}:443"
        race(database_url, lambda c, _, h=host: c.swap(APP, h, Circuit(), opened, NOW)[0])
        assert (
            race(
                database_url,
                lambda c, name, h=host: c.swap(APP, h, opened, opened.claimed(name, NOW, POLICY), NOW)[0],
            )
            == 1
        )
    assert {row.revision for row in rows(database)} == {2}


def test_the_loser_is_told_what_is_and_keeps_to_it(
    function: Callable[..., Function], database: DatabaseService
) -> None:
    a, b = function("a"), function("b")
    ours, theirs = StoredCircuits(a.database, a.cache), StoredCircuits(b.database, b.cache)
    opened = Circuit().opened(3, NOW, POLICY)
    assert theirs.get(APP, HOST) == Circuit()
    assert ours.swap(APP, HOST, Circuit(), opened, NOW) == (True, opened)
    assert theirs.get(APP, HOST) == Circuit()  # until its next refresh
    assert theirs.swap(APP, HOST, Circuit(), opened.opened(9, NOW, POLICY), NOW) == (False, opened)
    # Without a refresh: its own cache does not know yet.
    assert theirs.get(APP, HOST) == opened
    closed = opened.claimed("a", NOW, POLICY).settled(Outcome.SUCCESS, NOW, POLICY)
    assert ours.swap(APP, HOST, opened, closed, NOW)[0]
    b.cache.refresh()
    assert theirs.get(APP, HOST) == closed
    assert [row.state for row in rows(database)] == [State.CLOSED]


_CLAIM_AND_DIE = """
import os, sys
from datetime import datetime
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.circuit import Policy
from chalicelib.core.outbound.circuit_record import StoredCircuits
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
service = DatabaseService(sys.argv[1])
cache = HotCache(service)
cache.refresh()
now = datetime.fromisoformat(sys.argv[2])
breaker = Breaker(StoredCircuits(service, cache), "killed", Policy(3, 30, 60), now=lambda: now)
breaker.call(7, "https://api.example/", lambda: os.kill(os.getpid(), 9))
"""


def test_a_killed_prober_is_replaced_after_its_lease(
    function: Callable[..., Function], database: DatabaseService, database_url: str, clock: Clock
) -> None:
    a = function("a")
    circuits = StoredCircuits(a.database, a.cache)
    circuits.swap(APP, HOST, Circuit(), Circuit().opened(3, NOW, POLICY), NOW)
    clock.now += timedelta(seconds=30)
    dead = subprocess.run(
        [sys.executable, "-c", _CLAIM_AND_DIE, database_url, clock.now.isoformat()], timeout=60
    )
    assert dead.returncode == -9
    assert [(row.state, row.probe_owner) for row in rows(database)] == [("half_open", "killed")]

    def invoke() -> str:
        a.cache.refresh()
        try:
            with a.breaker.watch(APP, "https://api.example/") as watched:
                watched.answered(200)
            return "sent"
        except CircuitOpen as error:
            return f"{error.code} {error.retry_after}"

    clock.now += timedelta(seconds=59)
    assert invoke() == "http.circuit_open 1"
    clock.now += timedelta(seconds=1)
    assert invoke() == "sent"
    assert [(row.state, row.probe_owner) for row in rows(database)] == [("closed", None)]


# -- bounds --------------------------------------------------------------------------------------------------


def open_hosts(function: Function, app_id: int, count: int, at: datetime) -> None:
    circuits = StoredCircuits(function.database, function.cache)
    for number in range(count):
        opened = Circuit().opened(3, at, POLICY)
        circuits.swap(app_id, f"h{number:03d}:443", Circuit(), opened, at + timedelta(milliseconds=number))


def test_an_app_that_is_led_to_ever_new_hosts_keeps_the_newest(
    function: Callable[..., Function], database: DatabaseService
) -> None:
    a = function("a")
    open_hosts(a, 8, 1, NOW - timedelta(hours=1))
    open_hosts(a, APP, MOST_PER_APP + 2, NOW)
    kept = [row.host for row in rows(database) if row.app_id == APP]
    assert kept == [f"h{number:03d}:443" for number in range(2, MOST_PER_APP + 2)]
    assert [row.host for row in rows(database) if row.app_id == 8] == ["h000:443"]
    a.cache.refresh()
    circuits = StoredCircuits(a.database, a.cache)
    assert circuits.get(APP, "h000:443").state is State.CLOSED
    assert circuits.get(APP, "h002:443").state is State.OPEN


def test_the_job_forgets_what_did_not_change_for_a_day(
    function: Callable[..., Function], database: DatabaseService
) -> None:
    a, b = function("a"), function("b")
    open_hosts(a, APP, 60, NOW - timedelta(days=1, seconds=1))
    open_hosts(a, 8, 1, NOW - timedelta(hours=23))
    b.cache.refresh()
    known = StoredCircuits(b.database, b.cache)
    assert known.get(APP, "h000:443").state is State.OPEN
    job = next(job for job in housekeeping_jobs(database, lambda: NOW) if job.name == "prune_breakers")
    report = Runner(database, deadline_s=30, now=lambda: NOW).run(job)
    assert (report["done"], report["failed"], report["plan"][0]["count"]) == (1, 0, 60)
    assert [row.app_id for row in rows(database)] == [8]
    b.cache.refresh()
    assert known.get(APP, "h000:443") == Circuit()
    assert Runner(database, deadline_s=30, now=lambda: NOW).run(job)["planned"] == 0


def test_a_database_that_is_away_stops_no_call() -> None:
    service = DatabaseService("mysql+pymysql://root@127.0.0.1:9/none", connect_timeout=1)
    breaker = Breaker(StoredCircuits(service, HotCache(service)), "me", Policy(failures=1))

    def send() -> Any:
        raise UpstreamTimeout

    with pytest.raises(UpstreamTimeout):
        breaker.call(APP, "https://api.example/", send)
    service.close()
