from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.core.answers import MAX_ANSWER_BYTES
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import BadRequest
from chalicelib.core.paging import Page, list_page

KEY = b"a deployment's own key"
BINDING = {"$app": 7, "$path": "/api/v1/plugins", "status": "enabled"}


def page(cursor: str | None = None, **changes: Any) -> Page:
    return Page(**({"limit": 3, "cursor": cursor, "binding": BINDING, "key": KEY} | changes))


@given(st.lists(st.integers(0, 2**63 - 1) | st.text(), min_size=1, max_size=3))
def test_a_cursor_gives_back_the_position_it_was_made_from(position: list[Any]) -> None:
    assert page(page().encode(position)).position(len(position)) == position


def test_without_a_cursor_there_is_no_position() -> None:
    assert page().position(2) is None


@given(st.text())
def test_no_text_is_a_cursor_by_chance(cursor: str) -> None:
    with pytest.raises(BadRequest):
        page(cursor).position(1)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_cursor_with_any_byte_changed_is_refused(index: int, flip: int) -> None:
    cursor = page().encode(["a name", 12345])
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[index % len(raw)] ^= flip
    with pytest.raises(BadRequest) as caught:
        page(base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")).position(2)
    assert [(error.pointer, error.rule) for error in caught.value.errors] == [
        ("/query/cursor", "cursor.invalid")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"binding": BINDING | {"$app": 8}},
        {"binding": BINDING | {"status": "disabled"}},
        {"binding": BINDING | {"$path": "/api/v1/apps"}},
        {"key": b"another deployment"},
    ],
)
def test_a_cursor_of_another_caller_filter_or_deployment_is_refused(changes: dict[str, Any]) -> None:
    cursor = page().encode([1])
    with pytest.raises(BadRequest):
        page(cursor, **changes).position(1)


def test_a_cursor_of_a_listing_with_another_order_is_refused() -> None:
    with pytest.raises(BadRequest):
        page(page().encode([1])).position(2)


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        page(key=b"").encode([1])


def test_the_cursor_shows_no_plain_position_to_rely_on() -> None:
    assert json.dumps([1]) not in page().encode([1])


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_pages_cover_every_row_once_in_order(database: DatabaseService, descending: bool, limit: int) -> None:
    # GIVEN rows whose first sort column has ties, and a cursor per page
    names = ["b", "a", "b", "c", "a", "b", "a"]
    with database.session_getter() as session:
        session.add_all(
            App(id=number, name=name, alias_id=f"app-{number}") for number, name in enumerate(names, 1)
        )
    expected = sorted([(name, number) for number, name in enumerate(names, 1)], reverse=descending)

    # WHEN all pages are read, while rows are added that sort before what was read
    seen: list[tuple[str, int]] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        with database.reads() as session:
            answer = list_page(
                session,
                select(App),
                page(cursor, limit=limit),
                (App.name, App.id),
                lambda app: {"row": (app.name, app.id)},
                descending=descending,
            )
        assert len(answer["items"]) <= limit
        seen += [item["row"] for item in answer["items"]]
        cursor, pages = answer["nextCursor"], pages + 1
        with database.session_getter() as session:
            first = "z" if descending else "A"
            session.add(App(id=100 + pages, name=first, alias_id=f"late-{pages}"))

    # THEN nothing is missing and nothing is shown twice
    if limit >= len(names):
        assert seen == expected
    else:
        assert [row for row in seen if row[1] < 100] == expected
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_of_rows_that_meet_one_of_several_conditions_are_those_of_the_or(
    database: DatabaseService, limit: int
) -> None:
    # GIVEN rows that meet one condition, the other, both and neither
    with database.session_getter() as session:
        session.add_all(
            App(id=number, name="ab"[number % 2], status=number % 3 > 0, alias_id=f"app-{number}")
            for number in range(1, 15)
        )
    conditions = (App.name == "a", App.status == 0)
    expected = [number for number in range(14, 0, -1) if number % 2 == 0 or number % 3 == 0]

    seen: list[int] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        with database.reads() as session:
            answer = list_page(
                session,
                select(App).where(App.id != 6),
                page(cursor, limit=limit),
                [App.id],
                lambda app: {"id": app.id},
                any_of=[(condition, "PRIMARY") for condition in conditions],
            )
        assert len(answer["items"]) <= limit
        seen += [item["id"] for item in answer["items"]]
        cursor, pages = answer["nextCursor"], pages + 1

    assert seen == [number for number in expected if number != 6]


def test_a_page_of_large_items_ends_before_the_answer_is_too_large(database: DatabaseService) -> None:
    # GIVEN rows of which two fit one answer, and one that fits none
    with database.session_getter() as session:
        session.add_all(App(id=number, name="a", alias_id=f"app-{number}") for number in range(1, 8))
    sizes = {4: MAX_ANSWER_BYTES + 1}
    seen: list[list[int]] = []
    cursor = None
    while not seen or cursor:
        with database.reads() as session:
            answer = list_page(
                session,
                select(App),
                page(cursor, limit=5),
                [App.id],
                lambda app: {"id": app.id, "text": "x" * sizes.get(app.id, MAX_ANSWER_BYTES // 3)},
                descending=False,
                large=True,
            )
        seen.append([item["id"] for item in answer["items"]])
        cursor = answer["nextCursor"]
    # THEN every row is shown once, however large it is
    assert seen == [[1, 2], [3], [4], [5, 6], [7]]
