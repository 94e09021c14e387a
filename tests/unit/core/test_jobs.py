from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.core import jobs, leases, steps
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.jobs import Action, Job, JobRun, Plan, Runner
from tests.conftest import create_schema

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    service = create_schema(sqlite_url)
    yield service
    service.close()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runner(database: DatabaseService, clock: Clock) -> Runner:
    return Runner(database, deadline_s=30, now=clock)


def action(target: str, work: Callable[[], bool]) -> Action:
    return Action("do", target, work)


def job_of(*actions: Action, **options: Any) -> Job:
    return Job("sample", "A sample", 60, lambda _: Plan(tuple(actions), **options))


def once(done: list[str], name: str) -> Action:
    def work() -> bool:
        done.append(name)
        return False

    return action(name, work)


def run_row(database: DatabaseService) -> JobRun | None:
    with database.reads() as session:
        return session.get(JobRun, "sample")


def held(database: DatabaseService, now: datetime) -> bool:
    with database.reads() as session:
        return leases.is_held(session, "job/sample", now)


def test_a_run_does_its_actions_in_order_and_says_so(runner: Runner, database: DatabaseService) -> None:
    done: list[str] = []
    report = runner.run(job_of(once(done, "a"), once(done, "b"), more=True))
    assert done == ["a", "b"]
    assert report.pop("tookMs") >= 0
    assert report == {
        "job": "sample",
        "dryRun": False,
        "skipped": None,
        "planned": 2,
        "plan": [
            {"action": "do", "target": "a", "count": 1},
            {"action": "do", "target": "b", "count": 1},
        ],
        "more": True,
        "done": 2,
        "failed": 0,
        "left": 0,
        "failures": [],
    }
    assert not held(database, NOW)


def test_a_preview_does_nothing_and_needs_no_lease(runner: Runner, database: DatabaseService) -> None:
    done: list[str] = []
    database.run(lambda session: leases.acquire(session, "job/sample", "another", 60, NOW))
    report = runner.preview(job_of(once(done, "a")))
    assert (report["dryRun"], report["planned"], report["done"], report["left"]) == (True, 1, 0, 0)
    assert done == []
    assert run_row(database) is None


def test_an_action_is_continued_batch_by_batch_until_it_has_no_more(runner: Runner) -> None:
    left = [3]

    def work() -> bool:
        left[0] -= 1
        return left[0] > 0

    assert runner.run(job_of(action("rows", work)))["done"] == 1
    assert left == [0]


def test_a_held_lease_skips_the_job(runner: Runner, database: DatabaseService) -> None:
    done: list[str] = []
    database.run(lambda session: leases.acquire(session, "job/sample", "another", 60, NOW))
    report = runner.run(job_of(once(done, "a")))
    assert report["skipped"] == "running"
    assert (report["planned"], report["done"], done) == (0, 0, [])


def test_a_killed_runner_blocks_its_job_for_a_minute_at_most(
    runner: Runner, database: DatabaseService, clock: Clock
) -> None:
    class Killed(BaseException):
        pass

    def die(_operation: str, name: str) -> None:
        if name == "finish":
            raise Killed

    done: list[str] = []
    before = steps.observe(die)
    with pytest.raises(Killed):
        runner.run(job_of(once(done, "first")))
    steps.observe(before)
    assert runner.run(job_of(once(done, "early")))["skipped"] == "running"
    clock.now += timedelta(seconds=60)
    assert runner.run(job_of(once(done, "late")))["skipped"] is None
    assert done == ["first", "late"]


def test_one_failing_action_does_not_keep_the_job_from_the_others(runner: Runner) -> None:
    done: list[str] = []

    def away() -> bool:
        raise Unavailable("The object store cannot be reached.", code="storage.away")

    def crash() -> bool:
        raise KeyError("secret-value")

    report = runner.run(job_of(action("x", away), action("y", crash), once(done, "z")))
    assert done == ["z"]
    assert (report["done"], report["failed"], report["left"]) == (1, 2, 0)
    assert report["failures"] == [
        {"action": "do", "target": "x", "code": "storage.away"},
        {"action": "do", "target": "y", "code": "internal"},
    ]


def test_a_server_that_is_away_ends_the_run_after_twenty_failures(runner: Runner) -> None:
    tried: list[str] = []

    def away(name: str) -> Action:
        def work() -> bool:
            tried.append(name)
            raise Unavailable("away", code="storage.away")

        return action(name, work)

    report = runner.run(job_of(*(away(str(number)) for number in range(50))))
    assert len(tried) == report["failed"] == jobs.MOST_FAILURES == 20
    assert report["left"] == 30


def test_no_batch_begins_after_the_deadline(database: DatabaseService) -> None:
    done: list[str] = []
    report = Runner(database, deadline_s=0, now=lambda: NOW).run(
        job_of(once(done, "a"), state={"after": "k"})
    )
    assert (done, report["done"], report["left"]) == ([], 0, 1)
    row = run_row(database)
    assert row is not None
    # The next plan begins where this one did: nothing was done with what it saw.
    assert row.state == {}


def test_a_lost_lease_stops_the_run_and_leaves_the_winners_row(
    runner: Runner, database: DatabaseService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RENEW_AFTER_S", 0)
    done: list[str] = []

    def lose() -> bool:
        clock.now += timedelta(seconds=61)
        assert database.run(lambda session: leases.acquire(session, "job/sample", "b", 60, clock.now))
        return False

    report = runner.run(job_of(action("slow", lose), once(done, "after")))
    assert (report["done"], report["left"], done) == (1, 1, [])
    assert run_row(database) is None
    assert held(database, clock.now)


def test_a_lease_in_use_is_renewed(
    runner: Runner, database: DatabaseService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RENEW_AFTER_S", 0)
    seen: list[bool] = []

    def slow() -> bool:
        clock.now += timedelta(seconds=40)
        seen.append(held(database, clock.now))
        return len(seen) < 5

    assert runner.run(job_of(action("slow", slow)))["done"] == 1
    assert seen == [True] * 5


def test_a_plan_that_fails_gives_the_lease_back(runner: Runner, database: DatabaseService) -> None:
    def plan(_: Mapping[str, Any]) -> Plan:
        raise Unavailable("The object store cannot be reached.", code="storage.away")

    with pytest.raises(Unavailable):
        runner.run(Job("sample", "A sample", 60, plan))
    assert not held(database, NOW)


def test_the_state_is_kept_for_the_next_plan(runner: Runner, database: DatabaseService) -> None:
    seen: list[dict[str, Any]] = []

    def plan(state: Mapping[str, Any]) -> Plan:
        seen.append(dict(state))
        return Plan(state={"after": len(seen)})

    job = Job("sample", "A sample", 60, plan)
    runner.run(job)
    runner.run(job)
    runner.preview(job)
    runner.preview(job)
    assert seen == [{}, {"after": 1}, {"after": 2}, {"after": 2}]


def test_a_plan_is_shown_up_to_a_bound_and_counted_whole(runner: Runner) -> None:
    report = runner.preview(job_of(*(once([], str(number)) for number in range(150))))
    assert (report["planned"], len(report["plan"])) == (150, 100)


def test_jobs_are_described_with_their_latest_run(
    runner: Runner, database: DatabaseService, clock: Clock
) -> None:
    job = job_of(once([], "a"))

    def described() -> dict[str, Any]:
        with database.reads() as session:
            return jobs.describe_jobs(session, [job], clock.now)[0]

    assert described() == {
        "job": "sample",
        "summary": "A sample",
        "everySeconds": 60,
        "running": False,
        "lastRun": None,
    }
    runner.run(job)
    last = described()["lastRun"]
    assert last.pop("tookMs") >= 0
    assert last == {
        "startedAt": "2026-01-02T03:04:05.000000Z",
        "finishedAt": "2026-01-02T03:04:05.000000Z",
        "planned": 1,
        "more": False,
        "done": 1,
        "failed": 0,
        "left": 0,
        "failures": [],
    }
    database.run(lambda session: leases.acquire(session, "job/sample", "another", 60, clock.now))
    assert described()["running"]
