"""Moves among writers, beside one another, and killed: the tables are equal in the end, and nothing is lost."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, delete, func, select, type_coerce, update

from chalicelib.agents.base import Reply
from chalicelib.agents.history import thread as thread_module
from chalicelib.agents.history import threads
from chalicelib.agents.history.place import Place, of_agent
from chalicelib.agents.history.thread import ThreadHistory, Turn
from chalicelib.agents.models import INDEPENDENT, SHARED, AgentMove, AgentRow
from chalicelib.agents.moves import service, tables
from chalicelib.agents.moves.job import STEPS, move_jobs
from chalicelib.core import steps
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict
from tests.history_rows import (
    AGENT,
    APP,
    CALLER,
    MODELS,
    STRANGER,
    history_database,
    place,
    put_many,
    put_messages,
    rows,
    say,
)
from tests.integration.test_agent_moves import World
from tests.plans import explain
from tests.plans.explain import Recorder, rows_read

ROOT = Path(__file__).resolve().parents[2]
MANY = 100_000


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with closing(history_database(database_url)) as database:
        yield World(database)


def at_once(world: World, *works: Callable[[World], None]) -> None:
    """Do several things at the same time, each on a connection of its own; what any of them raises is raised."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[World], None]) -> None:
        database = DatabaseService(world.database.database_url)
        try:
            with closing(database):
                barrier.wait()
                work(World(database, world.declared, world.now))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(work,)) for work in works]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def action_of(world: World) -> Any:
    [job, _] = move_jobs(world.database, lambda _: place(world.declared), lambda: world.now)
    return job.plan({}).actions[0]


# -- beside one another ----------------------------------------------------------------------------------------------


def test_of_two_who_begin_one_does(world: World) -> None:
    outcomes: list[str] = []

    def begin(mine: World) -> None:
        try:
            mine.begin(INDEPENDENT)
            outcomes.append("begun")
        except Conflict as error:
            outcomes.append(error.code)

    at_once(world, begin, begin, begin)
    assert sorted(outcomes) == ["agent.move_active", "agent.move_active", "begun"]
    with world.database.reads() as session:
        assert session.scalar(select(func.count()).select_from(AgentMove)) == 1


def test_a_move_begins_after_the_writers_that_do_not_know_of_it(world: World) -> None:
    order: list[str] = []
    stored = threading.Event()

    def store(mine: World) -> None:
        def work(session: Any) -> None:
            ThreadHistory(mine.database, APP, AGENT, "T1", place()).store(session, Turn("late", Reply("re")))
            stored.set()
            # Long enough for a move that does not wait.
            time.sleep(0.3)
            order.append("stored")

        mine.database.run(work)

    def begin(mine: World) -> None:
        stored.wait()
        mine.begin(INDEPENDENT)
        order.append("begun")

    at_once(world, store, begin)
    assert order == ["stored", "begun"]
    assert world.run()["failures"] == []
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(INDEPENDENT)) == 2


def test_a_batch_waits_for_those_who_delete(world: World) -> None:
    """A copy that had read the thread before it was deleted would bring it back."""
    put_messages(world.database, SHARED, 20)
    world.begin(INDEPENDENT)
    order: list[str] = []
    deleted = threading.Event()

    def remove(mine: World) -> None:
        def work(session: Any) -> None:
            threads.delete_thread(session, CALLER, place(), AGENT, "T1")
            deleted.set()
            time.sleep(0.3)
            order.append("deleted")

        mine.database.run(work)

    def copy(mine: World) -> None:
        deleted.wait()
        action_of(mine).work()
        order.append("copied")

    at_once(world, remove, copy)
    assert order == ["deleted", "copied"]
    assert world.mine(SHARED) == world.mine(INDEPENDENT) == []


@pytest.mark.parametrize("state", ["copying", "verifying"])
def test_an_id_behind_what_was_copied_is_in_both_tables(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Ids of different functions are not in the order of their commits."""
    monkeypatch.setattr(tables, "BATCH", 10)
    put_messages(world.database, SHARED, 35, first_id=1000)
    move_id = world.begin(INDEPENDENT)
    action = action_of(world)
    while world.move(move_id)["copied" if state == "copying" else "verified"] < 20:
        action.work()
    ids = iter(range(500, 600))
    monkeypatch.setattr(thread_module, "new_id", lambda: next(ids))
    say(world.database, "late")
    assert world.run()["failures"] == []
    assert world.move(move_id)["state"] == "done"
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(INDEPENDENT)) == 37


def test_a_cancel_and_the_flip_are_one_after_the_other(world: World) -> None:
    put_messages(world.database, SHARED, 20)
    for _ in range(6):
        world.now += timedelta(seconds=5)
        world.run("purge_moved")
        source, target = world.place().mode, SHARED
        if source == SHARED:
            target = INDEPENDENT
        move_id = world.begin(target)
        action = action_of(world)
        action.work()
        outcomes: list[str] = []

        def cancel(mine: World, move_id: str = move_id, outcomes: list[str] = outcomes) -> None:
            try:
                mine.cancel(move_id)
                outcomes.append("cancelled")
            except Conflict as error:
                outcomes.append(error.code)

        def flip(mine: World) -> None:
            [job, _] = move_jobs(mine.database, lambda _: place(), lambda: mine.now)
            for found in job.plan({}).actions:
                while found.work():
                    pass

        at_once(world, cancel, flip)
        state = world.move(move_id)["state"]
        assert (outcomes, state) in [(["cancelled"], "cancelled"), (["agent.move_finished"], "done")]
        assert world.place() == place(target if state == "done" else source)
        assert len(world.mine(world.place().mode)) == 20


def test_two_runners_do_each_batch_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without the lease that keeps them apart."""
    monkeypatch.setattr(tables, "BATCH", 10)
    put_messages(world.database, SHARED, 155)
    move_id = world.begin(INDEPENDENT)

    def run(mine: World) -> None:
        action = action_of(mine)
        while action.work():
            pass

    at_once(world, run, run)
    shown = world.move(move_id)
    assert (shown["state"], shown["copied"], shown["verified"]) == ("done", 155, 155)
    assert shown["sourceDigest"] == shown["targetDigest"] == digest_of(world, INDEPENDENT)
    assert world.mine(SHARED) == world.mine(INDEPENDENT)


def test_the_lease_keeps_a_second_runner_away(world: World) -> None:
    put_messages(world.database, SHARED, 5)
    world.begin(INDEPENDENT)
    skipped: list[Any] = []

    def watch(operation: str, name: str) -> None:
        if (operation, name) == ("agent_move", "copy") and not skipped:
            # `None` until it is known, so that the second runner does not start a third.
            skipped.append(None)
            other = DatabaseService(world.database.database_url)
            with closing(other):
                skipped[0] = World(other, now=world.now).run()["skipped"]

    with observed(watch):
        assert world.run()["done"] == 1
    assert skipped == ["running"]


def digest_of(world: World, mode: str) -> str:
    """The digest over a whole table, batch by batch, here and not by the server."""
    pair = tables.Pair(MODELS[mode], MODELS[mode], AGENT)
    columns = sorted((c for c in MODELS[mode].__table__.c if c.name != "agent_name"), key=lambda c: c.name)
    stored = select(*(type_coerce(c, String()).label(c.name) for c in columns))
    found: str | None = None
    after = -1
    while True:
        with world.database.reads() as session:
            part = tables.next_range(session, pair, after)
            batch = stored.where(columns_id(columns) > after, columns_id(columns) <= part.through)
            lines = session.execute(batch.order_by(columns_id(columns))).all()
        digests = "".join(tables.row_digest(columns, [_as_stored(v) for v in line]) for line in lines)
        found = tables.chained(found, hashlib.sha256(digests.encode()).hexdigest())
        if part.last:
            return found
        after = part.through


def remove(world: World, known: Place, thread: str) -> None:
    """Delete a thread as a request does that remembers the place."""
    threads.shorten_thread(world.database, known, APP, AGENT, thread)
    world.database.run(lambda session: threads.delete_thread(session, CALLER, known, AGENT, thread))


def columns_id(columns: Any) -> Any:
    return next(column for column in columns if column.name == "id")


def _as_stored(value: Any) -> Any:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


@pytest.mark.parametrize("turns", [25])
def test_writers_and_deleters_among_moves_there_and_back(
    world: World, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(tables, "BATCH", 20)
    put_messages(world.database, SHARED, 150, thread="old")
    put_messages(world.database, SHARED, 9, agent=STRANGER, first_id=10**6)
    # As after an earlier move: what a warm function remembers may then be wrong.
    said = update(AgentRow).where(AgentRow.name == AGENT).values(history_mode=SHARED)
    world.database.run(lambda session: session.execute(said))
    done = threading.Event()

    def talk(who: int) -> Callable[[World], None]:
        def work(mine: World) -> None:
            for number in range(turns):
                # Whatever a warm function remembers of the place, right or wrong.
                known = place([SHARED, INDEPENDENT][number % 2])
                say(mine.database, f"{who}.{number}", thread=f"talk-{who}", known=known)
                say(mine.database, "gone", thread=f"gone-{who}", known=known)
                remove(mine, known, f"gone-{who}")

        return work

    def move(mine: World) -> None:
        moves = 0
        while not done.is_set() or moves < 2:
            mine.begin(INDEPENDENT if mine.place().mode == SHARED else SHARED)
            action = action_of(mine)
            while action.work():
                pass
            moves += 1

    def talk_all(mine: World) -> None:
        try:
            at_once(mine, talk(0), talk(1))
        finally:
            done.set()

    at_once(world, move, talk_all)
    with world.database.reads() as session:
        states = set(session.scalars(select(AgentMove.state)))
        assert session.get(AgentRow, AGENT).moving_to is None  # type: ignore[union-attr]
    assert states == {"done"}
    live = [row for row in rows(world.database, world.place().mode) if row.app_id == APP]
    live = [row for row in live if getattr(row, "agent_name", AGENT) == AGENT]
    assert len([row for row in live if row.thread_id == "old"]) == 150
    assert [row for row in live if row.thread_id.startswith("gone")] == []
    for who in range(2):
        heard = [row.content for row in live if row.thread_id == f"talk-{who}"]
        assert heard == [text for n in range(turns) for text in (f"{who}.{n}", f"re: {who}.{n}")]
    assert len([row for row in rows(world.database, SHARED) if row.agent_name == STRANGER]) == 9


# -- killed ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process, as far as the code under test can see."""


@contextmanager
def observed(observer: Any) -> Iterator[None]:
    before = steps.observe(observer)
    try:
        yield
    finally:
        steps.observe(before)


def test_killed_before_any_step_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves there and back, each killed before another of its steps, the purge of what is left included."""
    monkeypatch.setattr(tables, "BATCH", 10)
    monkeypatch.setattr(service, "COUNTED", 5)
    put_messages(world.database, SHARED, 35)
    before = world.mine(SHARED)
    killed: set[str] = set()
    number = 0
    while True:
        number += 1
        seen: list[str] = []

        def kill(operation: str, name: str, seen: list[str] = seen, number: int = number) -> None:
            seen.append(f"{operation}.{name}")
            if len(seen) == number:
                raise Killed

        target = INDEPENDENT if world.place().mode == SHARED else SHARED
        move_id = world.begin(target, keep_days=0)
        ended = False
        with observed(kill):
            try:
                world.run()
                world.run("purge_moved")
            except Killed:
                ended = True
                killed.add(seen[-1])
        world.now += timedelta(seconds=61)
        assert world.run()["failures"] == []
        shown = world.move(move_id)
        assert (shown["state"], shown["copied"], shown["verified"], shown["total"]) == ("done", 35, 35, 35)
        assert world.run("purge_moved")["failures"] == []
        assert world.place() == place(target)
        assert world.mine(target) == before
        assert world.mine(SHARED if target == INDEPENDENT else INDEPENDENT) == []
        if not ended:
            break
    assert killed >= {f"agent_move.{name}" for name in STEPS} | {"job.acquire", "job.finish"}


@pytest.fixture(scope="module")
def large() -> Iterator[DatabaseService]:
    """A history of 100,000 messages on a real server."""
    from tests import databases

    with databases.new_database() as url:
        database = history_database(url)
        put_many(database, SHARED, MANY)
        put_messages(database, SHARED, 50, agent=STRANGER, first_id=10**7)
        yield database
        database.close()


@pytest.mark.parametrize(("source", "target"), [(SHARED, INDEPENDENT), (INDEPENDENT, SHARED)])
def test_a_move_of_a_hundred_thousand_killed_half_way_ends_equal(
    large: DatabaseService, source: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "NAMES", {model.__tablename__ for model in MODELS.values()})
    world = World(large)
    assert world.place() == place(source)
    move_id = world.begin(target, keep_days=1)
    url = large.database_url
    command = [sys.executable, "-m", "tests.crash.move_worker", url, SHARED, str(MANY // 500 // 2)]
    worker = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert worker.returncode == -signal.SIGKILL, worker.stderr
    shown = world.move(move_id)
    assert shown["state"] == "copying"
    assert 0 < shown["copied"] < MANY
    # The killed runner's lease has ended.
    world.now += timedelta(hours=1)
    recorder = Recorder()
    with recorder.watching(large.engine):
        assert world.run()["failures"] == []
    shown = world.move(move_id)
    assert (shown["state"], shown["copied"], shown["verified"]) == ("done", MANY, MANY)
    assert shown["sourceDigest"] == shown["targetDigest"] is not None
    assert counted(large, SHARED) == counted(large, INDEPENDENT) == MANY
    plans_are_good(large, recorder)
    with large.reads() as session:
        strangers = select(func.count()).where(MODELS[SHARED].agent_name == STRANGER)  # type: ignore[attr-defined]
        assert session.scalar(strangers) == 50
    empty(world, source)


def counted(database: DatabaseService, mode: str) -> int:
    with database.reads() as session:
        return service.count_all(session, MODELS[mode], AGENT)


def plans_are_good(database: DatabaseService, recorder: Recorder) -> None:
    """No statement scans or sorts, and the last batch reads no more than the first; the counts at the end read all."""
    sent = [one for one in recorder.sent if "count(*)" not in one.statement]
    first = {re.sub(r"\W*%\(\w+\)s\W*", "?", one.statement): one for one in reversed(sent)}
    last = {re.sub(r"\W*%\(\w+\)s\W*", "?", one.statement): one for one in sent}
    assert [str(one) for one in explain.faults(database.engine, [*first.values(), *last.values()])] == []
    for name, one in last.items():
        if one.statement.startswith("SELECT"):
            costs = [rows_read(database.engine, sent) for sent in (first[name], one)]
            # An entry of an index, its row, and the other table's under the same id; and what a subquery keeps.
            assert max(costs) <= 4 * (tables.BATCH + 1) + 10, (name, costs)
            assert costs[1] <= 1.1 * costs[0] + 10, (name, costs)


def empty(world: World, mode: str) -> None:
    """Delete what is kept in one go, which the job would do batch by batch: the next move shall copy everything."""
    model = MODELS[mode]

    def work(session: Any) -> None:
        session.execute(delete(model).where(*of_agent(model, AGENT)))
        session.execute(update(AgentMove).values(keep_until=None))

    world.database.run(work)
