"""Objects under `incoming/`: those whose event never came, and those that nobody will ever fetch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps import service as apps
from chalicelib.core.jobs import Action, Plan
from chalicelib.core.steps import declare, step
from chalicelib.core.storage import ObjectVersion
from chalicelib.plugins import incoming, installs
from chalicelib.plugins.install_models import AWAITING_UPLOAD, FAILED, TERMINAL, PluginInstall
from chalicelib.plugins.installs import TASKS_PREFIX
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.maintenance.objects import in_turns, window

STEPS = declare("arrivals", ("announce", "expire", "delete_incoming"))
INCOMING = "incoming/"
# S3 delivers within seconds; whatever still lies here then was missed, or was left by a kill.
SETTLED = timedelta(minutes=5)
# For whom it is may still be set right, a failed install retried.
UNCLAIMED_KEPT = timedelta(days=7)
# An upload that began in time may end a little later.
EXPIRY_GRACE = timedelta(minutes=5)
WINDOW = 1000
TASKS = 500
KEYS = 50


@dataclass(frozen=True)
class Arrival:
    """One object version under `incoming/`.

    Parameters
    ----------
    task
        The install that it belongs to.
    adoptable
        It has no task and may get one: dropped for an enabled app, and not withdrawn.
    newest
        No version of the same key is newer.
    withdrawn
        Somebody deleted the key afterwards, which leaves the version below a marker.
    """

    version: ObjectVersion
    task: PluginInstall | None
    adoptable: bool
    newest: bool
    withdrawn: bool


def plan_lost_events(context: Context, state: Mapping[str, Any]) -> Plan:
    """Announce the uploads and drops that no event told of, and delete what ended installs left."""
    seen = window(context.storage, INCOMING, state.get("after"), WINDOW)
    settled = context.now() - SETTLED
    actions = []
    for arrival in _arrivals(context, seen.versions):
        version, task = arrival.version, arrival.task
        if version.is_delete_marker or version.last_modified >= settled:
            continue
        if task is None:
            due = arrival.adoptable
        else:
            due = task.state == AWAITING_UPLOAD and arrival.newest and not arrival.withdrawn
        if due:
            actions.append(Action("announce_upload", _shown(version), _announce(context, version)))
        elif task is not None and task.state in TERMINAL and task.state != FAILED:
            actions.append(Action("delete_leftover", _shown(version), _delete(context, version)))
    return Plan(tuple(actions), {"after": seen.cursor}, more=seen.cursor is not None)


def plan_expired_uploads(context: Context, state: Mapping[str, Any]) -> Plan:
    """End the installs whose upload never came, and delete what lay unclaimed for a week."""
    seen = window(context.storage, INCOMING, state.get("after"), WINDOW)
    actions = _expiries(context)
    more = len(actions) == TASKS or seen.cursor is not None
    arrivals = _arrivals(context, seen.versions)
    for _, group in groupby(arrivals, key=lambda arrival: arrival.version.key):
        # The oldest first: deleting a marker while something lies below it would bring that back.
        doomed = []
        for arrival in reversed(list(group)):
            if not _unclaimed(context, arrival):
                break
            doomed.append(arrival.version)
        actions += [Action("delete_unclaimed", _shown(one), _delete(context, one)) for one in doomed]
    return Plan(tuple(actions), {"after": seen.cursor}, more=more)


def _unclaimed(context: Context, arrival: Arrival) -> bool:
    if arrival.version.last_modified >= context.now() - UNCLAIMED_KEPT:
        return False
    if arrival.version.is_delete_marker:
        return True
    if arrival.task is None:
        return not arrival.adoptable
    return arrival.task.state in TERMINAL


# -- looking -------------------------------------------------------------------------------------------------


def _arrivals(context: Context, versions: tuple[ObjectVersion, ...]) -> list[Arrival]:
    keys = sorted({version.key for version in versions})
    with context.database.reads() as session:
        tasks = _tasks(session, keys)
        aliases = _aliases(session, keys)
    found = []
    for key, group in groupby(versions, key=lambda version: version.key):
        withdrawn = False
        for place, version in enumerate(group):
            withdrawn = withdrawn or version.is_delete_marker
            task = _task_of(version, tasks.get(key, []))
            adoptable = task is None and _alias(key) in aliases and not withdrawn
            found.append(Arrival(version, task, adoptable, place == 0, withdrawn))
    return found


def _tasks(session: Session, keys: list[str]) -> dict[str, list[PluginInstall]]:
    found: dict[str, list[PluginInstall]] = {}
    for some in in_turns(keys, KEYS):
        for task in session.scalars(select(PluginInstall).where(PluginInstall.object_key.in_(some))):
            found.setdefault(task.object_key, []).append(task)
    return found


def _task_of(version: ObjectVersion, tasks: list[PluginInstall]) -> PluginInstall | None:
    for task in tasks:
        # An upload's key is its task's alone, whatever was uploaded there again; a drop is a task per version.
        if version.key.startswith(TASKS_PREFIX) or task.object_version == version.version_id:
            return task
    return None


def _alias(key: str) -> str:
    dropped = incoming.dropped_for(key)
    return "" if dropped is None else dropped[0]


def _aliases(session: Session, keys: list[str]) -> set[str]:
    """Return which of the apps that something was dropped for exist and are enabled."""
    named = {_alias(key) for key in keys} - {""}
    return {alias for alias in named if apps.enabled_app_id(session, alias) is not None}


def _shown(version: ObjectVersion) -> str:
    return f"{version.key}@{version.version_id}"


# -- doing ---------------------------------------------------------------------------------------------------


def _announce(context: Context, version: ObjectVersion) -> Callable[[], bool]:
    def work() -> bool:
        step("arrivals", "announce")
        context.announce(version.key, version.version_id)
        return False

    return work


def _delete(context: Context, version: ObjectVersion) -> Callable[[], bool]:
    def work() -> bool:
        with context.database.reads() as session:
            task = _task_of(version, _tasks(session, [version.key]).get(version.key, []))
        # A retry may have begun since the plan was made.
        if task is None or task.state in TERMINAL:
            step("arrivals", "delete_incoming")
            context.storage.delete(version.key, version.version_id)
        return False

    return work


def _expiries(context: Context) -> list[Action]:
    query = (
        select(PluginInstall.install_id, PluginInstall.object_key)
        .where(
            PluginInstall.state == AWAITING_UPLOAD,
            PluginInstall.upload_expires_at < context.now() - EXPIRY_GRACE,
        )
        .order_by(PluginInstall.updated_at)
        .limit(TASKS)
    )
    with context.database.reads() as session:
        rows = session.execute(query).all()
    return [
        Action("expire_install", install_id, _expire(context, install_id, key)) for install_id, key in rows
    ]


def _expire(context: Context, install_id: str, key: str) -> Callable[[], bool]:
    def work() -> bool:
        info = context.storage.head(key)
        if info is not None:
            step("arrivals", "announce")
            context.announce(key, info.version_id)
            return False
        step("arrivals", "expire")
        context.database.run(lambda session: installs.expire(session, install_id, context.now()))
        return False

    return work
