"""What an app can run: the flows that it is licensed for, each in its newest published version.

Read for lists of thousands, so nothing here asks the database once per flow, and nothing reads the graphs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Select, Table, func, select
from sqlalchemy.orm import Session

from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.flows.models import NO_TAG, Flow, License

MOST_FLOWS = 5_000
"""Flows of one app; what is beyond them can be run, but is not listed."""

_DRAFT = cast(Table, Flow.__table__).alias("draft")
_VERSION = cast(Table, Flow.__table__).alias("version")
_LATEST = cast(Table, Flow.__table__).alias("latest")
_LICENSE = cast(Table, License.__table__)
# The published version with the highest number: the last entry of a range of an index.
_NEWEST_KEY = (
    select(func.max(_LATEST.c.version_key))
    .where(_LATEST.c.group_id == _DRAFT.c.id, _LATEST.c.tag == NO_TAG, _LATEST.c.status == 1)
    .correlate(_DRAFT)
    .scalar_subquery()
)
_IS_NEWEST = (_VERSION.c.group_id == _DRAFT.c.id) & (_VERSION.c.version_key == _NEWEST_KEY)


@dataclass(frozen=True)
class RunnableFlow:
    """A flow that an app may run now, by the name of its newest version."""

    flow_id: int
    name: str


@dataclass(frozen=True)
class Described:
    """What a caller must know of a flow."""

    flow_id: int
    name: str
    description: str
    version: str
    input_schema: dict[str, Any]


def runnable_flows(cache: HotCache, app_id: int) -> tuple[RunnableFlow, ...]:
    """Return the flows for which an app has an enabled licence and which are published, whoever owns them."""

    def read(session: Session) -> tuple[tuple[RunnableFlow, ...], list[Dependency]]:
        rows = session.execute(runnable_query(app_id))
        return tuple(RunnableFlow(row.group_id, row.name) for row in rows), [("flows", "*")]

    return cache.load(("flows.runnable", app_id), read, lambda found: 200 * len(found))


def runnable_query(app_id: int) -> Select[Any]:
    """The statement of `runnable_flows`: one entry of an index for each licence."""
    licensed = _LICENSE.join(_DRAFT, _DRAFT.c.id == _LICENSE.c.group_id).join(_VERSION, _IS_NEWEST)
    return (
        select(_LICENSE.c.group_id, _VERSION.c.name)
        .select_from(licensed)
        .where(_LICENSE.c.app_id == app_id, _LICENSE.c.status == 1, _DRAFT.c.is_deleted == 0)
        .order_by(_LICENSE.c.group_id)
        .limit(MOST_FLOWS)
    )


def describe(session: Session, flow_ids: Collection[int]) -> Iterator[Described]:
    """Yield what there is to know of flows, without those that are not published. At most a page of ids."""
    for row in session.execute(described_query(flow_ids)):
        yield Described(row.group_id, row.name, row.description, row.version, row.input_schema or {})


def described_query(flow_ids: Collection[int]) -> Select[Any]:
    """The statement of `describe`."""
    columns = [_VERSION.c[name] for name in ("group_id", "name", "description", "version", "input_schema")]
    return (
        select(*columns)
        .select_from(_DRAFT.join(_VERSION, _IS_NEWEST))
        .where(_DRAFT.c.id.in_(list(flow_ids)), _DRAFT.c.is_deleted == 0)
    )
