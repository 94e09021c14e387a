"""The draft of a flow: checked outside of any unit of work, created, replaced and deleted inside one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from chalicelib.apps.tenants import hold_owner
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, NotFound, TooLarge
from chalicelib.core.hotcache import HotCache
from chalicelib.core.ids import new_id
from chalicelib.core.representation import check_if_match
from chalicelib.flows import catalog, rendering
from chalicelib.flows.dsl.limits import MAX_DATA_BYTES
from chalicelib.flows.locking import lock
from chalicelib.flows.models import DRAFT, NO_TAG, Flow
from chalicelib.flows.names import EVERY_PLATFORM, flow_id_of

if TYPE_CHECKING:
    from chalicelib.flows.dsl.check import Checked
    from chalicelib.flows.dsl.findings import FlowViolation

# Of a draft that was saved with more of them, `validate` tells all.
MOST_WARNINGS = 100


@dataclass(frozen=True)
class Prepared:
    """What is to be stored of a flow's data.

    Parameters
    ----------
    text
        The data as JSON.
    checksum
        SHA-256 hex of its canonical form.
    warnings
        The first hundred things that are wrong or doubtful.
    checked
        All of what was found.
    """

    text: str
    checksum: str
    warnings: list[dict[str, str]]
    checked: Checked


def prepare(cache: HotCache, caller: Caller, data: dict[str, Any], flow_id: int | None) -> Prepared:
    """Return what is to be stored of a flow's data. Not inside a unit of work: its sub-flows are looked up.

    Parameters
    ----------
    flow_id
        The flow's own id, None before it has one.

    Raises
    ------
    errors.TooLarge
        `flow.too_large`. Whatever else is wrong with the data is a warning.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # One number may be written out four times as long as it was sent: 1E15.
    if len(text.encode()) > MAX_DATA_BYTES:
        raise TooLarge(f"A flow's data has at most {MAX_DATA_BYTES} bytes.", code="flow.too_large")
    checked = check(cache, caller, data, flow_id)
    warnings = found([*checked.violations, *checked.warnings][:MOST_WARNINGS])
    return Prepared(text, str(audit.digest(data)), warnings, checked)


def check(cache: HotCache, caller: Caller, data: Any, flow_id: int | None) -> Checked:
    """Judge a flow's data, with the published flows that the caller may use as its sub-flows."""
    from chalicelib.flows.dsl.check import check_flow

    own = None if flow_id is None else str(flow_id)
    return check_flow(data, subflow=_subflows(cache, caller), flow_id=own)


def found(findings: Sequence[FlowViolation]) -> list[dict[str, str]]:
    """Return findings as JSON values."""
    return [
        {
            "node": one.node,
            "field": one.field,
            "rule": one.rule,
            "message": one.message,
            "pointer": one.pointer,
        }
        for one in findings
    ]


def _subflows(cache: HotCache, caller: Caller) -> Callable[[str, str | None], Any]:
    def find(text: str, version: str | None) -> Any:
        flow_id = flow_id_of(text)
        if flow_id is None:
            return None
        try:
            return catalog.find_usable(cache, caller, flow_id, version).data
        except NotFound:
            # The check reports it, with the node that calls it.
            return None

    return find


def create(
    session: Unit,
    caller: Caller,
    name: str,
    description: str,
    prepared: Prepared,
    source: int = EVERY_PLATFORM,
) -> Flow:
    """Store a new flow and return its draft.

    Parameters
    ----------
    source
        The platforms that it may ever be published on, as bits.

    Raises
    ------
    errors.Forbidden
        `app.disabled`
    """
    hold_owner(session, caller)
    flow_id = new_id()
    row = Flow(
        id=flow_id,
        group_id=flow_id,
        version=DRAFT,
        app_id=str(caller.app_id),
        source=source,
        create_by=caller.credential_id,
        **_contents(caller, name, description, prepared),
    )
    session.add(row)
    session.flush()
    audit.record(session, caller, "flow.create", "flow", str(flow_id), after=rendering.flow(row))
    return row


def replace(
    session: Unit,
    caller: Caller,
    flow_id: int,
    if_match: str | None,
    name: str,
    description: str,
    prepared: Prepared,
) -> Flow:
    """Replace a draft by what its author made of the one that `if_match` names, and return it.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.PreconditionFailed
    """
    hold_owner(session, caller)
    row = lock(session, caller, flow_id)
    check_if_match(if_match, rendering.tagged(flow_id, row.revision))
    before = rendering.listed_flow(row)
    for column, value in _contents(caller, name, description, prepared).items():
        setattr(row, column, value)
    session.flush()
    audit.record(
        session, caller, "flow.update", "flow", str(flow_id), before=before, after=rendering.listed_flow(row)
    )
    return row


def delete(session: Unit, caller: Caller, flow_id: int, if_match: str | None) -> None:
    """Delete a flow that no platform has; its rows stay, and nobody finds them.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    errors.Conflict
        `flow.published`
    """
    row = lock(session, caller, flow_id)
    check_if_match(if_match, rendering.tagged(flow_id, row.revision))
    live = select(Flow.id).where(Flow.group_id == flow_id, Flow.tag == NO_TAG, Flow.status == 1).limit(1)
    if session.scalars(live).first() is not None:
        raise Conflict("Take the flow off every platform first.", code="flow.published")
    before = rendering.listed_flow(row)
    row.is_deleted = 1
    row.update_by = caller.credential_id
    session.flush()
    audit.record(session, caller, "flow.delete", "flow", str(flow_id), before=before)


def _contents(caller: Caller, name: str, description: str, prepared: Prepared) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "data": prepared.text,
        "checksum": prepared.checksum,
        "warnings": prepared.warnings,
        "update_by": caller.credential_id,
    }
