"""`self.history`: what an agent sees of a thread and what is stored of a turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update

from chalicelib.agents.base import Reply
from chalicelib.agents.history import thread as thread_module
from chalicelib.agents.history.place import Place
from chalicelib.agents.history.thread import ThreadHistory, Turn
from chalicelib.agents.models import INDEPENDENT, SHARED, AgentRow
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid, Unavailable, UpstreamFailed
from tests.history_rows import (
    AGENT,
    APP,
    MODELS,
    OTHER_APP,
    START,
    STRANGER,
    history_database,
    place,
    put_messages,
    rows,
    say,
    values,
)

TURN = Turn("hello", Reply("hi", {"model": "none"}))


@pytest.fixture
def world(database_url: str) -> Iterator[DatabaseService]:
    with closing(history_database(database_url)) as database:
        yield database


def history(database: DatabaseService, known: Place | None = None, **changes: Any) -> ThreadHistory:
    return ThreadHistory(database, APP, AGENT, "T1", known or place(), **changes)


def texts(found: Any) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in found]


def moving_to(database: DatabaseService, mode: str | None, *, at: str | None = None) -> None:
    changed = update(AgentRow).where(AgentRow.name == AGENT).values(moving_to=mode, history_mode=at)
    database.run(lambda session: session.execute(changed))


@pytest.mark.parametrize("mode", [SHARED, INDEPENDENT])
def test_a_turn_is_stored_whole_and_in_its_order(world: DatabaseService, mode: str) -> None:
    mine = history(world, place(mode))
    mine.add("tool", "42", {"tool": "t"})
    mine.add("system", "noted")
    assert world.run(lambda session: mine.store(session, TURN)) is True
    found = history(world, place(mode)).recent()
    assert texts(found) == [("user", "hello"), ("tool", "42"), ("system", "noted"), ("assistant", "hi")]
    times = [one.created_at for one in found]
    # Told by their times alone: ids of another process may sort among these.
    assert times == sorted(set(times))
    assert [one.metadata for one in found] == [None, {"tool": "t"}, None, {"model": "none"}]
    assert world.run(lambda session: history(world, place(mode)).store(session, TURN)) is False


def test_messages_of_one_microsecond_keep_their_order(world: DatabaseService) -> None:
    """The clock stands still, and one process's clock is an hour behind: a later turn still sorts after the first."""
    for number in range(30):
        clock = (lambda: START) if number % 2 == 0 else (lambda: START - timedelta(hours=1))
        mine = history(world, now=clock)
        world.run(lambda session: mine.store(session, Turn(f"{number}", Reply(f"re {number}"))))  # noqa: B023
    expected = [text for number in range(30) for text in (f"{number}", f"re {number}")]
    for _ in range(3):
        assert [one.content for one in history(world).recent(200)] == expected
    times = [one.created_at for one in history(world).recent(200)]
    assert times == sorted(times)


def test_rows_of_the_very_same_time_are_ordered_by_their_ids(world: DatabaseService) -> None:
    put_messages(world, SHARED, 40, every_us=0)
    assert [one.id for one in history(world).recent(5)] == [36, 37, 38, 39, 40]


def test_the_newest_are_read_and_the_oldest_of_them_comes_first(world: DatabaseService) -> None:
    put_messages(world, SHARED, 250)
    assert [one.id for one in history(world).recent()] == list(range(231, 251))
    assert [one.id for one in history(world).recent(200)] == list(range(51, 251))
    assert [one.id for one in history(world).recent(1)] == [250]
    for limit in (0, 201, -1):
        with pytest.raises(ValueError, match="between 1 and 200"):
            history(world).recent(limit)


def test_one_thread_id_in_two_apps_and_two_agents_is_four_threads(world: DatabaseService) -> None:
    known = {app_agent: f"{app_agent}" for app_agent in ((APP, AGENT), (APP, STRANGER), (OTHER_APP, AGENT))}
    for (app_id, agent), text in known.items():
        assert say(world, text, app_id=app_id, agent=agent) is True
    for (app_id, agent), text in known.items():
        found = ThreadHistory(world, app_id, agent, "T1", place()).recent()
        assert [one.content for one in found] == [text, f"re: {text}"]
    with world.reads() as session:
        assert history(world).exists(session)
        assert not ThreadHistory(world, OTHER_APP, STRANGER, "T1", place()).exists(session)


def test_during_a_move_a_turn_goes_to_both_tables_with_the_same_ids(world: DatabaseService) -> None:
    moving_to(world, INDEPENDENT)
    say(world, "both")
    assert len(rows(world, SHARED)) == 2
    assert values(rows(world, SHARED)) == values(rows(world, INDEPENDENT))


def test_the_row_decides_where_a_turn_goes_not_what_a_function_remembers(world: DatabaseService) -> None:
    moving_to(world, None, at=INDEPENDENT)
    say(world, "moved", known=place(SHARED))
    assert rows(world, SHARED) == []
    assert len(rows(world, INDEPENDENT)) == 2
    moving_to(world, None, at=SHARED)
    say(world, "moved back", known=place(INDEPENDENT, SHARED))
    assert len(rows(world, SHARED)) == 2
    assert len(rows(world, INDEPENDENT)) == 2


def test_an_agent_that_was_never_migrated_stores_where_it_says(world: DatabaseService) -> None:
    world.run(lambda session: session.execute(delete(AgentRow)))
    say(world, "early", known=place(INDEPENDENT))
    assert len(rows(world, INDEPENDENT)) == 2


def test_without_the_model_that_the_row_names_nothing_is_stored(world: DatabaseService) -> None:
    lacking = Place({SHARED: MODELS[SHARED]}, SHARED)
    for mode in ({"mode": INDEPENDENT}, {"mode": None, "at": INDEPENDENT}):
        moving_to(world, **mode)
        with pytest.raises(Unavailable) as caught:
            say(world, "lost", known=lacking)
        assert caught.value.code == "agent.history_missing"
    assert rows(world, SHARED) == rows(world, INDEPENDENT) == []


def test_a_turn_that_fails_half_way_leaves_nothing(world: DatabaseService) -> None:
    class Stop(Exception):
        pass

    def work(session: Any) -> None:
        history(world).store(session, TURN)
        raise Stop

    with pytest.raises(Stop):
        world.run(work)
    assert rows(world, SHARED) == []


def test_writers_of_one_thread_lose_nothing(world: DatabaseService) -> None:
    def talk(who: int) -> None:
        service = DatabaseService(world.database_url)
        for number in range(10):
            say(service, f"{who}.{number}")
        service.close()

    writers = [threading.Thread(target=talk, args=(who,)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = history(world).recent(200)
    assert len(found) == 60
    for who in range(3):
        mine = [one.content for one in found if one.content.startswith(f"{who}.")]
        assert mine == [f"{who}.{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("role", "content", "metadata"),
    [
        ("", "x", None),
        ("r" * 51, "x", None),
        ("r", None, None),
        ("r", "\ud800", None),
        ("\ud800", "x", None),
        ("r", "x", {"n": float("nan")}),
        ("r", "x", {"n": object()}),
        ("r", "x", {"n": "\ud800"}),
        ("r", "x", {"n": "x" * (64 * 1024)}),
        ("r", "x", [1]),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_added(role: str, content: Any, metadata: Any) -> None:
    mine = ThreadHistory(None, APP, AGENT, "T1", place())  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        mine.add(role, content, metadata)


def test_content_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, world: DatabaseService) -> None:
    monkeypatch.setattr(thread_module, "MAX_CONTENT_BYTES", 10)
    mine = history(world)
    mine.add("tool", "ż" * 5)
    with pytest.raises(ValueError, match="10 bytes"):
        mine.add("tool", "ż" * 5 + "x")
    with pytest.raises(Invalid) as asked:
        world.run(lambda session: mine.store(session, Turn("x" * 11, Reply("y"))))
    assert asked.value.code == "agent.message_invalid"
    with pytest.raises(UpstreamFailed) as answered:
        world.run(lambda session: mine.store(session, Turn("x", Reply("y" * 11))))
    assert answered.value.code == "agent.reply_invalid"


def test_a_turn_has_a_bounded_number_of_messages() -> None:
    mine = ThreadHistory(None, APP, AGENT, "T1", place())  # type: ignore[arg-type]
    for _ in range(100):
        mine.add("tool", "x")
    with pytest.raises(ValueError, match="at most 100"):
        mine.add("tool", "x")


def test_the_longest_content_passes_the_wire(world: DatabaseService) -> None:
    """Every byte of it is escaped on the way."""
    text = "'" * thread_module.MAX_CONTENT_BYTES
    moving_to(world, INDEPENDENT)
    world.run(lambda session: history(world).store(session, Turn(text, Reply("y"))))
    assert rows(world, INDEPENDENT)[0].content == text
