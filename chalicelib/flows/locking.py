"""The row lock that all changes of one flow take first."""

from __future__ import annotations

from sqlalchemy import select

from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.flows.models import DRAFT, Flow
from chalicelib.flows.refusals import not_found


def lock(session: Unit, caller: Caller, flow_id: int) -> Flow:
    """Return a flow's draft, locked, if it is the caller's.

    An app's row, where a unit holds that too, is taken before it.

    Raises
    ------
    errors.NotFound
        `flow.not_found`, also for another tenant's flow.
    """
    query = select(Flow).where(Flow.id == flow_id, Flow.version == DRAFT).with_for_update()
    found = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if found is None or found.is_deleted or found.app_id != str(caller.app_id):
        raise not_found()
    return found


def find_version(session: Unit, flow_id: int, key: str) -> Flow | None:
    """Return the version or the comparison of that number, as it is now. The unit holds the draft."""
    query = select(Flow).where(Flow.group_id == flow_id, Flow.version_key == key)
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
