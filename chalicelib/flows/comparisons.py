"""Comparisons: frozen copies of a draft that are run beside its versions, and never published."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from chalicelib.apps.tenants import hold_owner
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict
from chalicelib.core.representation import check_if_match
from chalicelib.flows import rendering
from chalicelib.flows.drafts import Prepared
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.locking import find_version, lock
from chalicelib.flows.models import COMPARISON, Flow
from chalicelib.flows.refusals import version_exists, version_not_found

# They are tried out and thrown away; each may be megabytes.
MOST_COMPARISONS = 100


def put(
    session: Unit, caller: Caller, flow_id: int, version: str, if_match: str | None, prepared: Prepared
) -> Flow:
    """Freeze data under a number, in place of the comparison that has it, and return the row.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid, errors.PreconditionFailed
    errors.Conflict
        `flow.version_exists`: the number is that of a version, or of a comparison that is spelled otherwise;
        `flow.too_many_comparisons`.
    """
    key = version_key(version)
    hold_owner(session, caller)
    draft = lock(session, caller, flow_id)
    row = find_version(session, flow_id, key)
    if row is None:
        check_if_match(if_match, None)
        _check_room(session, flow_id)
        row = Flow(
            group_id=flow_id,
            version=version,
            version_key=key,
            app_id=draft.app_id,
            source=draft.source,
            tag=COMPARISON,
            create_by=caller.credential_id,
        )
        before = None
        session.add(row)
    else:
        if row.tag != COMPARISON or row.version != version:
            raise version_exists(f"{'comparison' if row.tag == COMPARISON else 'version'} {row.version}")
        before = rendering.comparison(row)
        check_if_match(if_match, before)
    row.name, row.description = draft.name, draft.description
    row.release_data, row.checksum, row.warnings = prepared.text, prepared.checksum, prepared.warnings
    row.input_schema, row.operations = prepared.checked.input_schema, prepared.checked.operations
    row.update_by = caller.credential_id
    session.flush()
    _record(session, caller, "flow.compare", flow_id, before, rendering.comparison(row))
    return row


def delete(session: Unit, caller: Caller, flow_id: int, version: str, if_match: str | None) -> None:
    """Delete a comparison.

    Raises
    ------
    errors.NotFound, errors.Invalid, errors.PreconditionFailed
    """
    key = version_key(version)
    lock(session, caller, flow_id)
    row = find_version(session, flow_id, key)
    if row is None or row.tag != COMPARISON:
        raise version_not_found()
    before = rendering.comparison(row)
    check_if_match(if_match, before)
    session.delete(row)
    session.flush()
    _record(session, caller, "flow.compare_end", flow_id, before, None)


def _check_room(session: Unit, flow_id: int) -> None:
    held = select(func.count()).where(Flow.group_id == flow_id, Flow.tag == COMPARISON)
    if (session.scalar(held) or 0) >= MOST_COMPARISONS:
        raise Conflict(
            f"A flow has at most {MOST_COMPARISONS} comparisons.", code="flow.too_many_comparisons"
        )


def _record(session: Unit, caller: Caller, action: str, flow_id: int, before: Any, after: Any) -> None:
    audit.record(session, caller, action, "flow", str(flow_id), before=before, after=after)
