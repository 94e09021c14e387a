"""Moves of a history: nothing lost and nothing twice, whoever writes, deletes, calls off or is killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from chalicelib.agents.history import threads
from chalicelib.agents.history.place import Place
from chalicelib.agents.models import INDEPENDENT, SHARED, AgentMove, AgentRow
from chalicelib.agents.moves import service, tables
from chalicelib.agents.moves.job import move_jobs
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheVersion
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound
from chalicelib.core.jobs import Runner
from chalicelib.core.representation import entity_tag
from tests.history_rows import (
    AGENT,
    APP,
    CALLER,
    MODELS,
    OTHER_APP,
    STRANGER,
    history_database,
    page,
    place,
    put_messages,
    rows,
    say,
    values,
)

ROOT = Path(__file__).resolve().parents[2]
DIRECTIONS = pytest.mark.parametrize(("source", "target"), [(SHARED, INDEPENDENT), (INDEPENDENT, SHARED)])
DAY = timedelta(days=1)


@dataclass
class World:
    """One agent's history, and a clock that only moves when it is told to."""

    database: DatabaseService
    declared: str = SHARED
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def place(self) -> Place:
        with self.database.reads() as session:
            row = session.get(AgentRow, AGENT)
        if row is None:
            return place(self.declared)
        return place(row.history_mode or self.declared, row.moving_to)

    def begin(self, target: str, **options: Any) -> str:
        here = place(self.declared)
        made = self.database.run(
            lambda session: service.begin(session, CALLER, AGENT, here, target, **options)
        )
        return str(made["moveId"])

    def cancel(self, move_id: str) -> None:
        self.database.run(lambda session: service.cancel(session, CALLER, AGENT, move_id))

    def run(self, name: str = "move_agents", *, deadline_s: float = 120) -> dict[str, Any]:
        jobs = move_jobs(self.database, lambda _: place(self.declared), lambda: self.now)
        [found] = [one for one in jobs if one.name == name]
        return Runner(self.database, deadline_s=deadline_s, now=lambda: self.now).run(found)

    def move(self, move_id: str) -> dict[str, Any]:
        with self.database.reads() as session:
            return service.get_move(session, AGENT, move_id)

    def mine(self, mode: str) -> list[Any]:
        return values([row for row in rows(self.database, mode) if mode != SHARED or row.agent_name == AGENT])

    def delete(self, thread: str) -> None:
        here = self.place()
        threads.shorten_thread(self.database, here, APP, AGENT, thread)
        self.database.run(lambda session: threads.delete_thread(session, CALLER, here, AGENT, thread))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with closing(history_database(database_url)) as database:
        yield World(database)


def put_both(world: World, mode: str, count: int) -> None:
    """Messages of the agent in two apps, among those of another agent."""
    put_messages(world.database, mode, count)
    put_messages(world.database, mode, 7, app_id=OTHER_APP, first_id=10**6)
    put_messages(world.database, SHARED, 9, agent=STRANGER, first_id=2 * 10**6)


@DIRECTIONS
@pytest.mark.parametrize("count", [0, 493, 1300])
def test_a_history_moves_as_it_is(world: World, source: str, target: str, count: int) -> None:
    world.declared = source
    if count:
        put_both(world, source, count)
    strangers = [row.id for row in rows(world.database, SHARED) if row.agent_name == STRANGER]
    before = world.mine(source)
    move_id = world.begin(target)
    shown = world.move(move_id)
    assert (shown["state"], shown["total"], shown["copied"]) == ("copying", len(before), 0)
    assert world.run()["failures"] == []
    shown = world.move(move_id)
    assert (shown["state"], shown["copied"], shown["verified"]) == ("done", len(before), len(before))
    assert shown["sourceDigest"] == shown["targetDigest"] is not None
    assert world.mine(source) == world.mine(target) == before
    assert [row.id for row in rows(world.database, SHARED) if row.agent_name == STRANGER] == strangers
    assert world.place() == place(target)
    say(world.database, "after", known=place(source))
    assert (len(world.mine(source)), len(world.mine(target))) == (len(before), len(before) + 2)


def test_a_message_stored_during_a_move_is_in_both_and_once(world: World) -> None:
    put_both(world, SHARED, 20)
    move_id = world.begin(INDEPENDENT)
    say(world.database, "between")
    assert world.run()["failures"] == []
    assert world.move(move_id)["verified"] == 29
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(SHARED)) == 29


def test_a_deleted_thread_does_not_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted while the copy goes on, before it reached the thread and after."""
    monkeypatch.setattr(tables, "BATCH", 10)
    for number in range(4):
        put_messages(world.database, SHARED, 20, thread=f"T{number}", first_id=1 + 20 * number)
    move_id = world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    for _ in range(3):
        assert action.work()
    world.delete("T0")
    world.delete("T2")
    assert world.run()["failures"] == []
    assert world.move(move_id)["state"] == "done"
    assert {row.thread_id for row in rows(world.database, INDEPENDENT)} == {"T1", "T3"}
    world.delete("T1")
    # Also from what is kept: a move back must not bring it back.
    assert {row.thread_id for row in rows(world.database, SHARED)} == {"T3"}


def test_the_bump_tells_warm_functions(world: World) -> None:
    def version() -> int:
        with world.database.reads() as session:
            return session.scalars(select(CacheVersion.version).where(CacheVersion.scope == "agents")).one()

    seen = [version()]
    move_id = world.begin(INDEPENDENT)
    seen.append(version())
    world.cancel(move_id)
    seen.append(version())
    world.begin(INDEPENDENT)
    seen.append(version())
    world.run()
    seen.append(version())
    assert seen == [seen[0] + number for number in range(5)]


# -- what begins, and what does not ----------------------------------------------------------------------------------


def refused(work: Any) -> HotplugError:
    with pytest.raises(HotplugError) as caught:
        work()
    return caught.value


def test_what_cannot_be_moved_is_refused(world: World) -> None:
    def begin(known: Place | None, target: str = INDEPENDENT, agent: str = AGENT, days: int = 7) -> Any:
        return world.database.run(lambda session: service.begin(session, CALLER, agent, known, target, days))

    def code(*arguments: Any, **options: Any) -> tuple[type, str]:
        error = refused(lambda: begin(*arguments, **options))
        return type(error), error.code

    assert code(None) == (NotFound, "agent.no_history")
    assert code(Place({SHARED: MODELS[SHARED]}, SHARED)) == (Conflict, "agent.move_impossible")
    assert code(place(), agent="unmigrated") == (Conflict, "agent.move_impossible")
    assert code(place(), SHARED) == (Conflict, "agent.move_pointless")
    assert code(place(INDEPENDENT)) == (Conflict, "agent.move_pointless")
    for days in (-1, 366):
        assert code(place(), days=days) == (Invalid, "agent.move_keep_days")
    same = Place({SHARED: MODELS[SHARED], INDEPENDENT: MODELS[SHARED]}, SHARED)
    assert code(same) == (Conflict, "agent.move_impossible")
    begin(place())
    assert code(place()) == (Conflict, "agent.move_active")
    assert code(place(), SHARED) == (Conflict, "agent.move_active")


@pytest.mark.parametrize("other", ["extra", "narrow", "nullable"])
def test_tables_whose_columns_differ_are_no_pair(world: World, other: str) -> None:
    from sqlalchemy import Column, MetaData, String, Text

    table = MODELS[INDEPENDENT].__table__.to_metadata(MetaData())
    if other == "extra":
        table.append_column(Column("rating", String(5), nullable=True))
    elif other == "narrow":
        table.append_column(Column("thread_id", String(64), nullable=False), replace_existing=True)
    else:
        table.append_column(Column("content", Text(), nullable=True), replace_existing=True)
    model = type("Other", (), {"__table__": table, "__tablename__": table.name})
    known = Place({SHARED: MODELS[SHARED], INDEPENDENT: model}, SHARED)
    error = refused(
        lambda: world.database.run(lambda session: service.begin(session, CALLER, AGENT, known, INDEPENDENT))
    )
    assert error.code == "agent.move_impossible"


def test_rows_that_no_move_has_put_there_are_not_taken_for_copies(world: World) -> None:
    put_messages(world.database, INDEPENDENT, 1)
    assert refused(lambda: world.begin(INDEPENDENT)).code == "agent.move_conflict"
    assert world.place() == place()
    assert len(rows(world.database, INDEPENDENT)) == 1


def test_moves_are_listed_newest_first_and_audited(world: World) -> None:
    made = []
    for _ in range(3):
        made.append(world.begin(INDEPENDENT, keep_days=3))
        world.cancel(made[-1])
    world.cancel(made[-1])
    with world.database.reads() as session:
        first = service.list_moves(session, AGENT, page(2))
        second = service.list_moves(session, AGENT, page(2, first["nextCursor"]))
        assert service.list_moves(session, STRANGER, page())["items"] == []
        actions = [row.action for row in session.scalars(select(AuditLog).order_by(AuditLog.id))]
    assert sorted(one["moveId"] for one in first["items"] + second["items"]) == sorted(made)
    assert first["items"][0]["moveId"] == max(made)
    assert actions == ["agent.move", "agent.move_cancel"] * 3
    assert first["items"][0] == world.move(max(made))
    assert first["items"][0]["state"] == "cancelled"
    assert first["items"][0]["keepUntil"] is None


def test_a_move_that_is_not_there_or_over_cannot_be_called_off(world: World) -> None:
    move_id = world.begin(INDEPENDENT)
    world.run()
    assert refused(lambda: world.cancel(move_id)).code == "agent.move_finished"
    assert refused(lambda: world.cancel("0" * 26)).code == "agent.move_not_found"
    assert refused(lambda: world.move("0" * 26)).code == "agent.move_not_found"

    def of_another(session: Any) -> None:
        service.cancel(session, CALLER, STRANGER, move_id)

    assert refused(lambda: world.database.run(of_another)).code == "agent.move_not_found"


def test_a_move_is_called_off_by_who_saw_how_far_it_is(world: World) -> None:
    move_id = world.begin(INDEPENDENT)
    seen = entity_tag(world.move(move_id))
    world.database.run(
        lambda session: session.execute(update(AgentMove).where(AgentMove.id == move_id).values(copied=1))
    )

    def call_off(tag: str) -> None:
        world.database.run(lambda session: service.cancel(session, CALLER, AGENT, move_id, tag))

    assert refused(lambda: call_off(seen)).code == "precondition.failed"
    assert world.move(move_id)["state"] == "copying"
    call_off(entity_tag(world.move(move_id)))
    assert world.move(move_id)["state"] == "cancelled"


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "foreign"),
    [
        (INDEPENDENT, SHARED, {"agent": STRANGER}),
        (INDEPENDENT, SHARED, {"agent": STRANGER, "app_id": OTHER_APP}),
    ],
)
def test_a_foreign_row_under_the_same_id_is_not_overwritten(
    world: World, source: str, target: str, foreign: dict[str, Any]
) -> None:
    world.declared = source
    put_messages(world.database, source, 600)
    put_messages(world.database, target, 1, first_id=550, thread="foreign", **foreign)
    move_id = world.begin(target)
    assert world.run()["failures"] == []
    shown = world.move(move_id)
    assert (shown["state"], shown["error"]) == ("failed", "agent.move_conflict")
    assert world.place() == place(source)
    world.run("purge_moved")
    assert [row.thread_id for row in rows(world.database, target)] == ["foreign"]
    assert len(rows(world.database, source)) == 600


def test_a_foreign_app_in_ones_own_table_is_a_conflict_too(world: World) -> None:
    put_messages(world.database, SHARED, 10)
    world.begin(INDEPENDENT)
    put_messages(world.database, INDEPENDENT, 1, app_id=OTHER_APP, first_id=5)
    world.run()
    [move] = world.database.run(lambda session: service.list_moves(session, AGENT, page()))["items"]
    assert (move["state"], move["error"]) == ("failed", "agent.move_conflict")


def damage(world: World, kind: str) -> None:
    """Change the target behind the move's back."""
    model: Any = MODELS[INDEPENDENT]
    # Nothing else may tell.
    row = update(model).where(model.id == 8).values(updated_at=model.updated_at)
    if kind == "changed":
        work: Any = row.values(content="forged")
    elif kind == "time":
        work = row.values(created_at=datetime(2020, 1, 1, tzinfo=UTC))
    elif kind == "metadata":
        work = row.values(extra_metadata=None)
    else:
        work = model.__table__.delete().where(model.id == 8)
    world.database.run(lambda session: session.execute(work))


@pytest.mark.parametrize(
    ("kind", "count"),
    [("changed", 20), ("time", 20), ("metadata", 20), ("missing", 1200), ("surplus", 20), ("many", 1200)],
)
def test_what_differs_is_copied_once_more(world: World, kind: str, count: int) -> None:
    put_messages(world.database, SHARED, count)
    move_id = world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    while world.move(move_id)["state"] == "copying":
        action.work()
    if kind in ("surplus", "many"):
        put_messages(world.database, INDEPENDENT, 1 if kind == "surplus" else 1300, first_id=10**7)
    else:
        damage(world, kind)
    assert world.run()["failures"] == []
    assert world.move(move_id)["state"] == "done"
    assert world.mine(SHARED) == world.mine(INDEPENDENT)


def test_what_still_differs_fails_the_move(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_messages(world.database, SHARED, 20)
    move_id = world.begin(INDEPENDENT)
    align = tables.align
    copied: list[int] = []

    def damaging(session: Any, pair: Any, part: Any, differing: Any = ()) -> bool:
        done = align(session, pair, part, differing)
        changed = update(pair.target).where(pair.target.id == 7).values(content="forged")
        session.execute(changed)
        copied.append(len(differing))
        return done

    monkeypatch.setattr(tables, "align", damaging)
    assert world.run()["failures"] == []
    shown = world.move(move_id)
    assert (shown["state"], shown["error"], shown["finishedAt"] is None) == (
        "failed",
        "agent.move_mismatch",
        False,
    )
    assert copied == [0, 1]
    assert world.place() == place()
    world.run("purge_moved")
    assert rows(world.database, INDEPENDENT) == []


def test_counts_that_differ_at_the_end_fail_the_move(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row behind what was compared, which no rule of ours could have made."""
    monkeypatch.setattr(tables, "BATCH", 10)
    put_messages(world.database, SHARED, 20, first_id=100)
    move_id = world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    while world.move(move_id)["verified"] < 10:
        action.work()
    put_messages(world.database, INDEPENDENT, 1, first_id=1)
    world.run()
    assert world.move(move_id)["error"] == "agent.move_mismatch"
    assert world.place() == place()


def test_a_move_of_an_agent_that_is_not_loaded_waits(world: World) -> None:
    put_messages(world.database, SHARED, 3)
    move_id = world.begin(INDEPENDENT)
    for known, code in ((None, "agent.not_loaded"), (Place({}, SHARED), "agent.history_missing")):
        jobs = move_jobs(world.database, lambda _: known, lambda: world.now)  # noqa: B023
        report = Runner(world.database, deadline_s=60, now=lambda: world.now).run(jobs[0])
        assert [one["code"] for one in report["failures"]] == [code]
    assert world.move(move_id)["state"] == "copying"
    assert world.run()["failures"] == []
    assert world.move(move_id)["state"] == "done"


def test_a_large_source_is_counted_by_the_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "COUNTED", 10)
    put_both(world, SHARED, 30)
    move_id = world.begin(INDEPENDENT)
    assert world.move(move_id)["total"] == 10
    world.run()
    assert world.move(move_id)["total"] == 37


def test_long_messages_go_in_smaller_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_BYTES", 100)
    put_messages(world.database, SHARED, 30)
    world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    action.work()
    assert 0 < len(rows(world.database, INDEPENDENT)) <= 6
    assert world.run()["failures"] == []
    assert world.mine(SHARED) == world.mine(INDEPENDENT)


# -- what is left behind ---------------------------------------------------------------------------------------------


@DIRECTIONS
def test_the_source_is_kept_and_then_goes(world: World, source: str, target: str) -> None:
    world.declared = source
    put_both(world, source, 600)
    before = world.mine(source)
    move_id = world.begin(target, keep_days=7)
    world.run()
    assert world.move(move_id)["keepUntil"] is not None
    world.now += 7 * DAY - timedelta(seconds=1)
    assert world.run("purge_moved")["planned"] == 0
    assert world.mine(source) == before
    world.now += timedelta(seconds=1)
    report = world.run("purge_moved")
    assert [(one["action"], one["count"]) for one in report["plan"]] == [("purge", len(before))]
    assert world.mine(source) == []
    assert world.mine(target) == before
    assert len([row for row in rows(world.database, SHARED) if row.agent_name == STRANGER]) == 9
    assert world.move(move_id)["keepUntil"] is None
    assert world.run("purge_moved")["planned"] == 0


def test_what_came_to_the_source_after_the_move_is_not_purged(world: World) -> None:
    """An agent may keep rows of its own in a shared table, beside its history."""
    put_messages(world.database, SHARED, 10)
    world.begin(INDEPENDENT, keep_days=0)
    world.run()
    put_messages(world.database, SHARED, 2, first_id=10**6)
    world.run("purge_moved")
    assert [row.id for row in rows(world.database, SHARED)] == [10**6, 10**6 + 1]


def test_back_and_forth_before_and_after_the_purge(world: World) -> None:
    """The kept rows are the new target: what is there already stays, what was retired from the live table goes."""
    put_messages(world.database, SHARED, 1100)
    world.begin(INDEPENDENT)
    world.run()
    say(world.database, "there")
    model: Any = MODELS[INDEPENDENT]
    retired = model.__table__.delete().where(model.id <= 550)
    world.database.run(lambda session: session.execute(retired))
    back = world.begin(SHARED)
    world.run()
    assert world.move(back)["state"] == "done"
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(SHARED)) == 552
    # The first move's source is live again: whatever was to become of it, it stays.
    world.now += 8 * DAY
    world.run("purge_moved")
    assert len(world.mine(SHARED)) == 552
    assert world.mine(INDEPENDENT) == []
    again = world.begin(INDEPENDENT)
    world.run()
    assert world.move(again)["state"] == "done"
    assert world.mine(SHARED) == world.mine(INDEPENDENT)


def test_what_is_kept_is_kept_for_its_own_moves_days(world: World) -> None:
    """There, back, and there again: the day that the first move's source was to go on is nobody's any more."""
    put_messages(world.database, SHARED, 10)
    for target in (INDEPENDENT, SHARED, INDEPENDENT):
        world.begin(target, keep_days=7)
        world.run()
        world.now += 2 * DAY
    world.now += 2 * DAY
    world.run("purge_moved")
    assert len(world.mine(SHARED)) == 10
    world.now += 3 * DAY
    world.run("purge_moved")
    assert world.mine(SHARED) == []


def test_a_version_deployed_meanwhile_that_names_the_other_model_changes_nothing(world: World) -> None:
    put_messages(world.database, SHARED, 10)
    world.begin(INDEPENDENT)
    world.declared = INDEPENDENT
    assert world.place() == place(SHARED, INDEPENDENT)
    say(world.database, "meanwhile", known=place(INDEPENDENT))
    assert world.run()["failures"] == []
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(SHARED)) == 12


def test_a_source_that_is_live_again_is_never_purged(world: World) -> None:
    """Not even if the row of the earlier move were still due."""
    put_messages(world.database, SHARED, 10)
    first = world.begin(INDEPENDENT, keep_days=0)
    world.run()
    world.begin(SHARED, keep_days=1)
    due = update(AgentMove).where(AgentMove.id == first).values(keep_until=world.now)
    world.database.run(lambda session: session.execute(due))
    world.run("purge_moved")
    assert len(world.mine(SHARED)) == 10
    world.run()
    world.database.run(lambda session: session.execute(due))
    world.run("purge_moved")
    assert len(world.mine(SHARED)) == 10
    assert world.place() == place(SHARED)


def test_what_a_cancelled_move_has_copied_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH", 100)
    put_messages(world.database, SHARED, 500)
    move_id = world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    for _ in range(3):
        action.work()
    say(world.database, "both")
    world.cancel(move_id)
    assert action.work() is False
    say(world.database, "only in the source")
    assert len(world.mine(INDEPENDENT)) == 302
    world.now += timedelta(seconds=5)
    assert world.run("purge_moved")["failures"] == []
    assert world.mine(INDEPENDENT) == []
    assert len(world.mine(SHARED)) == 504


def test_a_move_after_a_cancelled_one_takes_its_copies_over(world: World) -> None:
    put_messages(world.database, SHARED, 1200)
    first = world.begin(INDEPENDENT)
    jobs = move_jobs(world.database, lambda _: place(), lambda: world.now)
    [action] = jobs[0].plan({}).actions
    action.work()
    world.cancel(first)
    world.delete("T1")
    put_messages(world.database, SHARED, 30, first_id=5001, thread="T2")
    second = world.begin(INDEPENDENT)
    world.now += timedelta(seconds=5)
    world.run("purge_moved")
    world.run()
    assert world.move(second)["state"] == "done"
    assert world.mine(SHARED) == world.mine(INDEPENDENT)
    assert len(world.mine(INDEPENDENT)) == 30
