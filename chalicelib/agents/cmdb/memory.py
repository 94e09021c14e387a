"""What cmdb keeps beside its history: each user's environment and a count of lookups in shared tables, answers in a
table of its own.

No statement here names the app or the agent: the sessions of `self.database` add them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from chalicelib.agents.base import ScopedDatabase
from chalicelib.agents.cmdb.models import CmdbQueryCache, SharedAnalyticsEvents, SharedUserPreferences
from chalicelib.core.database import is_duplicate

ENVIRONMENT = "environment"
LOOKUP = "lookup"
# Expired answers that one new answer takes along: everything that can be asked would be kept for ever otherwise.
MOST_PURGED = 20


@dataclass(frozen=True)
class Memory:
    """What is kept for one app.

    Parameters
    ----------
    cached_for
        How long an answer is used again; not at all for zero.
    """

    database: ScopedDatabase
    cached_for: timedelta

    # -- each user's environment -----------------------------------------------------------------------------

    def environment(self, user: str) -> str | None:
        """Return the environment that a user means by default."""
        with self.database.reads() as session:
            row = session.scalars(_preference(user)).one_or_none()
            return None if row is None else str(row.value)

    def remember(self, user: str, environment: str) -> None:
        """Keep the environment that a user means by default."""

        def work(session: Any) -> None:
            row = session.scalars(_preference(user).with_for_update()).one_or_none()
            if row is None:
                session.add(SharedUserPreferences(user_id=user, name=ENVIRONMENT, value=environment))
            else:
                row.value = environment

        self._write(work)

    # -- answers ---------------------------------------------------------------------------------------------

    def answer(self, asked: Mapping[str, str]) -> Any | None:
        """Return what was answered to the same question lately."""
        if not self.cached_for:
            return None
        query = select(CmdbQueryCache.answer).where(
            CmdbQueryCache.query_digest == _digest(asked), CmdbQueryCache.expires_at > datetime.now(UTC)
        )
        with self.database.reads() as session:
            return session.scalars(query).one_or_none()

    def keep(self, thread_id: str, asked: Mapping[str, str], answer: Any, found: int) -> None:
        """Keep a new answer, and count the lookup, in one unit."""

        def work(session: Any) -> None:
            if self.cached_for:
                _keep(session, _digest(asked), answer, datetime.now(UTC), self.cached_for)
            session.add(_lookup(thread_id, found))

        self._write(work)

    def count(self, thread_id: str, found: int) -> None:
        """Count a lookup that an earlier answer has served."""
        self.database.run(lambda session: session.add(_lookup(thread_id, found)))

    def _write(self, work: Callable[[Any], None]) -> None:
        """Run a unit that changes a row or adds it, again where another has added it meanwhile: it is there then."""
        try:
            self.database.run(work)
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            self.database.run(work)


def _preference(user: str) -> Any:
    return select(SharedUserPreferences).where(
        SharedUserPreferences.user_id == user, SharedUserPreferences.name == ENVIRONMENT
    )


def _lookup(thread_id: str, found: int) -> SharedAnalyticsEvents:
    return SharedAnalyticsEvents(event_name=LOOKUP, thread_id=thread_id, properties={"found": found})


def _digest(asked: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _keep(session: Any, digest: str, answer: Any, now: datetime, cached_for: timedelta) -> None:
    same = select(CmdbQueryCache).where(CmdbQueryCache.query_digest == digest)
    row = session.scalars(same.with_for_update()).one_or_none()
    if row is None:
        session.add(CmdbQueryCache(query_digest=digest, answer=answer, expires_at=now + cached_for))
    else:
        row.answer, row.expires_at = answer, now + cached_for
    expired = (
        select(CmdbQueryCache.id)
        .where(CmdbQueryCache.expires_at <= now)
        .order_by(CmdbQueryCache.expires_at)
        .limit(MOST_PURGED)
    )
    ids = list(session.scalars(expired))
    # Asked for again: another function may have renewed one of them.
    session.execute(
        delete(CmdbQueryCache).where(CmdbQueryCache.id.in_(ids), CmdbQueryCache.expires_at <= now)
    )
