"""The two look-ups that every run makes, as single statements: what is published, and who may run it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Select, Table, or_, select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core.paging import through
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.models import COMPARISON, NO_TAG, Flow, License

# For reading: the first use of any model configures all of them.
_FLOW, _LICENSE, _APP = (
    cast(Table, Flow.__table__),
    cast(Table, License.__table__),
    cast(Table, App.__table__),
)
_DRAFT = _FLOW.alias("draft")
_COLUMNS = [
    _FLOW.c[name]
    for name in (
        "group_id", "app_id", "version", "name", "description", "tag", "checksum", "operations", "input_schema",
        "release_data",
    )
]  # fmt: skip


@dataclass(frozen=True)
class PublishedFlow:
    """A frozen version, as warm functions keep it: shared between requests, so never changed.

    Parameters
    ----------
    flow_id
        The flow's id, the `group_id` of its rows.
    app_id
        The app that owns it.
    data
        The DSL.
    input_schema
        JSON Schema of a run's parameters.
    operations
        Durable operations in the worst case.
    checksum
        SHA-256 hex of the data in canonical form.
    is_comparison
        A frozen copy that was never published.
    size
        Characters of the data as JSON text.
    """

    flow_id: int
    app_id: int
    version: str
    name: str
    description: str
    data: dict[str, Any]
    input_schema: dict[str, Any]
    operations: int
    checksum: str
    is_comparison: bool
    size: int


@dataclass(frozen=True)
class Grant:
    """An app's licence for a flow, with the app's own state."""

    app_id: int
    is_enabled: bool
    app_is_enabled: bool


class FlowDAO:
    """Flows as they are run.

    Parameters
    ----------
    session
        Of a read or of a unit of work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_latest_published_flow_by(self, group_id: int, version: str | None = None) -> PublishedFlow | None:
        """Return the published version with the highest number, or the one that is named; None where there is none.

        Never the draft, and a comparison only where its version is named. One entry of an index, however many
        versions there are.

        Raises
        ------
        errors.Invalid
            `flow.version`
        """
        row = self._session.execute(published_query(group_id, version)).one_or_none()
        if row is None:
            return None
        return PublishedFlow(
            flow_id=row.group_id,
            app_id=int(row.app_id),
            version=row.version,
            name=row.name,
            description=row.description,
            data=json.loads(row.release_data),
            input_schema=row.input_schema or {},
            operations=row.operations or 0,
            checksum=row.checksum,
            is_comparison=row.tag == COMPARISON,
            size=len(row.release_data),
        )


def published_query(group_id: int, version: str | None) -> Select[Any]:
    """The statement of `get_latest_published_flow_by`."""
    query = (
        select(*_COLUMNS)
        .join(_DRAFT, _DRAFT.c.id == _FLOW.c.group_id)
        .where(_FLOW.c.group_id == group_id, _DRAFT.c.id == group_id, _DRAFT.c.is_deleted == 0)
    )
    if version is not None:
        runnable = or_(_FLOW.c.status == 1, _FLOW.c.tag == COMPARISON)
        return query.where(_FLOW.c.version_key == version_key(version), runnable)
    latest = query.where(_FLOW.c.status == 1, _FLOW.c.tag == NO_TAG)
    return through(latest, _FLOW, "ix_flow_published").order_by(_FLOW.c.version_key.desc()).limit(1)


class LicenseDAO:
    """Licences as they are checked.

    Parameters
    ----------
    session
        Of a read or of a unit of work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_by(self, group_id: int, app_alias_id: str) -> Grant | None:
        """Return the licence of an app, by its alias, for a flow; None where it never got one. One join."""
        query = (
            select(_LICENSE.c.app_id, _LICENSE.c.status, _APP.c.status.label("app_status"))
            .join(_APP, _APP.c.id == _LICENSE.c.app_id)
            .where(_APP.c.alias_id == app_alias_id, _LICENSE.c.group_id == group_id)
        )
        row = self._session.execute(query).one_or_none()
        return None if row is None else Grant(row.app_id, row.status == 1, row.app_status == 1)
