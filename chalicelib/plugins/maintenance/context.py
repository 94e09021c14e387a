"""What the maintenance of plugins works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from chalicelib.core.database import DatabaseService
from chalicelib.core.jobs import Clock, utc_now
from chalicelib.core.settings import settings
from chalicelib.core.storage import Storage
from chalicelib.plugins import incoming, queue
from chalicelib.plugins.installs import LeaseHeld
from chalicelib.plugins.services import Services

# Tells whoever registers packages about an object version: (key, version id).
Announce = Callable[[str, str], None]


@dataclass(frozen=True)
class Context:
    """Handed to every job.

    Parameters
    ----------
    announce
        Called outside units of work.
    orphan_age
        How old an object must be before it may be called an orphan: longer than any function that could still name
        it runs.
    """

    database: DatabaseService
    storage: Storage
    announce: Announce
    orphan_age: timedelta
    now: Clock = utc_now


def plugin_context(services: Services) -> Context:
    """Return the context of this process."""
    age = timedelta(seconds=settings().orphan_age_s)
    return Context(services.database, services.storage, announcer(services), age)


def announcer(services: Services) -> Announce:
    """Return what announces an object: to the install queue, or, where there is none, by registering it here."""
    url = settings().install_queue_url
    if url is None:
        return lambda key, version_id: _register(services, key, version_id)
    bucket = settings().bucket
    return lambda key, version_id: queue.send(url, incoming.announcement(bucket, key, version_id))


def _register(services: Services, key: str, version_id: str) -> None:
    try:
        incoming.register_artifact(services, key, version_id)
    except LeaseHeld:
        return  # somebody works on it, which is all that was wanted
