"""Changing a run only where it still is as it was seen: how those who may end, wake or answer it stay out of each
other's way without holding a lock."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, update

from chalicelib.core.database import Unit
from chalicelib.flows.runs.models import FlowRun


def change(session: Unit, run_id: str, *seen: ColumnElement[bool], **values: Any) -> bool:
    """Set columns of a run by one statement; False, and nothing is set, where it is not as it was seen any more.

    Parameters
    ----------
    seen
        What must hold of its row.
    """
    found = session.execute(
        update(FlowRun).where(FlowRun.run_id == run_id, *seen).values(**values),
        execution_options={"synchronize_session": False},
    )
    return cast(CursorResult[Any], found).rowcount == 1
