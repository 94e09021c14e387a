"""The tables as the API shows them to admins, and what is kept in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.agents.models import AgentTable
from chalicelib.agents.spec import OwnedTable
from chalicelib.agents.tables import states
from chalicelib.agents.tables.ordering import ordering_of
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Invalid, NotFound, Violation
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import check_if_match, timestamp
from chalicelib.core.table_check import check_table, table_of

DAYS, ROWS = "retainDays", "retainRows"
_COLUMNS = {DAYS: "retain_days", ROWS: "retain_rows"}
# Of what `retainDays` and `retainRows` may be; the job walks over as many index entries as rows are kept.
MAX_DAYS, MAX_ROWS = 36_500, 10_000_000


def describe(row: AgentTable) -> dict[str, Any]:
    """Return the resource of a table, without what only a look at the database tells."""
    return {
        "table": row.table_name,
        "owner": row.owner,
        "mode": row.mode,
        DAYS: row.retain_days,
        ROWS: row.retain_rows,
        "problems": list(row.problems),
        "updatedAt": timestamp(row.updated_at),
    }


def list_tables(session: Session, page: Page, models: Mapping[str, OwnedTable]) -> dict[str, Any]:
    """Return a page of the agents' tables by name, each compared with its model.

    The comparison reads through the connection that the session has: a second one is never asked for.

    Parameters
    ----------
    session
        A read session.
    models
        What the agents of this process declare, by table name. A table that is not among them, or whose owner is
        another, has no checks; the state of the former is `unknown`.
    """
    query = select(AgentTable)

    def render(row: AgentTable) -> dict[str, Any]:
        declared = models.get(row.table_name)
        state = states.UNKNOWN if declared is None else states.check([row], [declared])[row.table_name]
        checks = []
        if declared is not None and state != states.FOREIGN:
            checks = check_table(session.connection(), declared.model)
        return describe(row) | {
            "state": state,
            "checks": [{"name": one.name, "type": one.type, "success": one.success} for one in checks],
        }

    return list_page(session, query, page, (AgentTable.table_name,), render, descending=False)


def set_retention(
    session: Unit,
    caller: Caller,
    name: str,
    changes: Mapping[str, int | None],
    if_match: str | None,
    models: Mapping[str, OwnedTable],
) -> dict[str, Any]:
    """Change what the daily job keeps of a table, and return its resource.

    Parameters
    ----------
    changes
        `retainDays` (1..36500) and `retainRows` (1..10000000), either or both; None keeps all.
    models
        As for `list_tables`.

    Raises
    ------
    errors.NotFound
        `agent.table_not_found`
    errors.PreconditionFailed
    errors.Invalid
        `agent.retention_unsupported`: the oldest rows of this table cannot be found without reading all, or nobody
        knows, because no agent of this deployment declares it.
    """
    query = select(AgentTable).where(AgentTable.table_name == name).with_for_update()
    row = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise NotFound("There is no such table of an agent.", code="agent.table_not_found")
    before = describe(row)
    check_if_match(if_match, before)
    if all(before[member] == value for member, value in changes.items()):
        return before
    _check_supported(models.get(name), changes)
    for member, value in changes.items():
        setattr(row, _COLUMNS[member], value)
    session.flush()
    after = describe(row)
    audit.record(session, caller, "agent.table_update", "agent_table", name, before=before, after=after)
    return after


def _check_supported(declared: OwnedTable | None, changes: Mapping[str, int | None]) -> None:
    ordering = None if declared is None else ordering_of(table_of(declared.model))
    needs = {
        DAYS: ordering is not None and ordering.for_days,
        ROWS: ordering is not None and ordering.for_rows,
    }
    violations = [
        Violation(f"/{member}", "agent.retention_unsupported", _REASONS[member])
        for member, value in changes.items()
        if value is not None and not needs[member]
    ]
    if violations:
        raise Invalid(
            "The oldest rows of this table cannot be told from the others.",
            code="agent.retention_unsupported",
            errors=violations,
        )


_REASONS = {
    DAYS: "needs a column created_at, and an integer primary key id or an index that begins with created_at",
    ROWS: "needs an integer primary key id",
}
