"""The database goes away under load, and comes back: what is answered meanwhile, and what is there afterwards."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pymysql
import pytest
from sqlalchemy.engine import make_url

from infra.local.stack import LocalStack
from tests import databases
from tests.e2e import tenants
from tests.e2e.conftest import UNLIMITED
from tests.e2e.line import CUT_AFTER, CUT_BEFORE, DEADLOCK, Line, Verdict
from tests.e2e.tenants import Api, Tenant, declared, fresh_name, package, upload
from tests.least_privilege.watched import WatchedStack

PLUGINS = "/api/v1/plugins"
API_PROCESSES = 3
CLIENTS = 4
INSERT = "INSERT INTO t_plugin_config"
KINDS = ("read", "list", "run", "install", "config")
BEFORE_S, AWAY_S, AFTER_S = 1.0, 3.0, 2.0
# Longer than a statement (8 s) and one more attempt to connect (3 s) are waited for: whoever waits must be told.
SILENT_S = 13.0
# Of an answer while nobody answers: a statement's 8 s, and one more attempt to connect; on a busy machine.
LONGEST_S = 15.0
INSIDE = re.compile(r"Traceback|chalicelib|sqlalchemy|SELECT |INSERT |pymysql|127\.0\.0\.1|root@", re.I)


@dataclass(frozen=True)
class World:
    """A stack whose database is at the end of a line."""

    stack: LocalStack
    line: Line
    url: str
    tenant: Tenant
    plugin: dict[str, str]

    @property
    def path(self) -> str:
        """The plugin that everybody works on."""
        return f"{PLUGINS}/{self.plugin['pluginId']}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("away") / "local"
    options: dict[str, Any] = {"api_processes": API_PROCESSES, "schedules": False, "environment": UNLIMITED}
    options |= {"install_visibility_s": 2, "install_max_receives": 60}
    with (
        databases.new_database() as url,
        Line(url) as line,
        WatchedStack(folder, database_url=line.url, **options) as stack,
        closing(Api(stack.url, stack.admin_credential)) as root,
        closing(tenants.new_tenant(stack, root)) as tenant,
    ):
        yield World(stack, line, url, tenant, tenant.install("subject"))


# -- under load ---------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """What one client saw."""

    answers: list[tuple[str, float, httpx.Response]] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)


def client(world: World, record: Record, end: float) -> None:
    """Read and write until `end`, and note every answer; a config is asked for with one key until it is made."""
    with closing(Api(world.stack.url, world.tenant.keys["admin"])) as api:

        def sent(
            kind: str, method: str, path: str, note: Callable[[Any], str] | None = None, **options: Any
        ) -> int:
            began = time.monotonic()
            answer = api(method, path, **options)
            record.answers.append((kind, time.monotonic() - began, answer))
            if note is not None and answer.status_code in (200, 201):
                record.acknowledged.setdefault(kind, []).append(note(answer.json()))
            return answer.status_code

        try:
            while time.monotonic() < end:
                sent("read", "GET", world.path)
                sent("list", "GET", f"{world.path}/versions")
                body = {"json": {"params": {"word": "hi"}}}
                sent("run", "POST", f"{world.path}/execute", lambda found: str(found["executionId"]), **body)
                name = fresh_name("load")
                made = upload(package(name))
                sent("install", "POST", f"{PLUGINS}/install", lambda found: str(found["pluginId"]), **made)
                _insist(sent, world, end)
        except BaseException as error:
            record.errors.append(error)


def _insist(sent: Callable[..., int], world: World, end: float) -> None:
    config = {
        "json": {"name": fresh_name("c"), "configItems": {"word": "x"}},
        "headers": {"Idempotency-Key": uuid4().hex},
    }
    path = f"{world.path}/configs"
    # 409: the first attempt is still noted as running; it is over when its function's time is.
    while sent("config", "POST", path, lambda found: str(found["configId"]), **config) in (409, 503):
        assert time.monotonic() < end + 40, "the key is never free again"
        time.sleep(0.1)


def load(
    world: World, away: Callable[[], None], back: Callable[[], None], away_s: float = AWAY_S
) -> list[Record]:
    """Run the clients while the database goes away and comes back."""
    records = [Record() for _ in range(CLIENTS)]
    end = time.monotonic() + BEFORE_S + away_s + AFTER_S
    threads = [threading.Thread(target=client, args=(world, record, end)) for record in records]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE_S)
    away()
    time.sleep(away_s)
    back()
    for thread in threads:
        thread.join(60)
    assert [error for record in records for error in record.errors] == []
    return records


def check_answers(records: list[Record], longest_s: float = LONGEST_S) -> None:
    """Hold every answer against what may be said while the database is away."""
    answers = [answer for record in records for answer in record.answers]
    for kind, took_s, answer in answers:
        seen = f"{kind}: {answer.status_code} after {took_s:.1f} s: {answer.text[:500]}"
        assert took_s < longest_s, seen
        if answer.status_code in (200, 201):
            continue
        assert answer.status_code == 503 or (kind, answer.status_code) == ("config", 409), seen
        assert answer.headers["content-type"] == "application/problem+json", seen
        assert int(answer.headers["retry-after"]) > 0, seen
        assert not INSIDE.search(answer.text), seen
    refused = {kind for kind, _, answer in answers if answer.status_code == 503}
    assert refused, "the database was never away"
    assert {kind for kind, _, answer in answers if answer.status_code < 300} == {*KINDS}


def check_nothing_is_lost(world: World, records: list[Record]) -> None:
    """Look for everything that was acknowledged, and for configs that were made twice."""
    admin = world.tenant.admin
    acknowledged: dict[str, set[str]] = {}
    for record in records:
        for kind, ids in record.acknowledged.items():
            acknowledged.setdefault(kind, set()).update(ids)
    assert set(acknowledged) == {"run", "install", "config"}
    assert acknowledged["run"] <= {
        row["executionId"] for row in everything(admin, f"{world.path}/executions")
    }
    assert acknowledged["install"] <= {row["pluginId"] for row in everything(admin, PLUGINS)}
    configs = everything(admin, f"{world.path}/configs")
    assert acknowledged["config"] <= {row["configId"] for row in configs}
    names = [row["name"] for row in configs]
    assert len(names) == len(set(names))
    for plugin_id in acknowledged["install"]:
        admin("POST", f"{PLUGINS}/{plugin_id}/enable", 200)


def everything(api: Api, path: str) -> list[dict[str, Any]]:
    """Return all items of a list, page by page."""
    items: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 100}
    while True:
        page = api("GET", path, 200, params=query).json()
        items += page["items"]
        if page["nextCursor"] is None:
            return items
        query["cursor"] = page["nextCursor"]


def processes(stack: LocalStack) -> set[int]:
    """Return the processes that serve the API."""
    return {environment.pid for environment in stack.environments("api")}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "frozen", "killed"])
def test_it_comes_back_without_a_restart_and_nothing_acknowledged_is_lost(world: World, how: str) -> None:
    before = processes(world.stack)
    killer = Killer(world.url)
    away, back = {
        "refused": (world.line.cut, world.line.restore),
        "frozen": (world.line.freeze, world.line.thaw),
        "killed": (killer.start, killer.stop),
    }[how]
    records = load(world, away, back, SILENT_S if how == "frozen" else AWAY_S)
    check_answers(records)
    for _ in range(3 * API_PROCESSES):
        world.tenant.admin("GET", world.path, 200)
    assert processes(world.stack) >= before
    check_nothing_is_lost(world, records)


class Killer:
    """Kills every connection to a database, again and again."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def stop(self) -> None:
        """Let connections live."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            kill_connections(self._url.render_as_string(hide_password=False))


def kill_connections(url: str) -> int:
    """Kill every connection to the database that `url` names and return how many there were."""
    where = make_url(url)
    with (
        closing(
            pymysql.connect(
                host=where.host or "127.0.0.1",
                port=where.port or 3306,
                user=where.username or "root",
                password=str(where.password or ""),
                ssl_disabled=True,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (where.database,))
        found = [row[0] for row in cursor.fetchall()]
        for number in found:
            try:
                cursor.execute("KILL %s", (number,))
            except pymysql.err.OperationalError:
                # It has ended by itself.
                continue
    return len(found)


# -- one fault at a time ------------------------------------------------------------------------------------------


def test_a_connection_that_was_killed_is_replaced_before_anyone_notices(world: World) -> None:
    killed = 0
    for _ in range(2 * API_PROCESSES):
        killed += kill_connections(world.url)
        world.tenant.admin("GET", world.path, 200)
        killed += kill_connections(world.url)
        body = {"name": fresh_name("k"), "configItems": {}}
        world.tenant.admin("POST", f"{world.path}/configs", 201, json=body)
    assert killed >= API_PROCESSES


@pytest.fixture
def judged(world: World) -> Iterator[Callable[..., list[str]]]:
    """Give statements that hold a text a verdict, so many times, once another was seen; returns those that got it."""

    def arm(text: str, verdict: Verdict, times: int, after: str = "") -> list[str]:
        met: list[str] = []
        begun = not after

        def judge(statement: str) -> Verdict:
            nonlocal begun
            begun = begun or after in statement
            if text not in statement or len(met) >= times or not begun:
                return None
            met.append(statement)
            return verdict

        world.line.judge = judge
        return met

    yield arm
    world.line.judge = lambda statement: None


def _create(world: World) -> tuple[str, httpx.Response]:
    name = fresh_name("j")
    body = {"name": name, "configItems": {}}
    return name, world.tenant.admin("POST", f"{world.path}/configs", json=body)


def _named(world: World, name: str) -> int:
    return [row["name"] for row in everything(world.tenant.admin, f"{world.path}/configs")].count(name)


def test_a_deadlock_runs_the_unit_again(world: World, judged: Any) -> None:
    met = judged(INSERT, DEADLOCK, 3)
    name, answer = _create(world)
    assert (answer.status_code, len(met), _named(world, name)) == (201, 3, 1)


def test_deadlocks_without_end_are_503_and_nothing_is_stored(world: World, judged: Any) -> None:
    met = judged(INSERT, DEADLOCK, 1000)
    name, answer = _create(world)
    assert (answer.status_code, answer.json()["code"]) == (503, "database.contended")
    assert answer.headers["retry-after"]
    assert (len(met) > 3, _named(world, name)) == (True, 0)


def test_a_line_that_breaks_before_the_commit_leaves_nothing(world: World, judged: Any) -> None:
    met = judged("COMMIT", CUT_BEFORE, 1, after=INSERT)
    name, answer = _create(world)
    assert (answer.status_code, len(met)) == (503, 1), answer.text
    assert _named(world, name) == 0


def test_a_commit_whose_answer_is_lost_is_read_back(world: World, judged: Any) -> None:
    met = judged("COMMIT", CUT_AFTER, 1, after=INSERT)
    name, answer = _create(world)
    assert (answer.status_code, len(met), _named(world, name)) == (201, 1, 1)


def test_a_connection_that_breaks_after_the_commit_is_replaced(world: World, judged: Any) -> None:
    met = judged("SET AUTOCOMMIT = 1", CUT_BEFORE, 1, after=INSERT)
    name, answer = _create(world)
    assert (answer.status_code, len(met)) == (201, 1)
    for _ in range(3 * API_PROCESSES):
        world.tenant.admin("GET", world.path, 200)
        world.tenant.admin("GET", f"{world.path}/configs", 200)
    assert _named(world, name) == 1


@pytest.mark.slow
def test_an_upload_while_the_database_is_away_is_registered_afterwards(world: World) -> None:
    content = package(fresh_name("patient"))
    admin = world.tenant.admin
    opened = admin("POST", f"{PLUGINS}/install", 202, **declared(content)).json()
    log = world.stack.logs_folder / "register.log"
    world.line.cut()
    try:
        form = opened["upload"]
        sent = httpx.post(form["url"], data=form["fields"], files={"file": content}, timeout=30)
        assert sent.status_code in (200, 201, 204), sent.text
        wait_for(lambda: log.read_text().count("plugin.install_deferred") >= 2, "a second delivery")
    finally:
        world.line.restore()
    path = f"{PLUGINS}/installs/{opened['installId']}"
    wait_for(lambda: admin("GET", path, 200).json()["state"] == "registered", "the registration")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.1)


@pytest.mark.slow
def test_s3_away_is_503_where_it_is_needed_and_nothing_else(world: World) -> None:
    admin = world.tenant.admin
    admin("POST", f"{world.path}/execute", 200, json={})
    name = fresh_name("stored")
    end, pid = time.monotonic() + 30, 0
    refused = None
    # It is started again when it ends: it must end again.
    while refused is None:
        assert time.monotonic() < end, "S3 was never away"
        if world.stack.storage_pid != pid:
            pid = world.stack.storage_pid
            os.kill(pid, signal.SIGKILL)
        answer = admin("POST", f"{PLUGINS}/install", **upload(package(name)))
        for path in (world.path, f"{world.path}/versions", "/api/v1/me", PLUGINS):
            admin("GET", path, 200)
        admin("POST", f"{world.path}/execute", 200, json={})
        if answer.status_code == 503:
            refused = answer
        elif answer.status_code in (200, 201):
            name = fresh_name("stored")
    assert refused.json()["code"] == "storage.away"
    assert refused.headers["retry-after"]
    assert name not in {row["name"] for row in everything(admin, PLUGINS)}
    wait_for(
        lambda: admin("POST", f"{PLUGINS}/install", **upload(package(name))).status_code in (200, 201),
        "S3's return",
    )


# -- a bound on staleness -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_within_the_bound_what_is_warm_is_served_without_the_database(tmp_path: Path) -> None:
    bound_s = 4.0
    environment = {**UNLIMITED, "HOTPLUG_MAX_STALENESS_MS": str(int(bound_s * 1000))}
    with (
        databases.new_database() as url,
        Line(url) as line,
        WatchedStack(
            tmp_path / "local",
            database_url=line.url,
            api_processes=1,
            schedules=False,
            environment=environment,
        ) as stack,
        closing(Api(stack.url, stack.admin_credential)) as root,
        closing(tenants.new_tenant(stack, root)) as tenant,
    ):
        path = f"{PLUGINS}/{tenant.install('warm')['pluginId']}"
        # GIVEN versions that were read just now
        time.sleep(bound_s)
        tenant.admin("GET", path, 200)
        read_at = time.monotonic()
        line.cut()
        # WHEN the database is away THEN what is in memory is served until the bound
        served_at = refused_at = 0.0
        while not refused_at:
            began = time.monotonic()
            answer = tenant.admin("GET", path)
            if answer.status_code == 200:
                served_at = began
            else:
                refused_at = time.monotonic()
                assert (answer.status_code, answer.json()["code"]) == (503, "database.away")
            # What is not in memory is not made up.
            assert tenant.admin("GET", f"{path}/versions").status_code == 503
            time.sleep(0.1)
        assert served_at > read_at
        assert refused_at - read_at >= bound_s - 0.5
        line.restore()
        tenant.admin("GET", path, 200)
