"""Keyset pages with opaque cursors.

Never OFFSET: page 1,000 must cost what page 1 costs, and a row that is inserted meanwhile must not shift the
rest. A cursor is bound to the caller and to the filter and carries a MAC, so that nobody can make the
database seek to a place of their choice or reuse a cursor for another listing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_, select, union
from sqlalchemy.orm import InstrumentedAttribute, Session

from chalicelib.core.answers import fitting
from chalicelib.core.database import UtcDateTime
from chalicelib.core.errors import BadRequest, Violation

T = TypeVar("T")
DEFAULT_LIMIT = 30
MAX_LIMIT = 100
_MAC_BYTES = 16


@dataclass(frozen=True)
class Page:
    """What a listing asks for.

    Parameters
    ----------
    limit
        Rows, 1..100.
    cursor
        The previous page's `nextCursor`, None for the first page.
    binding
        Who lists what: the caller, the path and the filter; a cursor made under another binding is refused.
    key
        Secret of the deployment that the cursor's MAC is made with.
    """

    limit: int
    cursor: str | None
    binding: Mapping[str, Any]
    key: bytes

    def _mac(self, payload: bytes) -> bytes:
        if not self.key:
            # Anyone could make cursors under an empty key.
            raise ValueError("a page needs the deployment's key")
        bound = json.dumps(self.binding, sort_keys=True, separators=(",", ":")).encode()
        return hmac.new(self.key, bound + b"\0" + payload, hashlib.sha256).digest()[:_MAC_BYTES]

    def encode(self, position: Sequence[Any]) -> str:
        """Return the opaque cursor behind a row's sort values."""
        payload = json.dumps(list(position), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(payload) + payload).decode().rstrip("=")

    def position(self, width: int) -> list[Any] | None:
        """Return the sort values that the cursor stands for, None without a cursor.

        Raises
        ------
        errors.BadRequest
            A tampered, foreign or malformed cursor.
        """
        if self.cursor is None:
            return None
        try:
            raw = base64.b64decode(self.cursor + "=" * (-len(self.cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise bad_cursor() from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            raise bad_cursor()
        values = json.loads(payload)
        if len(values) != width:
            raise bad_cursor()
        return list(values)


def bad_cursor() -> BadRequest:
    """Return the 400 for a cursor that this caller cannot have got for this listing."""
    return BadRequest(
        "The cursor does not belong to this listing.",
        code="request.cursor",
        errors=[Violation("/query/cursor", "cursor.invalid", "not a cursor of this listing")],
    )


def through(query: Select[T], model: Any, index: str) -> Select[T]:
    """Let a MySQL-family server read a page through the index that is in its order.

    Left to itself MySQL reads the first page so, but every later one (`id < …`) through the primary key, past the rows
    of all other tenants, or through whatever other index begins alike, and sorts; MariaDB intersects indexes and sorts.
    """
    return query.with_hint(model, f"FORCE INDEX ({index})", "mysql")


def list_page(
    session: Session,
    query: Select[T],
    page: Page,
    order: Sequence[InstrumentedAttribute[Any]],
    render: Callable[[T], dict[str, Any]],
    *,
    descending: bool = True,
    any_of: Sequence[tuple[ColumnElement[bool], str]] = (),
    large: bool = False,
) -> dict[str, Any]:
    """Return `{"items": [...], "nextCursor": ...}` of one page.

    Parameters
    ----------
    order
        Columns that an index sorts by, the last one unique: of texts, numbers, or `UtcDateTime`.
    any_of
        Conditions of which a row meets at least one, each with the name of an index that then sorts by `order`.
        Spelled as one OR they would make the server sort every row that meets one, for each page.
    large
        An item may be so large that a hundred of them are more than one answer holds: the page then ends earlier.
    """
    position = page.position(len(order))
    if position is not None:
        query = query.where(_beyond(order, _values(order, position), descending))
    ordering = [column.desc() if descending else column.asc() for column in order]
    if any_of:
        heads = [
            _head(
                through(query.where(condition), order[-1].class_, index), order[-1], ordering, page.limit + 1
            )
            for condition, index in any_of
        ]
        keys = union(*heads).subquery()
        query = query.join(keys, keys.c.key == order[-1])
    rows = list(session.scalars(query.order_by(*ordering).limit(page.limit + 1)))
    items = [render(row) for row in rows[: page.limit]]
    if large:
        items = items[: fitting(items)]
    cursor = None
    if len(rows) > len(items):
        last = rows[len(items) - 1]
        cursor = page.encode([_as_json(getattr(last, column.key)) for column in order])
    return {"items": items, "nextCursor": cursor}


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _values(order: Sequence[InstrumentedAttribute[Any]], position: Sequence[Any]) -> list[Any]:
    return [
        datetime.fromisoformat(value) if isinstance(column.type, UtcDateTime) else value
        for column, value in zip(order, position, strict=True)
    ]


def _head(
    query: Select[Any], key: InstrumentedAttribute[Any], ordering: Sequence[Any], most: int
) -> Select[Any]:
    """The keys of the first rows; in a select of its own, because SQLite sorts no part of a union."""
    first = query.with_only_columns(key.label("key")).order_by(*ordering).limit(most).subquery()
    return select(first.c.key)


def _beyond(order: Sequence[InstrumentedAttribute[Any]], position: Sequence[Any], descending: bool) -> Any:
    """(a, b) < (x, y) spelled out: row-value comparison does not use the index on MySQL."""
    alternatives = []
    for index, column in enumerate(order):
        equal = [earlier == value for earlier, value in zip(order[:index], position, strict=False)]
        last = column < position[index] if descending else column > position[index]
        alternatives.append(and_(*equal, last))
    return or_(*alternatives)
