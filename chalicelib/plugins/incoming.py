"""What arrives in the bucket: an event names an object, and this makes an install of it.

The event is never trusted: it only says where to look. Deliveries come at least once and out of order, so every step
may be repeated: same name, version and digest is success.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from chalicelib.apps import service as apps
from chalicelib.apps.models import ALIAS_PATTERN
from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit, is_duplicate
from chalicelib.core.errors import (
    Conflict,
    Forbidden,
    HotplugError,
    Invalid,
    NotFound,
    TooLarge,
    Violation,
)
from chalicelib.core.ids import ULID_PATTERN, new_ulid
from chalicelib.core.settings import settings
from chalicelib.core.steps import declare, step
from chalicelib.core.storage import Download
from chalicelib.plugins import installs
from chalicelib.plugins.decision import Terms
from chalicelib.plugins.install_models import FAILED, PluginInstall
from chalicelib.plugins.installs import LeaseHeld, Settled
from chalicelib.plugins.registration import Artifact, Registered, Registration
from chalicelib.plugins.services import Services

STEPS = declare(
    "incoming", ("adopt", "claim", "download", "progress", "reject", "release", "delete_incoming")
)
# The steps that may take long, and so are shown to the publisher while they last.
_SHOWN = ("check", "compile", "load")
# How often one delivery tries while others keep changing the plugin.
_LOOKS = 5
# Whose fault it is decides how a task ends: these are the package's or the publisher's.
_REJECTIONS = (Conflict, Forbidden, Invalid, NotFound, TooLarge)
# Columns of t_plugin_install; what is longer, S3 may have sent, but we have not asked for.
_LONGEST_KEY, _LONGEST_VERSION = 500, 128
_TASK_KEY = re.compile(installs.TASKS_PREFIX + ULID_PATTERN.strip("^$") + r"\.zip")
_DROP_KEY = re.compile(f"{installs.DROP_PREFIX}({ALIAS_PATTERN.strip('^$')})/(.+)", re.DOTALL)


@dataclass(frozen=True)
class IncomingObject:
    """One object version under `incoming/`."""

    key: str
    version_id: str


def dropped_for(key: str) -> tuple[str, str] | None:
    """Return (alias, filename) of a key under `incoming/drop/`, None for any other.

    Exactly: MySQL's collations call 'acme' and 'acme ' equal, and a folder of the second name is not the first one's.
    S3 takes `..` literally, but whatever stands in between may climb out of the folder with it.
    """
    found = _DROP_KEY.fullmatch(key) if len(key) <= _LONGEST_KEY else None
    if found is None or {".", ".."} & set(key.split("/")):
        return None
    return found[1], found[2]


def _is_incoming(key: str, version_id: str | None) -> bool:
    """Tell whether an object is one that an install may be made of; a forged event could name any other."""
    known = _TASK_KEY.fullmatch(key) is not None or dropped_for(key) is not None
    return known and len(version_id or "") <= _LONGEST_VERSION and _is_text(key + (version_id or ""))


def _is_text(name: str) -> bool:
    # JSON can spell half a character, which no store takes.
    return name.encode(errors="replace").decode() == name


def register_artifact(services: Services, key: str, version_id: str | None) -> str:
    """Bring the install that an object belongs to to its end.

    Parameters
    ----------
    key
        Decoded object key.
    version_id
        From the event; None looks the newest version up.

    Returns
    -------
    What became of it: `registered`, `rejected`, `settled`, `unknown` or `gone`.

    Raises
    ------
    installs.LeaseHeld
        Another function works on it: not acknowledged, delivered again.
    errors.HotplugError
        A failure of ours, after which the same delivery may be repeated.
    """
    if not _is_incoming(key, version_id):
        telemetry.event("plugin.unknown_object", key=key[:_LONGEST_KEY])
        return "unknown"
    if version_id is None:
        info = services.storage.head(key)
        if info is None:
            return "gone"
        version_id = info.version_id
    incoming = IncomingObject(key, version_id)
    try:
        task, owner = _claim(services, incoming)
    except Settled:
        if not _may_be_retried(services, incoming):
            _delete(services, incoming)
        return "settled"
    except NotFound:
        # No task and no tenant: kept for a while, so that an operator can see what was dropped where.
        telemetry.event("plugin.unknown_object", key=key)
        return "unknown"
    return _Work(services, incoming, task, owner).run()


def _may_be_retried(services: Services, incoming: IncomingObject) -> bool:
    """Tell whether the install that has ended is a failed one, whose retry needs the object: the same event may be
    delivered once more after its twin became a dead letter. Every other end is for good."""
    states = select(PluginInstall.state).where(*_of(incoming))
    with services.database.reads() as session:
        return FAILED in session.scalars(states).all()


def _of(incoming: IncomingObject) -> tuple[ColumnElement[bool], ...]:
    """Return the condition for the task of an object, which may not know its object's version yet."""
    versions = ("", incoming.version_id)
    return PluginInstall.object_key == incoming.key, PluginInstall.object_version.in_(versions)


def _claim(services: Services, incoming: IncomingObject) -> tuple[PluginInstall, str]:
    dropped = dropped_for(incoming.key)
    if dropped is not None:
        _adopt(services, incoming, *dropped)
    step("incoming", "claim")
    return services.database.run(
        lambda session: installs.claim(session, incoming.key, incoming.version_id, datetime.now(UTC))
    )


def _adopt(services: Services, incoming: IncomingObject, alias: str, filename: str) -> None:
    """Give a dropped object its task, once: (key, version) is unique."""

    def work(session: Unit) -> None:
        app_id = apps.enabled_app_id(session, alias)
        if app_id is None:
            raise NotFound("No enabled app has this name.", code="install.no_app")
        known = select(PluginInstall.id).where(
            PluginInstall.object_key == incoming.key, PluginInstall.object_version == incoming.version_id
        )
        if session.scalars(known).one_or_none() is None:
            session.add(
                PluginInstall(
                    install_id=new_ulid(),
                    app_id=app_id,
                    source="s3",
                    filename=filename[:255],
                    object_key=incoming.key,
                    object_version=incoming.version_id,
                    state="verifying",
                    errors=[],
                    timings={},
                )
            )

    step("incoming", "adopt")
    try:
        services.database.run(work)
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        # The same event, delivered twice at once: the other one made the task.


class _Work:
    """One claimed install, from its object to its end."""

    def __init__(self, services: Services, incoming: IncomingObject, task: PluginInstall, owner: str) -> None:
        self._services = services
        self._incoming = incoming
        self._task = task
        self._owner = owner
        self._timings: dict[str, float] = {}
        self._began = time.perf_counter()

    def run(self) -> str:
        try:
            outcome = self._register()
        except (LeaseHeld, Settled):
            raise
        except _REJECTIONS as error:
            if error.retry_after is not None:
                self._release(error.code, error.detail)
                raise
            step("incoming", "reject")
            self._finish_rejected(error)
            outcome = "rejected"
        except HotplugError as error:
            # Ours, or a race that was lost: the next delivery finds out.
            self._release(error.code, error.detail)
            raise
        except Exception:
            # A defect of ours: the next delivery must not wait for the lease to end.
            self._release("install.crashed", "Something went wrong on our side; the log has it.")
            raise
        _delete(self._services, self._incoming)
        return outcome

    def _register(self) -> str:
        caller = self._caller()
        with tempfile.TemporaryDirectory(prefix="hotplug-install-") as folder:
            path = Path(folder, "package.zip")
            download = self._download(path)
            self._compare(download)
            terms = Terms(
                target=self._task.plugin_id,
                updates=self._task.source == "s3",
                allow_downgrade=bool(self._task.allow_downgrade),
            )
            artifact = Artifact(path, download.sha256, download.size, self._task.source, self._place)
            registration = Registration(self._services, caller, artifact, terms, watch=self._show)
            self._run(registration)
        return "registered"

    def _run(self, registration: Registration) -> None:
        """Register; once more where the plugin moved on meanwhile. The queue would deliver again minutes later."""
        for _ in range(_LOOKS - 1):
            try:
                registration.run(self._services.database.run, self._end)
                return
            except Conflict as error:
                if error.retry_after is None:
                    raise
            self._services.cache.refresh()
        registration.run(self._services.database.run, self._end)

    def _caller(self) -> Caller:
        """Return in whose name the package is registered: the tenant that the task belongs to."""
        with self._services.database.reads() as session:
            alias = apps.enabled_alias(session, self._task.app_id)
        if alias is None:
            raise Forbidden("The app is disabled.", code="install.app_disabled")
        credential = self._task.credential_id or 0
        return Caller(self._task.app_id, alias, credential, "publisher", f"install-{self._task.install_id}")

    def _download(self, path: Path) -> Download:
        step("incoming", "download")
        limit = self._task.declared_size or settings().max_plugin_size
        began = time.perf_counter()
        with path.open("wb") as file:
            download = self._services.storage.download(
                self._incoming.key, self._incoming.version_id, file, max_bytes=limit
            )
        self._timings["downloadMs"] = round((time.perf_counter() - began) * 1000, 1)
        return download

    def _compare(self, download: Download) -> None:
        """Hold what arrived against what was declared; S3 is asked to, and emulators do not all do it."""
        problems = []
        if self._task.declared_size is not None and download.size != self._task.declared_size:
            message = f"{self._task.declared_size} bytes were declared, {download.size} arrived"
            problems.append(Violation("/size", "upload.size", message))
        if self._task.declared_sha256 is not None and download.sha256 != self._task.declared_sha256:
            problems.append(Violation("/sha256", "upload.sha256", "the bytes have another SHA-256"))
        if problems:
            raise Invalid("The upload is not what was declared.", code="upload.differs", errors=problems)

    def _place(self, key: str) -> str:
        return self._services.storage.copy(self._incoming.key, self._incoming.version_id, key)

    def _end(self, session: Unit, registered: Registered) -> None:
        self._timings["totalMs"] = round((time.perf_counter() - self._began) * 1000, 1)
        installs.finish(session, self._task.install_id, self._owner, registered, self._timings)

    def _show(self, name: str) -> None:
        if name not in _SHOWN:
            return
        step("incoming", "progress")
        self._services.database.run(
            lambda session: installs.progress(
                session, self._task.install_id, self._owner, name, self._timings
            )
        )

    def _release(self, code: str, detail: str) -> None:
        step("incoming", "release")
        self._services.database.run(
            lambda session: installs.release(session, self._task.install_id, self._owner, code, detail)
        )

    def _finish_rejected(self, error: HotplugError) -> None:
        telemetry.event("plugin.rejected", installId=self._task.install_id, code=error.code)
        problems = error.errors or (Violation("", error.code, error.detail),)
        self._services.database.run(
            lambda session: installs.reject(
                session, self._task.install_id, self._owner, error.code, problems, error.detail
            )
        )


def _delete(services: Services, incoming: IncomingObject) -> None:
    """Remove the object by its version: a plain delete would hide a newer upload under the same key."""
    step("incoming", "delete_incoming")
    services.storage.delete(incoming.key, incoming.version_id)


def give_up(services: Services, key: str, version_id: str | None, reason: str) -> bool:
    """End the install of an object that the queue gave up; False where there is nothing to end.

    Parameters
    ----------
    reason
        For the publisher.

    Raises
    ------
    installs.LeaseHeld
        A function still works on it, or died within its lease: to be asked again.
    """
    incoming = IncomingObject(key, version_id or "")
    if not _is_incoming(key, version_id):
        return False

    def work(session: Unit) -> bool:
        now = datetime.now(UTC)
        if installs.fail(session, key, incoming.version_id, "install.gave_up", reason, now):
            return True
        leases = session.scalars(select(PluginInstall.lease_until).where(*_of(incoming)))
        if any(until is not None and until > now for until in leases):
            raise LeaseHeld("A function works on this install.", code="install.leased")
        return False

    return services.database.run(work)


def announcement(bucket: str, key: str, version_id: str) -> dict[str, Any]:
    """Return the event that S3 would send for an object: for a retry, and for an event that never came."""
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Hotplug",
                # As S3 does: whoever reads the event decodes the key.
                "s3": {
                    "bucket": {"name": bucket},
                    "object": {"key": quote_plus(key), "versionId": version_id},
                },
            }
        ]
    }
