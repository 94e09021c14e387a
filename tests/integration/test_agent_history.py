"""Threads and their messages: listed at a cost that does not grow, and deleted as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from chalicelib.agents.history import threads
from chalicelib.agents.history.thread import ThreadHistory
from chalicelib.agents.models import INDEPENDENT, SHARED, AgentRow
from chalicelib.core.audit import AuditLog
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import BadRequest, NotFound, Unavailable
from chalicelib.core.paging import Page
from tests.history_rows import (
    AGENT,
    APP,
    CALLER,
    MODELS,
    OTHER_APP,
    START,
    STRANGER,
    history_database,
    page,
    place,
    put_many,
    put_messages,
    rows,
    say,
)
from tests.plans import explain
from tests.plans.explain import Recorder, rows_read

LONG = 100_000
MODES = pytest.mark.parametrize("mode", [SHARED, INDEPENDENT])


@pytest.fixture
def world(database_url: str) -> Iterator[DatabaseService]:
    with closing(history_database(database_url)) as database:
        yield database


def list_threads(database: DatabaseService, mode: str = SHARED, **options: Any) -> dict[str, Any]:
    with database.reads() as session:
        return threads.list_threads(session, place(mode), APP, AGENT, page(**options))


def list_messages(database: DatabaseService, mode: str = SHARED, **options: Any) -> dict[str, Any]:
    with database.reads() as session:
        return threads.list_messages(session, place(mode), APP, AGENT, "T1", page(**options))


def delete(database: DatabaseService, thread_id: str = "T1", mode: str = SHARED) -> None:
    """Delete a thread as a request does."""
    threads.shorten_thread(database, place(mode), APP, AGENT, thread_id)
    database.run(lambda session: threads.delete_thread(session, CALLER, place(mode), AGENT, thread_id))


def all_pages(read: Any, limit: int) -> list[dict[str, Any]]:
    found, cursor = [], None
    while True:
        one = read(limit=limit, cursor=cursor)
        found += one["items"]
        cursor = one["nextCursor"]
        if cursor is None:
            return found
        assert len(one["items"]) == limit


def on(at: int) -> str:
    return (START + timedelta(microseconds=at)).isoformat(timespec="microseconds").replace("+00:00", "Z")


# -- threads ---------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("limit", [3, 30])
def test_threads_come_by_descending_id_each_once(world: DatabaseService, mode: str, limit: int) -> None:
    """Short and long ones, so that blocks of the index end within a thread, at its end, and at its beginning."""
    sizes = [1, 100, 1, 31, 32, 33, 2, 64, 1, 5]
    first = 1
    for number, size in enumerate(sizes):
        put_messages(world, mode, size, thread=f"T{number}", first_id=first)
        first += size
    put_messages(world, mode, 3, thread="T99", first_id=first, app_id=OTHER_APP)
    if mode == SHARED:
        put_messages(world, mode, 3, thread="T98", first_id=first + 3, agent=STRANGER)
    found = all_pages(lambda **options: list_threads(world, mode, **options), limit)
    assert found == [
        {"threadId": f"T{number}", "createdAt": on(0), "lastMessageAt": on(size - 1)}
        for number, size in reversed(list(enumerate(sizes)))
    ]


def test_an_app_without_threads_sees_an_empty_page(world: DatabaseService) -> None:
    assert list_threads(world) == {"items": [], "nextCursor": None}


def test_a_thread_that_goes_while_it_is_listed_is_left_out(world: DatabaseService) -> None:
    for number in range(3):
        put_messages(world, SHARED, 2, thread=f"T{number}", first_id=10 * number + 1)
    other = DatabaseService(world.database_url)

    class Deleting:
        """A session during whose last statement another process deletes a thread."""

        def __init__(self, session: Any) -> None:
            self._session = session

        def execute(self, statement: Any) -> Any:
            if "min(" in str(statement):
                delete(other, "T1")
            return self._session.execute(statement)

    with world.reads() as session:
        found = threads.list_threads(Deleting(session), place(), APP, AGENT, page(limit=2))  # type: ignore[arg-type]
    other.close()
    assert [one["threadId"] for one in found["items"]] == ["T2"]
    assert found["nextCursor"] is not None
    assert [one["threadId"] for one in list_threads(world, cursor=found["nextCursor"])["items"]] == ["T0"]


def test_a_cursor_of_another_listing_is_refused(world: DatabaseService) -> None:
    put_messages(world, SHARED, 3)
    foreign = Page(1, None, {"$app": OTHER_APP}, b"key").encode(["T1"])
    for read in (list_threads, list_messages):
        with pytest.raises(BadRequest):
            read(world, cursor=foreign)


def test_an_agent_without_a_history_has_no_threads(world: DatabaseService) -> None:
    def refused(work: Any) -> None:
        with pytest.raises(NotFound) as caught, world.reads() as session:
            work(session)
        assert caught.value.code == "agent.no_history"

    refused(lambda session: threads.list_threads(session, None, APP, AGENT, page()))
    refused(lambda session: threads.list_messages(session, None, APP, AGENT, "T1", page()))
    refused(lambda _: threads.shorten_thread(world, None, APP, AGENT, "T1"))
    refused(lambda session: threads.delete_thread(session, CALLER, None, AGENT, "T1"))


# -- messages --------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("every_us", [0, 1])
def test_messages_come_newest_first_each_once(world: DatabaseService, mode: str, every_us: int) -> None:
    """Also where all have the same time: then the ids decide."""
    put_messages(world, mode, 95, every_us=every_us)
    found = all_pages(lambda **options: list_messages(world, mode, **options), 10)
    assert [one["messageId"] for one in found] == [str(number) for number in range(95, 0, -1)]
    assert found[-2] == {
        "messageId": "2",
        "role": "user",
        "content": "message 1: żółć",
        "metadata": {"n": 1},
        "createdAt": on(every_us),
    }


def test_a_message_that_comes_meanwhile_shifts_no_page(world: DatabaseService) -> None:
    put_messages(world, SHARED, 10)
    first = list_messages(world, limit=5)
    say(world, "new")
    second = list_messages(world, limit=5, cursor=first["nextCursor"])
    assert [one["messageId"] for one in second["items"]] == ["5", "4", "3", "2", "1"]


def test_a_thread_that_is_not_there_is_404(world: DatabaseService) -> None:
    put_messages(world, SHARED, 3, app_id=OTHER_APP)
    put_messages(world, SHARED, 3, agent=STRANGER, first_id=11)
    with pytest.raises(NotFound) as caught:
        list_messages(world)
    assert caught.value.code == "agent.thread_not_found"
    with pytest.raises(NotFound) as caught:
        delete(world)
    assert caught.value.code == "agent.thread_not_found"


# -- what it costs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> Iterator[DatabaseService]:
    """A thread of 100,000 messages among others, in both tables, on a real server."""
    from tests import databases

    with databases.new_database() as url:
        service = history_database(url)
        for mode in (SHARED, INDEPENDENT):
            put_many(service, mode, LONG)
            put_messages(service, mode, 300, thread="T0", first_id=LONG + 1)
            put_messages(service, mode, 300, thread="T2", first_id=LONG + 3001)
            put_messages(service, mode, 300, app_id=OTHER_APP, first_id=LONG + 6001)
            for number in range(40):
                put_messages(service, mode, 8, thread=f"S{number:02}", first_id=LONG + 9001 + 50 * number)
        put_messages(service, SHARED, 300, agent=STRANGER, first_id=LONG + 20001)
        with service.connection() as connection:
            for model in MODELS.values():
                connection.exec_driver_sql(f"ANALYZE TABLE {model.__tablename__}")
        yield service
        service.close()


def _far_into(mode: str, offset: int) -> str:
    """The cursor behind the message so many before the newest."""
    position = LONG - offset
    at = (START + timedelta(microseconds=position - 1)).isoformat()
    return page().encode([at, position])


def _cost(database: DatabaseService, recorder: Recorder) -> int:
    return sum(rows_read(database.engine, sent) for sent in recorder.sent)


@MODES
def test_every_page_of_a_long_thread_costs_the_same(
    large: DatabaseService, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "NAMES", {model.__tablename__ for model in MODELS.values()})
    costs = []
    for offset in (None, 30, 1000, LONG // 2, LONG - 100):
        recorder = Recorder()
        cursor = None if offset is None else _far_into(mode, offset)
        with recorder.watching(large.engine):
            found = list_messages(large, mode, cursor=cursor)
        assert [int(one["messageId"]) for one in found["items"]] == [
            LONG - (offset or 0) - number - (0 if offset is None else 1) for number in range(30)
        ]
        assert [str(one) for one in explain.faults(large.engine, recorder.sent)] == []
        costs.append(_cost(large, recorder))
    # A page and the row behind it; whether the cursor's own entry is touched differs.
    assert max(costs) <= 31 + 3, costs


@MODES
def test_listing_threads_does_not_read_their_messages(
    large: DatabaseService, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "NAMES", {model.__tablename__ for model in MODELS.values()})
    costs, trips, cursor, seen = [], [], None, []
    while True:
        recorder = Recorder()
        with recorder.watching(large.engine):
            found = list_threads(large, mode, limit=10, cursor=cursor)
        assert [str(one) for one in explain.faults(large.engine, recorder.sent)] == []
        costs.append(_cost(large, recorder))
        trips.append(len(recorder.sent))
        seen += [one["threadId"] for one in found["items"]]
        cursor = found["nextCursor"]
        if cursor is None:
            break
    assert seen == ["T2", "T1", "T0", *(f"S{number:02}" for number in reversed(range(40)))]
    # Of short threads several come at once: eleven of eight messages in three blocks, and their beginnings.
    assert trips[3] == 4
    # Eleven blocks of 32 entries, and one seek for each thread's beginning.
    assert max(costs) <= 11 * (threads.BLOCK + 1) + 2 * 10 + 30, costs


@MODES
def test_the_newest_messages_are_read_by_the_index(
    large: DatabaseService, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "NAMES", {model.__tablename__ for model in MODELS.values()})
    recorder = Recorder()
    with recorder.watching(large.engine):
        found = ThreadHistory(large, APP, AGENT, "T1", place(mode)).recent(20)
    assert [one.id for one in found] == list(range(LONG - 19, LONG + 1))
    assert len(recorder.sent) == 1
    assert [str(one) for one in explain.faults(large.engine, recorder.sent)] == []
    assert _cost(large, recorder) <= 21


# -- deleting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [500, 501])
def test_a_deleted_thread_is_gone_and_the_others_are_not(world: DatabaseService, size: int) -> None:
    put_messages(world, SHARED, size)
    put_messages(world, SHARED, 2, thread="T2", first_id=5001)
    put_messages(world, SHARED, 2, app_id=OTHER_APP, first_id=5011)
    put_messages(world, SHARED, 2, agent=STRANGER, first_id=5021)
    delete(world)
    assert [row.id for row in rows(world, SHARED)] == [5001, 5002, 5011, 5012, 5021, 5022]
    with world.reads() as session:
        [audited] = session.query(AuditLog).all()
    assert (audited.action, audited.object_id, audited.app_id) == ("agent.thread_delete", AGENT, APP)
    with pytest.raises(NotFound):
        delete(world)


def test_what_one_request_cannot_delete_the_next_ones_do(
    world: DatabaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MOST_BATCHES", 2)
    put_messages(world, SHARED, 2100)
    with pytest.raises(Unavailable) as caught:
        delete(world)
    assert (caught.value.code, caught.value.retry_after) == ("agent.thread_too_long", 1)
    # From its oldest message on: what is left reads like a thread.
    assert [row.id for row in rows(world, SHARED)] == list(range(1001, 2101))
    with pytest.raises(Unavailable):
        world.run(lambda session: threads.delete_thread(session, CALLER, place(), AGENT, "T1"))
    assert len(rows(world, SHARED)) == 1100
    with pytest.raises(Unavailable):
        delete(world)
    delete(world)
    assert rows(world, SHARED) == []


@pytest.mark.parametrize("moving", [INDEPENDENT, None])
def test_a_thread_goes_from_both_tables_moving_or_kept(world: DatabaseService, moving: str | None) -> None:
    changed = update(AgentRow).where(AgentRow.name == AGENT).values(moving_to=moving)
    world.run(lambda session: session.execute(changed))
    for mode in (SHARED, INDEPENDENT):
        put_messages(world, mode, 700)
        put_messages(world, mode, 2, thread="T2", first_id=5001)
    delete(world)
    for mode in (SHARED, INDEPENDENT):
        assert [row.id for row in rows(world, mode)] == [5001, 5002]


def test_two_who_delete_one_thread_while_another_writes_to_it(world: DatabaseService) -> None:
    """Each message that is there afterwards belongs to a turn that is there as a whole."""
    put_messages(world, SHARED, 1500)
    outcomes: list[str] = []

    def remove() -> None:
        service = DatabaseService(world.database_url)
        try:
            delete(service)
            outcomes.append("deleted")
        except NotFound as error:
            outcomes.append(error.code)
        service.close()

    def talk() -> None:
        service = DatabaseService(world.database_url)
        for number in range(10):
            say(service, f"{number}")
        service.close()

    workers = [threading.Thread(target=work) for work in (remove, remove, talk)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(outcomes) == 2
    assert "deleted" in outcomes
    left = [row.content for row in rows(world, SHARED)]
    assert [text for text in left if text.startswith("message")] == []
    assert [text for text in left if not text.startswith("re: ")] == [
        text.removeprefix("re: ") for text in left if text.startswith("re: ")
    ]
