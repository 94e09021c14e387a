"""Publishing a draft as a version, and taking versions off platforms.

Every writer of a flow holds its draft, so the bits are read, reckoned and written by one at a time; the UPDATE
is conditional on the row's revision besides, so that not even a writer without the lock could lose one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Update, case, or_, select, update

from chalicelib.apps.models import App
from chalicelib.apps.tenants import hold_app
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Conflict, Forbidden, Invalid
from chalicelib.core.hotcache import HotCache
from chalicelib.flows import catalog, licensing, release, rendering
from chalicelib.flows.drafts import MOST_WARNINGS, check, found
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.locking import find_version, lock
from chalicelib.flows.models import COMPARISON, NO_TAG, Flow
from chalicelib.flows.refusals import version_exists, version_not_found
from chalicelib.flows.release import Release

# One by one these go unnoticed; a bulk statement names no flow, so every warm function drops all that it has of flows.
FEW_VERSIONS = 100


@dataclass(frozen=True)
class Valid:
    """A draft that holds.

    Parameters
    ----------
    revision
        The draft's, when it was checked.
    text, checksum
        Its data.
    warnings
        What is doubtful, the first hundred.
    """

    revision: int
    text: str
    checksum: str
    input_schema: dict[str, Any]
    operations: int
    warnings: list[dict[str, str]]


@dataclass(frozen=True)
class Wanted:
    """Where to publish a draft, and as which version."""

    version: str
    platform: int
    api: bool = False


def check_draft(database: DatabaseService, cache: HotCache, caller: Caller, flow_id: int) -> Valid:
    """Return a flow's draft if it may be published. Not inside a unit of work.

    Raises
    ------
    errors.NotFound
    errors.Invalid
        `flow.invalid`, with every violation.
    """
    import json

    with database.reads() as session:
        draft = catalog.read_draft(session, caller, flow_id)
    checked = check(cache, caller, json.loads(draft.text), flow_id)
    if checked.violations:
        raise Invalid(
            "The flow does not hold.",
            code="flow.invalid",
            errors=[one.violation() for one in checked.violations],
            extensions={"violations": checked.total},
        )
    return Valid(
        revision=draft.row.revision,
        text=draft.text,
        checksum=draft.row.checksum,
        input_schema=checked.input_schema,
        operations=checked.operations,
        warnings=found(checked.warnings[:MOST_WARNINGS]),
    )


def publish(session: Unit, caller: Caller, flow_id: int, wanted: Wanted, valid: Valid) -> dict[str, Any]:
    """Publish a draft as a version, or an existing version on one more platform, and return it.

    Parameters
    ----------
    valid
        What `check_draft` returned.

    Raises
    ------
    errors.NotFound, errors.Invalid
    errors.Forbidden
        `app.disabled`, `flow.platform_not_allowed`
    errors.Conflict
        `flow.draft_changed` since it was checked; `flow.version_changed`: the version was frozen with other data;
        `flow.version_exists`: the number is that of a comparison, or of a version that is spelled otherwise.
    """
    key = version_key(wanted.version)
    app = hold_app(session, caller.app_id)
    if app is None or app.status != 1:
        raise Forbidden("The app is disabled.", code="app.disabled")
    draft = lock(session, caller, flow_id)
    if draft.revision != valid.revision:
        raise Conflict(
            "The draft was changed while it was checked; publish it again.", code="flow.draft_changed"
        )
    _check_platform(app, draft, wanted.platform)
    row = find_version(session, flow_id, key)
    before = None if row is None else rendering.version(row)
    if row is None:
        row = _freeze(caller, draft, wanted.version, key, valid)
        session.add(row)
    else:
        _check_same(row, wanted.version, valid)
    held = Release(row.release_status or 0, row.release_api or 0)
    _set(row, caller, release.publish(held, wanted.platform, api=wanted.api))
    licensing.grant_owner(session, draft)
    session.flush()
    after = rendering.version(row)
    audit.record(session, caller, "flow.publish", "flow", str(flow_id), before=before, after=after)
    return {**after, "warnings": valid.warnings}


def _check_platform(app: App, draft: Flow, platform: int) -> None:
    if not (app.is_tenant and app.plat_release_auth & platform and draft.source & platform):
        raise Forbidden(
            f"The app, or this flow of it, may not publish to platform {platform}.",
            code="flow.platform_not_allowed",
        )


def _check_same(row: Flow, version: str, valid: Valid) -> None:
    if row.tag == COMPARISON:
        raise version_exists("a comparison")
    if row.version != version:
        raise version_exists(f"version {row.version}")
    if row.checksum != valid.checksum:
        raise Conflict(
            "The draft has changed since this version was published; publish it under a new number.",
            code="flow.version_changed",
        )


def _freeze(caller: Caller, draft: Flow, version: str, key: str, valid: Valid) -> Flow:
    return Flow(
        group_id=draft.id,
        version=version,
        version_key=key,
        name=draft.name,
        description=draft.description,
        release_data=valid.text,
        checksum=valid.checksum,
        input_schema=valid.input_schema,
        operations=valid.operations,
        warnings=valid.warnings,
        app_id=draft.app_id,
        source=draft.source,
        tag=NO_TAG,
        create_by=caller.credential_id,
    )


def _set(row: Flow, caller: Caller, wanted: Release) -> None:
    row.release_status, row.release_api = wanted.status, wanted.api
    row.status = int(release.is_live(wanted.status))
    row.update_by = caller.credential_id


# -- taking off ----------------------------------------------------------------------------------------------


def take_off(
    session: Unit, caller: Caller, flow_id: int, platform: int, version: str | None = None
) -> dict[str, Any]:
    """Take a flow off a platform: the version that is named, or all that the platform has.

    What the platform does not have is left as it is.

    Returns
    -------
    `{"flowId", "platform", "takenOff": how many versions}`

    Raises
    ------
    errors.NotFound, errors.Invalid
    """
    draft = lock(session, caller, flow_id)
    rows = _taken(session, flow_id, platform, version)
    count = len(rows)
    if count > FEW_VERSIONS:
        count = session.execute(_take_all(caller, flow_id, platform)).rowcount  # type: ignore[attr-defined]
    else:
        for row in rows:
            _set(row, caller, release.take_off(Release(row.release_status, row.release_api), platform))
        session.flush()
    after = {"flowId": str(draft.id), "platform": platform, "takenOff": count}
    if count:
        told = {**after, "version": version}
        audit.record(session, caller, "flow.take_off", "flow", str(flow_id), after=told)
    return after


def _taken(session: Unit, flow_id: int, platform: int, version: str | None) -> list[Flow]:
    if version is not None:
        row = find_version(session, flow_id, version_key(version))
        if row is None or row.tag == COMPARISON:
            raise version_not_found()
        return [row] if Release(row.release_status, row.release_api).on(platform) else []
    query = select(Flow).where(*_on(flow_id, platform)).limit(FEW_VERSIONS + 1)
    return list(session.scalars(query, execution_options={"populate_existing": True}))


def _on(flow_id: int, platform: int) -> tuple[ColumnElement[bool], ...]:
    plainly = Flow.release_status.bitwise_and(release.PUBLISHED[platform]) != 0
    as_api = Flow.release_api.bitwise_and(platform) != 0
    return Flow.group_id == flow_id, Flow.tag == NO_TAG, Flow.status == 1, or_(plainly, as_api)


def _take_all(caller: Caller, flow_id: int, platform: int) -> Update:
    """`release.take_off` for all versions that a platform has, as one statement.

    MySQL reckons each column from those that it has already set: taking off twice is taking off once, so in
    whatever order they come, the outcome is the same.
    """
    api = Flow.release_api.bitwise_and(~platform)
    others = Flow.release_status.bitwise_and(~(release.PUBLISHED[platform] | release.API))
    kept = others.bitwise_or(case((api != 0, release.API), else_=0))
    return (
        update(Flow)
        .where(*_on(flow_id, platform))
        .values(
            status=case((kept.bitwise_and(release.LIVE) != 0, 1), else_=0),
            release_status=kept.bitwise_or(release.TAKEN_OFF[platform]),
            release_api=api,
            revision=Flow.revision + 1,
            update_by=caller.credential_id,
        )
        .execution_options(synchronize_session=False)
    )
