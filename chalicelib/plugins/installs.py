"""Install tasks: what a publisher asks for, watches, retries and cancels.

A task is claimed by a lease, so that one function at a time works on it, and ends in a state that tells the truth:
`registered`, `rejected` (the package's fault, with every reason), `failed` (ours; may be retried), `cancelled`,
`expired`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, NotFound, TooLarge, Violation
from chalicelib.core.ids import new_ulid
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.representation import check_if_match
from chalicelib.core.settings import settings
from chalicelib.plugins import rendering
from chalicelib.plugins.install_models import (
    AWAITING_UPLOAD,
    CANCELLED,
    EXPIRED,
    FAILED,
    REJECTED,
    TASK_REGISTERED,
    TERMINAL,
    VERIFYING,
    PluginInstall,
)
from chalicelib.plugins.ownership import hold_owner
from chalicelib.plugins.registration import Registered

UPLOAD_S = 3600
# The registering function's timeout (120 s) and a little: a lease that has ended belongs to a dead function.
LEASE_S = 150
TASKS_PREFIX, DROP_PREFIX = "incoming/tasks/", "incoming/drop/"
PROGRESS = {
    "claim": 5, "download": 20, "check": 40, "compile": 55, "store_compiled": 65, "place": 75, "load": 85,
    "commit": 90,
}  # fmt: skip


class LeaseHeld(Conflict):
    """Another function works on the task: an item failure for the queue, never an acknowledgement."""


class Settled(Conflict):
    """The task has ended; a delivery that comes later has nothing to do."""


def key_of(install_id: str) -> str:
    """Return where a task's package is uploaded."""
    return f"{TASKS_PREFIX}{install_id}.zip"


def new_task(
    caller: Caller,
    *,
    filename: str,
    size: int,
    sha256: str | None,
    target: str | None,
    allow_downgrade: bool,
    state: str = AWAITING_UPLOAD,
) -> PluginInstall:
    """Return a new task, not yet saved, for a package that will be uploaded.

    Raises
    ------
    errors.TooLarge
        The declared size is beyond `max_plugin_size`.
    """
    limit = settings().max_plugin_size
    if size > limit:
        raise TooLarge(f"A package may have {limit} bytes.", code="plugin.too_large")
    install_id = new_ulid()
    return PluginInstall(
        install_id=install_id,
        app_id=caller.app_id,
        credential_id=caller.credential_id,
        source="local",
        plugin_id=target,
        allow_downgrade=int(allow_downgrade),
        filename=filename,
        declared_size=size,
        declared_sha256=sha256,
        object_key=key_of(install_id),
        state=state,
        errors=[],
        timings={},
        upload_expires_at=datetime.now(UTC) + timedelta(seconds=UPLOAD_S),
    )


def copy_of(task: PluginInstall) -> PluginInstall:
    """Return an unsaved copy of an unsaved task."""
    names = [column.key for column in PluginInstall.__mapper__.column_attrs]
    return PluginInstall(**{name: value for name in names if (value := getattr(task, name)) is not None})


def save(session: Unit, caller: Caller, task: PluginInstall) -> dict[str, Any]:
    """Add a new task and return its resource.

    Raises
    ------
    errors.Forbidden
        `install.app_disabled`
    """
    hold_owner(session, caller)
    session.add(task)
    session.flush()
    resource = rendering.install(task)
    audit.record(session, caller, "install.create", "install", task.install_id, after=resource)
    return resource


# -- the publisher's view ------------------------------------------------------------------------------------------


def list_tasks(session: Session, caller: Caller, page: Page, *, state: str | None = None) -> dict[str, Any]:
    """Return a page of the caller's app's tasks, newest first."""
    query: Select[Any] = select(PluginInstall).where(PluginInstall.app_id == caller.app_id)
    index = "ix_t_plugin_install_app"
    if state is not None:
        query, index = query.where(PluginInstall.state == state), "ix_t_plugin_install_app_state"
    query = through(query, PluginInstall, index)
    return list_page(session, query, page, [PluginInstall.id], rendering.install, large=True)


def find(session: Session, caller: Caller, install_id: str, *, lock: bool = False) -> PluginInstall:
    """Return a task of the caller's app.

    Raises
    ------
    errors.NotFound
    """
    query = select(PluginInstall).where(
        PluginInstall.install_id == install_id, PluginInstall.app_id == caller.app_id
    )
    task = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if task is None:
        raise NotFound("There is no such install.", code="install.not_found")
    return task


def show(session: Session, caller: Caller, install_id: str) -> dict[str, Any]:
    """Return a task's resource."""
    return rendering.install(find(session, caller, install_id))


def cancel(session: Session, caller: Caller, install_id: str, if_match: str | None = None) -> dict[str, Any]:
    """Cancel a task that has not ended; a function that works on it finds out before it commits.

    Raises
    ------
    errors.PreconditionFailed
    errors.Conflict
        It has ended otherwise.
    """
    task = find(session, caller, install_id, lock=True)
    check_if_match(if_match, rendering.install(task))
    if task.state == CANCELLED:
        return rendering.install(task)
    if task.state in TERMINAL and task.state != FAILED:
        raise Conflict(f"The install is {task.state} already.", code="install.ended")
    task.state = CANCELLED
    task.lease_owner = task.lease_until = None
    session.flush()
    resource = rendering.install(task)
    audit.record(session, caller, "install.cancel", "install", install_id, after=resource)
    return resource


def retry(session: Session, caller: Caller, install_id: str) -> dict[str, Any]:
    """Make a failed task ready for another attempt; whoever calls announces it to the queue afterwards.

    Raises
    ------
    errors.Conflict
        It did not fail, or a function still works on it.
    """
    task = find(session, caller, install_id, lock=True)
    if task.state != FAILED:
        raise Conflict(
            f"The install is {task.state}; only a failed one is retried.", code="install.not_failed"
        )
    task.state = VERIFYING
    task.step, task.progress = "queued", 0
    task.errors, task.error_code = [], None
    task.lease_owner = task.lease_until = None
    session.flush()
    resource = rendering.install(task)
    audit.record(session, caller, "install.retry", "install", install_id, after=resource)
    return resource


# -- the registering function's view -------------------------------------------------------------------------------


def claim(session: Session, key: str, version_id: str, now: datetime) -> tuple[PluginInstall, str]:
    """Take the lease of the task that an object belongs to.

    Returns
    -------
    (task, lease owner); the owner must be shown again at the end.

    Raises
    ------
    LeaseHeld, Settled
    errors.NotFound
        No task names this key.
    """
    task = _locked_by_object(session, key, version_id)
    if task is None:
        raise NotFound("No install names this object.", code="install.not_found")
    if task.state in TERMINAL:
        raise Settled(f"The install is {task.state}.", code="install.ended")
    if task.lease_until is not None and task.lease_until > now:
        raise LeaseHeld("Another function works on this install.", code="install.leased")
    owner = uuid4().hex
    task.object_version = version_id
    task.state, task.step, task.progress = VERIFYING, "claim", PROGRESS["claim"]
    task.attempts += 1
    task.lease_owner, task.lease_until = owner, now + timedelta(seconds=LEASE_S)
    session.flush()
    return task, owner


def _locked_by_object(session: Session, key: str, version_id: str) -> PluginInstall | None:
    """Return the task that an object belongs to, locked.

    Found first and locked by its primary key: the version is part of the index that finds it, so on MySQL a locking
    search that waits for a claim to write the version passes the row by, and would call the object unknown.
    """
    ids = session.scalars(
        select(PluginInstall.id)
        .where(PluginInstall.object_key == key, PluginInstall.object_version.in_(["", version_id]))
        .order_by(PluginInstall.object_version.desc())
    )
    found = ids.first()
    if found is None:
        return None
    task = session.scalars(
        select(PluginInstall).where(PluginInstall.id == found).with_for_update()
    ).one_or_none()
    return task if task is not None and task.object_version in ("", version_id) else None


def held(session: Session, install_id: str, owner: str) -> PluginInstall:
    """Return the task, locked, if the lease is still the caller's.

    Raises
    ------
    Settled
        The publisher cancelled it.
    LeaseHeld
        The lease ended and another function took over.
    """
    task = session.scalars(
        select(PluginInstall).where(PluginInstall.install_id == install_id).with_for_update()
    ).one()
    if task.state in TERMINAL:
        raise Settled(f"The install is {task.state}.", code="install.ended")
    if task.lease_owner != owner:
        raise LeaseHeld("Another function took this install over.", code="install.leased")
    return task


def progress(session: Session, install_id: str, owner: str, step: str, timings: dict[str, float]) -> None:
    """Show how far an install is."""
    task = held(session, install_id, owner)
    task.step = step
    task.progress = max(task.progress, PROGRESS.get(step, 0))
    task.timings = dict(timings)


def finish(
    session: Session, install_id: str, owner: str, registered: Registered, timings: dict[str, float]
) -> None:
    """End a task in the very transaction that registers its package."""
    task = held(session, install_id, owner)
    task.result_plugin_id, task.result_version = registered.plugin_id, registered.version
    _end(task, TASK_REGISTERED, timings=timings)
    task.progress = 100


def reject(
    session: Session, install_id: str, owner: str, code: str, problems: Iterable[Violation], detail: str
) -> None:
    """End a task whose package is at fault, with every reason."""
    task = held(session, install_id, owner)
    _end(task, REJECTED, code, problems, detail)


def release(session: Session, install_id: str, owner: str, code: str, detail: str) -> None:
    """Give the lease back after a failure of ours; the queue delivers the object again."""
    task = held(session, install_id, owner)
    task.lease_owner = task.lease_until = None
    task.error_code = code
    task.errors = [Violation("", code, detail).as_dict()]


def fail(session: Session, key: str, version_id: str, code: str, detail: str, now: datetime) -> bool:
    """End a task that the queue gave up; False where it has ended or a function still works on it."""
    task = _locked_by_object(session, key, version_id)
    if task is None or task.state in TERMINAL:
        return False
    if task.lease_until is not None and task.lease_until > now:
        return False
    # Never claimed, perhaps: a retry must name the object that was given up.
    task.object_version = task.object_version or version_id
    reasons = [Violation(one["pointer"], one["rule"], one["message"]) for one in task.errors or []]
    _end(task, FAILED, task.error_code or code, reasons, detail)
    return True


def expire(session: Session, install_id: str, now: datetime) -> bool:
    """End a task whose upload never came; False where it did."""
    task = session.scalars(
        select(PluginInstall).where(PluginInstall.install_id == install_id).with_for_update()
    ).one()
    if task.state != AWAITING_UPLOAD or task.upload_expires_at is None or task.upload_expires_at > now:
        return False
    _end(task, EXPIRED, "install.upload_expired", (), "Nothing was uploaded in time.")
    return True


def _end(
    task: PluginInstall,
    state: str,
    code: str | None = None,
    problems: Iterable[Violation] = (),
    detail: str = "",
    *,
    timings: dict[str, float] | None = None,
) -> None:
    task.state = state
    task.error_code = code
    found = [problem.as_dict() for problem in problems]
    task.errors = found or ([Violation("", code or state, detail).as_dict()] if detail else [])
    task.lease_owner = task.lease_until = None
    if timings is not None:
        task.timings = dict(timings)
