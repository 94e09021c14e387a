from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.core.errors import (
    Conflict,
    Forbidden,
    HotplugError,
    Invalid,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from chalicelib.tools import execution_log
from chalicelib.tools.execution_log import OUTCOMES, Call, outcome_of
from chalicelib.tools.models import ToolExecution

CALL = Call(
    execution_id="0" * 26, tool_id="tool@1", app_id=11, version="V1.0", operation="getPet", request_id="r",
    started_at=datetime(2026, 1, 2, tzinfo=UTC), outcome="success", error_code=None, status=200, duration_ms=1.2345,
)  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (None, "success"),
        (UpstreamFailed("x", code="tool.upstream_error"), "failed"),
        (UpstreamFailed("x", code="tool.invalid_answer"), "failed"),
        (UpstreamTimeout("x"), "timeout"),
        (Conflict("x", code="tool.credentials_missing"), "refused"),
        (Forbidden("x", code="http.forbidden_address"), "refused"),
        (Unavailable("x", code="http.circuit_open"), "refused"),
        (Invalid("x", code="http.invalid_url"), "refused"),
        (Invalid("x", code="tool.invalid_credential"), "refused"),
        (Unavailable("x", code="secrets.no_key"), "refused"),
        (HotplugError("x"), "failed"),
    ],
)
def test_how_a_call_ended(problem: HotplugError | None, outcome: str) -> None:
    assert outcome_of(problem) == outcome
    assert outcome in OUTCOMES


class Kept:
    """A session that keeps what is added to it."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def add(self, row: Any) -> None:
        self.rows.append(row)


def stored(call: Call) -> ToolExecution:
    session = Kept()
    execution_log.store(session, call)  # type: ignore[arg-type]
    [row] = session.rows
    return row  # type: ignore[no-any-return]


def test_a_row_holds_the_call_and_no_payload() -> None:
    row = stored(CALL)
    assert (row.execution_id, row.tool_id, row.app_id, row.version) == ("0" * 26, "tool@1", 11, "V1.0")
    assert (row.operation, row.outcome, row.status, row.duration_us) == ("getPet", "success", 200, 1234)
    columns = {column.key for column in ToolExecution.__table__.columns}
    assert not columns & {"arguments", "body", "headers", "answer", "result"}


def test_what_is_too_long_for_its_column_is_cut() -> None:
    """A server chooses its tools' names, and a client its request id."""
    row = stored(replace(CALL, operation="o" * 200, error_code="e" * 100, request_id="r" * 100))
    for name in ("operation", "error_code", "request_id"):
        assert len(getattr(row, name)) == ToolExecution.__table__.columns[name].type.length  # type: ignore[attr-defined]
