"""Variables of flows: one row each, whoever sets them at the same time, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event, func, select

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid, TooLarge
from chalicelib.flows.variables import service
from chalicelib.flows.variables.models import FlowVariable
from chalicelib.flows.variables.service import MAX_SET_BYTES, MAX_VALUE_BYTES, MAX_VARIABLES, Scope
from tests.conftest import create_schema
from tests.wire import WireProxy

SCOPE = Scope(11, 7_000_000_001, "ann", "chat")
WRITERS, WRITES = 8, 20


def put(database: DatabaseService, scope: Scope = SCOPE, /, **values: Any) -> None:
    database.run(lambda session: service.put(session, scope, values))


def get(database: DatabaseService, *names: str, scope: Scope = SCOPE) -> dict[str, Any]:
    with database.reads() as session:
        return service.get(session, scope, names)


def count(database: DatabaseService) -> int:
    with database.reads() as session:
        return session.scalar(select(func.count()).select_from(FlowVariable)) or 0


def test_a_variable_is_set_and_read(database: DatabaseService) -> None:
    assert get(database, "a", "b") == {}
    put(database, a=1, b={"漢": [1.5, None, "x" * 100]}, c=None)
    assert get(database, "a", "b", "c", "d") == {"a": 1, "b": {"漢": [1.5, None, "x" * 100]}, "c": None}
    put(database, a="two", c=[])
    assert get(database, "c", "a") == {"a": "two", "c": []}
    assert count(database) == 3


def test_a_variable_changes_its_time_with_its_value(database: DatabaseService) -> None:
    def times() -> list[Any]:
        with database.reads() as session:
            return list(session.scalars(select(FlowVariable.updated_at)))

    put(database, a=1)
    [before] = times()
    put(database, a=1)
    [after] = times()
    assert after > before


def test_what_is_kept_is_nobody_elses(database: DatabaseService) -> None:
    put(database, a=0)
    changes: list[dict[str, Any]] = [
        {"app_id": 22}, {"flow_id": 8}, {"uid": ""}, {"uid": "Ann"}, {"uid": "ann "}, {"chat_id": ""},
        {"uid": "annc", "chat_id": "hat"}, {"uid": "x" * 255, "chat_id": "漢" * 255},
    ]  # fmt: skip
    others = [replace(SCOPE, **change) for change in changes]
    for other in others:
        assert get(database, "a", scope=other) == {}
    for number, other in enumerate(others, 1):
        put(database, other, a=number)
    assert get(database, "a", "A", "a ") == {"a": 0}
    assert [get(database, "a", scope=other)["a"] for other in others] == list(range(1, len(others) + 1))


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        ({"": 1}, ["variable.name"]),
        ({"x" * 129: 1, "ok": 1}, ["variable.name"]),
        ({"a": float("nan"), "b": float("inf"), "c": {1}, "d": "\ud800"}, ["variable.value"] * 4),
        ({"\ud800": 1}, ["variable.value"]),
    ],
)
def test_what_cannot_be_kept_is_refused_whole(
    database: DatabaseService, values: dict[str, Any], rules: list[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        database.run(lambda session: service.put(session, SCOPE, {**values, "good": 1}))
    assert refused.value.code == "variable.invalid"
    assert [one.rule for one in refused.value.errors] == rules
    assert count(database) == 0


def test_values_are_bounded_one_by_one_and_together(database: DatabaseService) -> None:
    largest = "x" * (MAX_VALUE_BYTES - 2)
    put(database, a=largest)
    assert get(database, "a") == {"a": largest}
    for values in ({"a": largest + "x"}, {"a": "漢" * (MAX_VALUE_BYTES // 3)}):
        with pytest.raises(TooLarge) as refused:
            put(database, **values)
        assert refused.value.code == "variable.too_large"
    # Escaped they are twice as long, and still within what the server takes.
    quotes = "'" * (MAX_VALUE_BYTES - 2)
    many = {f"v{number}": quotes for number in range(MAX_SET_BYTES // MAX_VALUE_BYTES)}
    put(database, **many)
    assert get(database, *many) == many
    with pytest.raises(TooLarge):
        put(database, **many, one_more=1)


def test_their_number_is_bounded(database: DatabaseService) -> None:
    put(database, **{f"v{number}": number for number in range(MAX_VARIABLES - 1)})
    put(database, replace(SCOPE, uid="ann "), other=1)
    put(database, last=1)
    with pytest.raises(Invalid) as refused:
        put(database, last=2, one_more=1)
    assert refused.value.code == "variable.too_many"
    # Those that are there may be set again.
    put(database, last=3, v0="zero")
    assert get(database, "last", "v0", "one_more") == {"last": 3, "v0": "zero"}
    with pytest.raises(Invalid):
        put(database, replace(SCOPE, uid="bob"), **{f"v{number}": 1 for number in range(MAX_VARIABLES + 1)})


@pytest.mark.parametrize("scope", [replace(SCOPE, uid="x" * 256), replace(SCOPE, chat_id="x" * 256)])
def test_a_name_that_does_not_fit_is_refused(database: DatabaseService, scope: Scope) -> None:
    with pytest.raises(ValueError, match="longer name"):
        put(database, scope, a=1)


def test_reading_is_one_statement_and_setting_two(database: DatabaseService) -> None:
    sent: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *told: sent.append(told[2]))
    put(database, **{f"v{number}": number for number in range(50)})
    assert [statement.split()[0] for statement in sent if not statement.startswith("BEGIN")] == [
        "SELECT",
        "INSERT",
    ]
    sent.clear()
    assert len(get(database, *(f"v{number}" for number in range(50)))) == 50
    assert len(sent) == 1
    sent.clear()
    assert get(database) == {}
    put(database)
    assert sent in ([], ["BEGIN IMMEDIATE"])


def test_a_set_of_fifty_is_one_insert_on_the_wire(mysql_url: str) -> None:
    create_schema(mysql_url).close()
    with WireProxy(mysql_url) as wire:
        database = DatabaseService(wire.url)
        put(database, **{f"v{number}": number for number in range(50)})
        assert sum(command.startswith("QUERY INSERT") for command in wire.commands) == 1
        database.close()


def at_once(url: str, work: Callable[[DatabaseService, int], None]) -> None:
    together = Barrier(WRITERS)

    def run(number: int) -> None:
        database = DatabaseService(url)
        try:
            together.wait(30)
            for _ in range(WRITES):
                work(database, number)
        finally:
            database.close()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(run, range(WRITERS)))


def test_of_eight_writers_of_one_variable_the_last_one_stays(database: DatabaseService) -> None:
    at_once(database.database_url, lambda own, number: put(own, a=number))
    assert count(database) == 1
    assert get(database, "a")["a"] in range(WRITERS)


def test_eight_writers_of_the_same_variables_never_mix_them(database: DatabaseService) -> None:
    names = [f"v{number}" for number in range(10)]

    def work(own: DatabaseService, number: int) -> None:
        # Each in an order of its own, and none waits for another in a circle: one attempt is enough.
        values = dict.fromkeys(names[number:] + names[:number], number)
        own.run(lambda session: service.put(session, SCOPE, values), attempts=1)

    at_once(database.database_url, work)
    assert count(database) == len(names)
    assert len(set(get(database, *names).values())) == 1


def test_eight_writers_of_eight_variables_lose_none(database: DatabaseService) -> None:
    at_once(database.database_url, lambda own, number: put(own, **{f"v{number}": number}))
    names = [f"v{number}" for number in range(WRITERS)]
    assert get(database, *names) == {f"v{number}": number for number in range(WRITERS)}
