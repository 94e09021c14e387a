"""Finding flows: their owner and what is published on the hot cache, drafts and the paged lists in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.rows import part_of
from chalicelib.flows import licensing, rendering
from chalicelib.flows.dao import FlowDAO, PublishedFlow
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.models import COMPARISON, DRAFT, NO_TAG, Flow
from chalicelib.flows.refusals import not_found, not_published, version_not_found

# For reading: the first use of any model configures all of them.
_FLOW = cast(Table, Flow.__table__)
_FROZEN = ("release_data", "input_schema")
# Parsed JSON takes about this many bytes for each of its text.
_BYTES_A_CHARACTER = 10


# -- on the hot cache ----------------------------------------------------------------------------------------


def owner_of(cache: HotCache, flow_id: int) -> int | None:
    """Return the id of the app that owns a flow, None where there is no such flow or it was deleted."""

    def read(session: Session) -> tuple[int | None, list[Dependency]]:
        query = select(_FLOW.c.app_id).where(
            _FLOW.c.id == flow_id, _FLOW.c.version == DRAFT, _FLOW.c.is_deleted == 0
        )
        app_id = session.scalar(query)
        return None if app_id is None else int(app_id), [("flows", str(flow_id))]

    return cache.load(("flow", flow_id), read)


def find_own(cache: HotCache, caller: Caller, flow_id: int) -> None:
    """Refuse whatever is not a flow of the caller's.

    Raises
    ------
    errors.NotFound
        `flow.not_found`
    """
    if owner_of(cache, flow_id) != caller.app_id:
        raise not_found()


def find_visible(cache: HotCache, caller: Caller, flow_id: int) -> None:
    """Refuse whatever is neither a flow of the caller's nor one that it ever had a licence for.

    Raises
    ------
    errors.NotFound
        `flow.not_found`
    """
    owner = owner_of(cache, flow_id)
    if owner is None or (owner != caller.app_id and licensing.find(cache, caller.alias_id, flow_id) is None):
        raise not_found()


def published(cache: HotCache, flow_id: int, version: str | None = None) -> PublishedFlow | None:
    """Return what `FlowDAO.get_latest_published_flow_by` does, from memory where it is warm."""
    key = None if version is None else version_key(version)

    def read(session: Session) -> tuple[PublishedFlow | None, list[Dependency]]:
        found = FlowDAO(session).get_latest_published_flow_by(flow_id, version)
        return found, [("flows", str(flow_id))]

    return cache.load(("flow_published", flow_id, key), read, _weight)


def _weight(found: PublishedFlow | None) -> int:
    return 0 if found is None else found.size * _BYTES_A_CHARACTER


def find_usable(cache: HotCache, caller: Caller, flow_id: int, version: str | None = None) -> PublishedFlow:
    """Return the published version of a flow that the caller owns or has a licence for, be it enabled or not.

    Whether the caller may run it, `licensing.check` says. Comparisons are for the owner alone.

    Raises
    ------
    errors.NotFound
        `flow.not_found`, `flow.not_published`
    errors.Invalid
        `flow.version`
    """
    find_visible(cache, caller, flow_id)
    own = owner_of(cache, flow_id) == caller.app_id
    found = published(cache, flow_id, version)
    if found is None or (found.is_comparison and not own):
        raise not_published()
    return found


# -- in the database -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A flow's draft as it was read: `row` has its columns, `text` is its data as JSON."""

    row: Flow
    text: str


def read_draft(session: Session, caller: Caller, flow_id: int) -> Draft:
    """Return a flow's draft.

    Raises
    ------
    errors.NotFound
    """
    columns = [column for column in _FLOW.c if column.key not in _FROZEN]
    own = (_FLOW.c.id == flow_id, _FLOW.c.version == DRAFT, _FLOW.c.is_deleted == 0)
    found = session.execute(select(*columns).where(*own, _FLOW.c.app_id == str(caller.app_id))).one_or_none()
    if found is None:
        raise not_found()
    return Draft(cast(Flow, part_of(found, _FLOW)), found.data or "{}")


def read_comparison(session: Session, flow_id: int, version: str) -> Draft:
    """Return a comparison.

    Raises
    ------
    errors.NotFound, errors.Invalid
    """
    found = session.execute(
        select(_FLOW).where(
            _FLOW.c.group_id == flow_id,
            _FLOW.c.version_key == version_key(version),
            _FLOW.c.tag == COMPARISON,
        )
    ).one_or_none()
    if found is None:
        raise version_not_found()
    return Draft(cast(Flow, part_of(found, _FLOW)), found.release_data)


def read_version(session: Session, flow_id: int, version: str) -> Draft:
    """Return what a version or a comparison has frozen, also of a version that no platform has.

    Raises
    ------
    errors.NotFound, errors.Invalid
    """
    found = session.execute(
        select(_FLOW).where(_FLOW.c.group_id == flow_id, _FLOW.c.version_key == version_key(version))
    ).one_or_none()
    if found is None:
        raise version_not_found()
    return Draft(cast(Flow, part_of(found, _FLOW)), found.release_data or "{}")


def list_flows(session: Session, caller: Caller, page: Page) -> dict[str, Any]:
    """Return a page of the app's flows, the newest first."""
    own = (Flow.app_id == str(caller.app_id), Flow.is_deleted == 0, Flow.version_key == "")
    query = through(select(Flow).where(*own), Flow, "ix_flow_app")
    return list_page(session, query, page, [Flow.id], rendering.listed_flow)


def list_versions(session: Session, flow_id: int, page: Page) -> dict[str, Any]:
    """Return a page of a flow's versions, published or taken off, the highest number first."""
    query = select(Flow).where(Flow.group_id == flow_id, Flow.tag == NO_TAG, Flow.version_key > "")
    indexed = through(query, Flow, "uq_flow_group_id_version_key")
    return list_page(session, indexed, page, [Flow.version_key], rendering.version)
