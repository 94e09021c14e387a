"""`Request.write` where the connection is lost during the commit, on a database that loses it on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy.orm import Session

from chalicelib.api.request import Answer, Request
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import CommitUnknown, DatabaseService, Unit, away
from chalicelib.core.errors import Unavailable
from chalicelib.core.hotcache import HotCache
from tests.conftest import create_schema

T = TypeVar("T")
CALLER = Caller(7, "acme", 8, "publisher", "r-1")


class Failing(DatabaseService):
    """Loses the answer to the commit, or the commit itself, and then is away for some reads."""

    committed = True
    away_for = 0

    def run(self, work: Callable[[Unit], T], *, attempts: int = 6) -> T:
        try:
            super().run(lambda session: self._then(session, work))
        except _Undone:
            pass
        raise CommitUnknown("Lost.", code="database.commit_unknown")

    def _then(self, session: Unit, work: Callable[[Unit], T]) -> T:
        result = work(session)
        if not self.committed:
            raise _Undone
        return result

    @contextmanager
    def reads(self) -> Iterator[Session]:
        if self.away_for:
            self.away_for -= 1
            raise away(OSError())
        with super().reads() as session:
            yield session


class _Undone(Exception):
    pass


@pytest.fixture
def failing(sqlite_url: str) -> Iterator[Failing]:
    create_schema(sqlite_url).close()
    service = Failing(sqlite_url)
    yield service
    service.close()


def request_on(database: DatabaseService) -> Request:
    return Request(CALLER, {}, {}, None, {}, {}, database, HotCache(database), "/probe")


def recorded(session: Unit) -> Answer:
    audit.record(session, CALLER, "probe.run", "probe", "1")
    return Answer({"done": True}, status=201)


def silent(session: Unit) -> dict[str, Any]:
    return {"done": True}


@pytest.mark.parametrize("away_for", [0, 1, 2])
def test_a_commit_that_is_found_again_stands(failing: Failing, away_for: int) -> None:
    failing.away_for = away_for
    request = request_on(failing)
    assert request.write(recorded) == Answer({"done": True}, status=201)
    assert request.committed


def test_a_commit_that_is_not_found_is_an_unknown_outcome(failing: Failing) -> None:
    failing.committed = False
    request = request_on(failing)
    with pytest.raises(Unavailable) as unknown:
        request.write(recorded)
    assert (unknown.value.code, unknown.value.retry_after) == ("database.outcome_unknown", 5)
    assert not request.committed


def test_a_database_that_stays_away_leaves_the_outcome_unknown(failing: Failing) -> None:
    failing.away_for = 99
    with pytest.raises(Unavailable) as unknown:
        request_on(failing).write(recorded)
    assert unknown.value.code == "database.outcome_unknown"


def test_a_unit_that_leaves_no_trace_cannot_be_found(failing: Failing) -> None:
    with pytest.raises(Unavailable) as unknown:
        request_on(failing).write(silent)
    assert unknown.value.code == "database.outcome_unknown"


def test_the_trace_of_an_earlier_unit_of_the_same_request_is_not_taken_for_this_one(
    failing: Failing,
) -> None:
    DatabaseService.run(failing, recorded)
    failing.committed = False
    with pytest.raises(Unavailable) as unknown:
        request_on(failing).write(recorded)
    assert unknown.value.code == "database.outcome_unknown"


def test_what_is_stored_under_a_key_carries_the_tag_of_the_resource() -> None:
    assert Answer({"a": 1}, 201, {"Location": "/x"}).stored() == {
        "body": {"a": 1},
        "status": 201,
        "headers": {"Location": "/x"},
    }
    tags = {Answer({"a": 1, "secret": n}, tagged={"a": 1}).stored()["headers"]["ETag"] for n in "xy"}
    assert len(tags) == 1
