"""The jobs that go after runs: what is left lying by a function that died, what is to be told, what is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import undefer

from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Unavailable
from chalicelib.core.housekeeping import DAY_S
from chalicelib.core.ids import ulid_at
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.storage import Storage
from chalicelib.flows.runs import callbacks, cancelling, durable, resuming
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.durable import LOOK_AFTER_S
from chalicelib.flows.runs.models import FlowRun, FlowRunData, FlowRunEvent, FlowRunNode
from chalicelib.flows.runs.names import EXPRESS, QUEUED, RESUMING, WAITING
from chalicelib.flows.runs.starting import RESEND_S
from chalicelib.flows.services import Services

MINUTE_S = 60
MOST = 200
"""Runs of one plan; the next run of the job goes on."""
MOST_LOOKED_AT = 5_000
"""Ends of runs that are to be told, of which a plan takes some of every app."""
KEPT = timedelta(days=30)
DATA_KEPT = timedelta(days=90)
"""Data may be run for as long as a question may wait, which is thirty days, and that more than once."""
BATCH = 500

BEGINS_WITHIN = timedelta(hours=6)
"""How long a durable run is sent again that does not begin; Lambda keeps an event for as long."""

HttpOf = Callable[[int], AppHttp]


def run_jobs(
    database: DatabaseService,
    services: Callable[[], Services],
    http_of: HttpOf,
    now: Clock = utc_now,
) -> tuple[Job, ...]:
    """Return the jobs of runs.

    Parameters
    ----------
    services
        Makes the services of flows, which only those jobs need that find something.
    http_of
        Returns the outbound client of an app.
    """
    return (
        Job(
            "sweep_runs",
            "End runs whose function is gone, and send again what did not arrive",
            MINUTE_S,
            lambda _: _plan_sweep(database, services, now),
        ),
        Job(
            "send_run_callbacks",
            "Tell of runs that have ended",
            MINUTE_S,
            lambda _: _plan_callbacks(database, http_of, now),
        ),
        Job(
            "retain_runs",
            "Delete runs older than thirty days, and the data that no run has used for ninety",
            DAY_S,
            lambda _: _plan_retention(database, services, now),
        ),
    )


# -- what is left lying --------------------------------------------------------------------------------------------


def _plan_sweep(database: DatabaseService, services: Callable[[], Services], now: Clock) -> Plan:
    due = (
        select(FlowRun)
        .where(FlowRun.active == 1, FlowRun.wake_at < now())
        .order_by(FlowRun.wake_at)
        .limit(MOST + 1)
    )
    with database.reads() as session:
        rows = list(session.scalars(due))
    # Those first that need nobody else: where the service of durable runs is away, a job gives up after some failures.
    rows[:MOST] = sorted(rows[:MOST], key=lambda row: row.mode != EXPRESS)
    actions = tuple(
        Action(_verb(row), row.run_id, lambda row=row: _look_after(services(), row, now()))  # type: ignore[misc]
        for row in rows[:MOST]
    )
    return Plan(actions, more=len(rows) > MOST)


def _verb(row: FlowRun) -> str:
    if row.mode == EXPRESS:
        return "fail_run"
    return {QUEUED: "send_run", RESUMING: "answer_run", WAITING: "expire_question"}.get(
        row.state, "check_run"
    )


def _look_after(services: Services, row: FlowRun, now: datetime) -> bool:
    telemetry.event("run.swept", runId=row.run_id, state=row.state, mode=row.mode)
    if row.mode == EXPRESS:
        _fail(services, row, "The function that ran it ended before the run did.")
    elif row.state == QUEUED and now - row.created_at < BEGINS_WITHIN:
        _postpone(services, row, now, RESEND_S)
        durable.send(services, row.run_id)
    elif row.state == QUEUED:
        _fail(services, row, "The run could not be begun.")
    elif not _is_running(services, row, now):
        _fail(services, row, "The execution ended before the run did.")
    elif row.state in (RESUMING, WAITING) and row.event is not None:
        _answer(services, row, now)
    else:
        _postpone(services, row, now, LOOK_AFTER_S)
    return False


def _is_running(services: Services, row: FlowRun, now: datetime) -> bool:
    if row.execution is None:
        return False
    try:
        return services.executions.is_running(row.execution)
    except Unavailable:
        # The others get their turn before this one is asked about again.
        _postpone(services, row, now, RESEND_S)
        raise


def _answer(services: Services, row: FlowRun, now: datetime) -> None:
    """Hand over the answer that was given, or that there is none: from then on nobody can give another."""

    def take(session: Unit) -> Any:
        seen = _held(session, row)
        if seen is None or seen.event is None:
            return None
        if seen.pending is None:
            seen.pending = {"action": "expired"}
        seen.state, seen.wake_at = RESUMING, now + timedelta(seconds=RESEND_S)
        return seen.pending, seen.event["callbackId"]

    found = services.database.run(take)
    if found is not None:
        pending, callback_id = found
        resuming.hand_over(services, row.run_id, callback_id, pending)


def _fail(services: Services, row: FlowRun, message: str) -> None:
    owner = Caller(row.app_id, "", row.credential_id, "caller", row.request_id)

    def work(session: Unit) -> bool:
        seen = _held(session, row)
        return seen is not None and cancelling.fail(session, owner, seen, message, (row.state,))

    services.database.run(work)


def _held(session: Unit, row: FlowRun) -> FlowRun | None:
    """Lock a run; None where it went on since the plan was made, so that its lease was renewed."""
    query = select(FlowRun).where(FlowRun.run_id == row.run_id).options(undefer(FlowRun.pending))
    seen = session.scalars(
        query.with_for_update(), execution_options={"populate_existing": True}
    ).one_or_none()
    return seen if seen is not None and seen.wake_at == row.wake_at else None


def _postpone(services: Services, row: FlowRun, now: datetime, seconds: float) -> None:
    services.database.run(
        lambda session: change(
            session, row.run_id, FlowRun.wake_at == row.wake_at, wake_at=now + timedelta(seconds=seconds)
        )
    )


# -- what is to be told --------------------------------------------------------------------------------------------


def _plan_callbacks(database: DatabaseService, http_of: HttpOf, now: Clock) -> Plan:
    due = (
        select(FlowRun.run_id, FlowRun.app_id)
        .where(FlowRun.callback_at < now())
        .order_by(FlowRun.callback_at)
        .limit(MOST_LOOKED_AT)
    )
    with database.reads() as session:
        rows = _in_turns(session.execute(due).all())

    def told(run_id: str, app_id: int) -> bool:
        callbacks.deliver(database, http_of(app_id), run_id)
        return False

    actions = tuple(
        Action("tell", row.run_id, lambda row=row: told(row.run_id, row.app_id))  # type: ignore[misc]
        for row in rows[:MOST]
    )
    return Plan(actions, more=len(rows) > MOST)


def _in_turns(rows: Sequence[Any]) -> list[Any]:
    """One of each app, then a second one of each: an app whose servers let others wait lets itself wait."""
    seen: Counter[int] = Counter()
    turns = []
    for row in rows:
        turns.append((seen[row.app_id], row))
        seen[row.app_id] += 1
    return [row for _, row in sorted(turns, key=lambda one: one[0])]


# -- what is over --------------------------------------------------------------------------------------------------


def _plan_retention(database: DatabaseService, services: Callable[[], Services], now: Clock) -> Plan:
    before = ulid_at(now() - KEPT)
    old = select(FlowRun.run_id).where(FlowRun.run_id < before, FlowRun.active == 0)
    unused = select(FlowRunData.digest).where(FlowRunData.used_at < now() - DATA_KEPT)
    with database.reads() as session:
        runs = list(session.scalars(old.order_by(FlowRun.run_id).limit(MOST + 1)))
        has_data = session.scalar(unused.limit(1)) is not None
    actions = [
        Action("delete_run", run_id, lambda run_id=run_id: _delete_run(database, services().storage, run_id))  # type: ignore[misc]
        for run_id in runs[:MOST]
    ]
    if has_data:
        actions.append(Action("delete_data", "flow_run_data", lambda: _delete_data(database, now)))
    return Plan(tuple(actions), more=len(runs) > MOST)


def _delete_run(database: DatabaseService, storage: Storage, run_id: str) -> bool:
    """Delete a batch of a run's rows, and at last itself with its values; True while there are more."""

    def batch(session: Unit) -> bool:
        for model, number in ((FlowRunEvent, FlowRunEvent.seq), (FlowRunNode, FlowRunNode.position)):
            found = list(
                session.scalars(select(number).where(model.run_id == run_id).order_by(number).limit(BATCH))
            )
            if found:
                session.execute(
                    delete(model).where(model.run_id == run_id, number <= found[-1]),
                    execution_options={"synchronize_session": False},
                )
                return True
        return False

    if database.run(batch):
        return True
    for version in storage.list_versions(f"runs/{run_id}/"):
        storage.delete(version.key, version.version_id)
    database.run(
        lambda session: session.execute(
            delete(FlowRun).where(FlowRun.run_id == run_id, FlowRun.active == 0),
            execution_options={"synchronize_session": False},
        )
    )
    return False


def _delete_data(database: DatabaseService, now: Clock) -> bool:
    def batch(session: Unit) -> bool:
        before = now() - DATA_KEPT
        found = list(
            session.scalars(
                select(FlowRunData.digest)
                .where(FlowRunData.used_at < before)
                .order_by(FlowRunData.used_at)
                .limit(BATCH)
            )
        )
        for digest in found:
            session.execute(
                delete(FlowRunData).where(FlowRunData.digest == digest, FlowRunData.used_at < before),
                execution_options={"synchronize_session": False},
            )
        return len(found) == BATCH

    return database.run(batch)
