from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table

from chalicelib.agents.tables.ordering import ordering_of
from chalicelib.core.database import UtcDateTime


def made(*parts: Any) -> Table:
    return Table("t", MetaData(), *parts)


def key(kind: Any = BigInteger, name: str = "id") -> Column[Any]:
    return Column(name, kind, primary_key=True)


AT = "created_at"


@pytest.mark.parametrize(
    ("table", "for_days", "for_rows"),
    [
        (made(key(), Column(AT, UtcDateTime())), True, True),
        (made(key(Integer), Column(AT, UtcDateTime())), True, True),
        # An id alone tells no time: it may be a number that the server gave.
        (made(key()), False, True),
        (made(key(String(26)), Column(AT, UtcDateTime())), False, False),
        (made(key(String(26)), Column(AT, UtcDateTime()), Index("i", AT)), True, False),
        (
            made(key(String(26)), Column(AT, UtcDateTime()), Column("b", Integer), Index("i", "b", AT)),
            False,
            False,
        ),
        # Numbers that need not grow with time.
        (made(key(name="user_id"), Column(AT, UtcDateTime())), False, False),
        (made(key(name="user_id"), Column(AT, UtcDateTime()), Index("i", AT)), False, False),
        (made(key(), key(name="part"), Column(AT, UtcDateTime()), Index("i", AT)), False, False),
        (made(Column(AT, UtcDateTime())), False, False),
    ],
    ids=range(10),
)
def test_what_can_be_retained(table: Table, for_days: bool, for_rows: bool) -> None:
    ordering = ordering_of(table)
    assert (ordering.for_days, ordering.for_rows) == (for_days, for_rows)
