from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, Invalid, NotFound, Unavailable
from chalicelib.core.idempotency import run_once
from chalicelib.core.idempotency_record import IdempotencyRecord

Complete = Callable[[Session, dict[str, Any]], None]


class Killed(BaseException):
    """The process is gone: nothing of ours runs after it."""


class Work:
    """Counts how often it runs; each run is one unit of work that stores its answer."""

    def __init__(self, database: DatabaseService) -> None:
        self.database = database
        self.runs = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def __call__(self, complete: Complete) -> dict[str, Any]:
        self.runs += 1
        self.before()
        answer = {"run": self.runs}
        self.database.run(lambda session: complete(session, answer))
        self.after()
        return answer


def once(
    work: Callable[[Complete], dict[str, Any]],
    database: DatabaseService,
    *,
    key: str = "k",
    digest: str = "d",
    remaining_ms: int = 29_000,
) -> tuple[dict[str, Any], bool]:
    return run_once(
        database,
        key=["7", "POST", "/x", key],
        payload_digest=digest,
        remaining_ms=lambda: remaining_ms,
        work=work,
    )


def records(database: DatabaseService) -> list[IdempotencyRecord]:
    with database.reads() as session:
        return list(session.scalars(select(IdempotencyRecord)))


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_the_second_call_gets_the_stored_answer(database: DatabaseService) -> None:
    work = Work(database)
    assert once(work, database) == ({"run": 1}, False)
    assert once(work, database) == ({"run": 1}, True)
    assert once(work, database, key="other") == ({"run": 2}, False)


def test_the_key_is_stored_as_a_digest_for_a_day(database: DatabaseService) -> None:
    once(Work(database), database, key="person@example.org")
    [row] = records(database)
    assert "example" not in row.id
    assert len(row.id) <= 128
    assert row.in_progress_until_ms is not None
    assert 86_000 < row.expires_at - row.in_progress_until_ms / 1000 + 29 < 86_500


def test_another_request_under_the_key_is_refused(database: DatabaseService) -> None:
    work = Work(database)
    once(work, database)
    with pytest.raises(Invalid) as refused:
        once(work, database, digest="e")
    assert (refused.value.code, work.runs) == ("idempotency.key_reused", 1)


def test_an_error_frees_the_key(database: DatabaseService) -> None:
    work = Work(database)
    work.before = raising(NotFound("No."))
    with pytest.raises(NotFound):
        once(work, database)
    assert records(database) == []
    work.before = lambda: None
    assert once(work, database) == ({"run": 2}, False)


def test_an_error_after_the_commit_does_not_free_the_key(database: DatabaseService) -> None:
    work = Work(database)
    work.after = raising(ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        once(work, database)
    assert once(work, database) == ({"run": 1}, True)


def test_a_unit_that_is_rolled_back_stores_no_answer(database: DatabaseService) -> None:
    def work(complete: Complete) -> dict[str, Any]:
        def unit(session: Session) -> None:
            complete(session, {"never": True})
            raise NotFound("Rolled back.")

        database.run(unit)
        return {}

    with pytest.raises(NotFound):
        once(work, database)
    assert once(Work(database), database) == ({"run": 1}, False)


def test_who_comes_while_it_runs_is_told_so(database: DatabaseService) -> None:
    work, codes = Work(database), []

    def meanwhile() -> None:
        work.before = lambda: None
        with pytest.raises(Conflict) as refused:
            once(work, database)
        codes.append(refused.value.code)

    work.before = meanwhile
    assert once(work, database) == ({"run": 1}, False)
    assert codes == ["idempotency.in_progress"]


def test_a_kill_before_the_commit_blocks_the_key_until_its_time_is_over(database: DatabaseService) -> None:
    work = Work(database)
    work.before = raising(Killed())
    with pytest.raises(Killed):
        once(work, database)
    work.before = lambda: None
    with pytest.raises(Conflict):
        once(work, database)
    database.run(lambda session: session.execute(update(IdempotencyRecord).values(in_progress_until_ms=1)))
    assert once(work, database) == ({"run": 2}, False)
    assert once(work, database) == ({"run": 2}, True)


def test_a_kill_after_the_commit_runs_nothing_again(database: DatabaseService) -> None:
    work = Work(database)
    work.after = raising(Killed())
    with pytest.raises(Killed):
        once(work, database, remaining_ms=0)
    assert once(work, database) == ({"run": 1}, True)


def test_a_slow_run_that_was_taken_over_does_not_commit(database: DatabaseService) -> None:
    work, inner = Work(database), []

    def overtaken() -> None:
        work.before = lambda: None
        inner.append(once(work, database))

    work.before = overtaken
    with pytest.raises(Conflict) as superseded:
        once(work, database, remaining_ms=0)
    assert superseded.value.code == "idempotency.superseded"
    assert inner == [({"run": 2}, False)]
    # Nor does it free the key, which is the other's by now.
    assert once(work, database) == ({"run": 2}, True)


def test_an_expired_record_is_taken_over(database: DatabaseService) -> None:
    work = Work(database)
    once(work, database)
    database.run(lambda session: session.execute(update(IdempotencyRecord).values(expires_at=1)))
    assert once(work, database, digest="another") == ({"run": 2}, False)


def test_a_database_that_is_away_is_our_own_error() -> None:
    away = DatabaseService("mysql+pymysql://root@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as refused:
        once(Work(away), away)
    assert refused.value.code == "database.away"
