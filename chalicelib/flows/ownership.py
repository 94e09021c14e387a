"""What an app still owns of flows, asked before the app is deleted."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.flows.models import Flow


def owned_by_app(session: Session, app_id: int) -> list[str]:
    """Return `["flows"]` where an app owns any that is not deleted, else an empty list; one row of an index."""
    live = (Flow.app_id == str(app_id), Flow.is_deleted == 0, Flow.version_key == "")
    return ["flows"] if session.scalars(select(Flow.id).where(*live).limit(1)).first() is not None else []
