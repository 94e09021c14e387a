"""Installs whose function died, or whose announcement was lost: handed to the queue again, or ended.

An install that is `verifying` with no live lease is nobody's. Its object decides what becomes of it: while that is
there, registering can begin anew, as often as `MAX_ATTEMPTS` allows; without it the install has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select

from chalicelib.core.database import Unit
from chalicelib.core.errors import Violation
from chalicelib.core.jobs import Action
from chalicelib.core.steps import step
from chalicelib.plugins import installs
from chalicelib.plugins.install_models import VERIFYING, PluginInstall
from chalicelib.plugins.maintenance.context import Context

MAX_ATTEMPTS = 5
# An announcement that was made is given this long to arrive.
ANNOUNCED_AGAIN_AFTER = timedelta(minutes=1)
BATCH = 200


def plan_stuck(context: Context) -> list[Action]:
    """Return an action for each install that nobody works on, those that wait longest first."""
    query = select(PluginInstall).where(_stuck(context.now())).order_by(PluginInstall.updated_at).limit(BATCH)
    with context.database.reads() as session:
        tasks = session.scalars(query).all()
    return [
        Action("fail_install", task.install_id, _fail(context, task.install_id, *_GIVEN_UP))
        if _spent(task)
        else Action("announce_install", task.install_id, _announce(context, task.install_id))
        for task in tasks
    ]


_GIVEN_UP = ("install.gave_up", f"Registering was begun more than {MAX_ATTEMPTS} times and never ended.")
_VANISHED = ("install.upload_vanished", "The uploaded package is gone; upload it again.")


def _stuck(now: datetime) -> ColumnElement[bool]:
    """The lease ended with its function, or was never taken and the announcement is long due."""
    dead = PluginInstall.lease_until < now
    unheard = and_(
        PluginInstall.lease_until.is_(None), PluginInstall.updated_at < now - ANNOUNCED_AGAIN_AFTER
    )
    return and_(PluginInstall.state == VERIFYING, or_(dead, unheard))


def _spent(task: PluginInstall) -> bool:
    # A publisher's retry counts from the attempt that it asks for: `queued` until that one begins.
    return task.attempts > MAX_ATTEMPTS and task.step != "queued"


def _announce(context: Context, install_id: str) -> Callable[[], bool]:
    def work() -> bool:
        with context.database.reads() as session:
            found = select(PluginInstall).where(PluginInstall.install_id == install_id, _stuck(context.now()))
            task = session.scalars(found).one_or_none()
        if task is None:
            return False
        info = context.storage.head(task.object_key, task.object_version or None)
        if info is None:
            return _fail(context, install_id, *_VANISHED)()
        step("sweep", "note_announcement")
        if context.database.run(lambda session: _note(session, install_id, context.now())):
            step("sweep", "announce")
            context.announce(task.object_key, info.version_id)
        return False

    return work


def _note(session: Unit, install_id: str, now: datetime) -> bool:
    """Let the next announcement wait its time; False where somebody took the install up meanwhile."""
    task = _locked(session, install_id, now)
    if task is None:
        return False
    task.lease_owner = task.lease_until = None
    task.updated_at = now
    return True


def _fail(context: Context, install_id: str, code: str, reason: str) -> Callable[[], bool]:
    def end(session: Unit) -> None:
        now = context.now()
        task = _locked(session, install_id, now)
        if task is None:
            return
        # Beside what the attempts themselves reported.
        task.errors = [*(task.errors or []), Violation("", code, reason).as_dict()]
        task.error_code = code
        installs.fail(session, task.object_key, task.object_version, code, reason, now)

    def work() -> bool:
        step("sweep", "fail_install")
        context.database.run(end)
        return False

    return work


def _locked(session: Unit, install_id: str, now: datetime) -> PluginInstall | None:
    query = select(PluginInstall).where(PluginInstall.install_id == install_id, _stuck(now))
    return session.scalars(query.with_for_update()).one_or_none()
