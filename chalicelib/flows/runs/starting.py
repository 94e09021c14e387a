"""A run comes to be: what it may run, in which mode, and a place among the runs of its app."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit, is_duplicate
from chalicelib.core.errors import Invalid, TooManyRequests, Violation
from chalicelib.core.hotcache import HotCache
from chalicelib.core.ids import new_ulid
from chalicelib.core.settings import settings
from chalicelib.flows.dsl.limits import MAX_DURABLE_OPERATIONS
from chalicelib.flows.engine.call import Scope
from chalicelib.flows.runs import callbacks, plans
from chalicelib.flows.runs.models import FlowRun, FlowRunData
from chalicelib.flows.runs.names import AUTO, DURABLE, EXPRESS, QUEUED, RUNNING
from chalicelib.flows.runs.plans import Runnable

T = TypeVar("T")
LEASE_S = 30
"""For how long an express run may be silent before the sweep takes its function for dead."""
RESEND_S = 60
"""When the sweep sends a durable run again that has not begun."""
_USED_AGAIN = timedelta(days=1)


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Parameters
    ----------
    mode
        auto, express or durable.
    waits
        Whether the caller wants to wait at all: if not, `auto` is durable.
    """

    parameters: Mapping[str, Any]
    uid: str = ""
    chat_id: str = ""
    keeps_history: bool = True
    mode: str = AUTO
    waits: bool = True
    callback_url: str | None = None


@dataclass(frozen=True)
class Begun:
    """A run that has a row."""

    run_id: str
    mode: str
    runnable: Runnable
    scope: Scope
    wanted: Wanted


def mode_of(cache: HotCache, runnable: Runnable, wanted: Wanted) -> str:
    """Return how a run is to be executed.

    Raises
    ------
    errors.Invalid
        `run.needs_durable`, `run.too_many_operations`
    """
    asks = plans.asks_questions(cache, runnable)
    mode = wanted.mode
    if mode == AUTO:
        mode = DURABLE if asks or not wanted.waits else EXPRESS
    if mode == EXPRESS and asks:
        raise _refused(
            "run.needs_durable", "An express run cannot wait for an answer; this flow asks a question."
        )
    if mode == DURABLE and runnable.operations > MAX_DURABLE_OPERATIONS:
        raise _refused(
            "run.too_many_operations",
            f"A durable run takes at most {MAX_DURABLE_OPERATIONS} operations; this flow may take"
            f" {runnable.operations}.",
        )
    return mode


def begin(
    database: DatabaseService, cache: HotCache, caller: Caller, runnable: Runnable, wanted: Wanted
) -> Begun:
    """Store a run that is about to be executed. Not inside a unit.

    Raises
    ------
    errors.Invalid
        Those of `mode_of` and of `callbacks.check`.
    errors.TooManyRequests
        `run.too_many`: the app has as many runs as it may have.
    """
    mode = mode_of(cache, runnable, wanted)
    if wanted.callback_url is not None:
        callbacks.check(database, caller, wanted.callback_url)
    run_id = new_ulid()
    author = plans.author_of(cache, caller, runnable.author_id)
    scope = Scope(run_id, caller, author, runnable.flow_id, wanted.uid, wanted.chat_id, wanted.keeps_history)
    begun = Begun(run_id, mode, runnable, scope, wanted)
    with_place(lambda: database.run(lambda session: _store(session, begun)))
    return begun


def with_place(work: Callable[[], T]) -> T:
    """Return what a unit gives that takes a `free_slot`; it is repeated where another run took the same one.

    Raises
    ------
    errors.TooManyRequests
        `run.too_many`
    """
    # Each place that is lost was won by another run; one try more for the data, which two runs may store at once.
    for _ in range(settings().max_runs + 1):
        try:
            return work()
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            continue
    raise _full()


def keep_data(database: DatabaseService, digest: str, text: str) -> None:
    """Keep the data that a run runs, for as long as runs of it may wait. Not inside a unit."""

    def keep(session: Unit) -> None:
        _keep(session, digest, text, datetime.now(UTC))

    try:
        database.run(keep)
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        # Another run has stored it meanwhile: it is there now.
        database.run(keep)


def read_data(session: Unit, digest: str, now: datetime) -> str:
    """Return what a run runs, and note, at most once a day, that it is still needed."""
    _use(session, digest, now)
    return session.scalars(select(FlowRunData.data).where(FlowRunData.digest == digest)).one()


def _keep(session: Unit, digest: str, text: str, now: datetime) -> None:
    known = select(FlowRunData.digest).where(FlowRunData.digest == digest)
    if session.scalar(known) is None:
        session.add(FlowRunData(digest=digest, data=text, used_at=now))
        session.flush()
    else:
        _use(session, digest, now)


def _use(session: Unit, digest: str, now: datetime) -> None:
    # Once a day: written by each run, the row would make all runs of a flow wait for each other.
    session.execute(
        update(FlowRunData)
        .where(FlowRunData.digest == digest, FlowRunData.used_at < now - _USED_AGAIN)
        .values(used_at=now),
        execution_options={"synchronize_session": False},
    )


def free_slot(session: Unit, app_id: int) -> int:
    """Return a place among the runs of an app that seems free; the unique index decides.

    Raises
    ------
    errors.TooManyRequests
        `run.too_many`
    """
    most = settings().max_runs
    taken = set(session.scalars(select(FlowRun.slot).where(FlowRun.app_id == app_id, FlowRun.slot >= 0)))
    free = [slot for slot in range(most) if slot not in taken]
    if not free:
        raise _full()
    # Any of them: two runs that begin at once seldom meet.
    return secrets.choice(free)


def _store(session: Unit, begun: Begun) -> None:
    now = datetime.now(UTC)
    slot = free_slot(session, begun.scope.caller.app_id)
    is_durable = begun.mode == DURABLE
    wanted, runnable = begun.wanted, begun.runnable
    if is_durable or not runnable.version:
        # Replayed, or drawn later: what was run of a draft, or of a part of one, stands nowhere else.
        _keep(session, runnable.digest, runnable.text, now)
    caller = begun.scope.caller
    session.add(
        FlowRun(
            run_id=begun.run_id,
            flow_id=runnable.flow_id,
            version=runnable.version,
            app_id=caller.app_id,
            author_id=runnable.author_id,
            credential_id=caller.credential_id,
            request_id=caller.request_id[:64],
            uid=wanted.uid,
            chat_id=wanted.chat_id,
            mode=begun.mode,
            state=QUEUED if is_durable else RUNNING,
            slot=slot,
            digest=runnable.digest,
            keeps_history=int(wanted.keeps_history),
            parameters=dict(wanted.parameters),
            wake_at=now + timedelta(seconds=RESEND_S if is_durable else LEASE_S),
            callback_url=wanted.callback_url,
            created_at=now,
            started_at=None if is_durable else now,
        )
    )
    session.flush()


def _full() -> TooManyRequests:
    return TooManyRequests(
        "The app has as many runs as it may have at a time.", code="run.too_many", retry_after=1
    )


def _refused(code: str, message: str) -> Invalid:
    return Invalid(message, code=code, errors=[Violation("/mode", code, message)])
