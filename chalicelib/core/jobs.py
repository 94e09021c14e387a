"""Scheduled jobs: each first plans, then executes what it planned, and never twice at once.

A plan only looks. Its actions are carried out one after the other, each in bounded batches; every action looks again
before it changes anything and may be repeated, because the process may be killed anywhere. A lease keeps a second
runner away; it is short and renewed on the way, so a killed runner blocks its job for a minute at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core import leases, telemetry
from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, JsonDocument, Unit, UtcDateTime
from chalicelib.core.errors import HotplugError
from chalicelib.core.ids import new_ulid
from chalicelib.core.leases import Lease
from chalicelib.core.representation import timestamp
from chalicelib.core.steps import declare, step

STEPS = declare("job", ("acquire", "renew", "finish"))
LEASE_S = 60.0
RENEW_AFTER_S = 15.0
# Of a plan; the rest is counted.
MOST_SHOWN = 100
# Where this many actions failed the rest will too: a server is away.
MOST_FAILURES = 20

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time; a test hands in another clock."""
    return datetime.now(UTC)


class JobRun(Base):
    """The latest run of each job, and what the next one goes on from."""

    __tablename__ = "job_run"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    job: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime] = mapped_column(UtcDateTime())
    result: Mapped[Any] = mapped_column(JsonDocument(), default=dict)
    state: Mapped[Any] = mapped_column(JsonDocument(), default=dict)


@dataclass(frozen=True)
class Action:
    """One thing to do.

    Parameters
    ----------
    what
        A verb with its object: `announce_upload`.
    target
        What it is done to.
    work
        Does one bounded batch, outside any unit of work, and returns whether there is more to do.
    count
        How many rows or objects are concerned, as far as the plan knows.
    """

    what: str
    target: str
    work: Callable[[], bool] = field(repr=False, compare=False)
    count: int = 1

    def as_dict(self) -> dict[str, Any]:
        return {"action": self.what, "target": self.target, "count": self.count}


@dataclass(frozen=True)
class Plan:
    """What a job would do now.

    Parameters
    ----------
    state
        Kept when all actions were tried, and handed to the next plan; None keeps the state before.
    more
        True where the plan was cut at a bound, so that the next run goes on.
    """

    actions: tuple[Action, ...] = ()
    state: Mapping[str, Any] | None = None
    more: bool = False


@dataclass(frozen=True)
class Job:
    """A job: `plan(state)` looks at what there is to do, and changes nothing.

    Parameters
    ----------
    every_s
        Seconds between two runs of its schedule; None for one that only an admin starts.
    """

    name: str
    summary: str
    every_s: int | None
    plan: Callable[[Mapping[str, Any]], Plan]


def lease_name(job: str) -> str:
    """Return the name of a job's lease."""
    return f"job/{job}"


class Runner:
    """Runs jobs, one after the other.

    Parameters
    ----------
    deadline_s
        Seconds after which no further batch begins; well below the function's timeout.
    """

    def __init__(self, database: DatabaseService, *, deadline_s: float, now: Clock = utc_now) -> None:
        self._database = database
        self._deadline_s = deadline_s
        self._now = now

    def preview(self, job: Job) -> dict[str, Any]:
        """Return what the job would do now; it takes no lease and changes nothing."""
        began = time.monotonic()
        plan = job.plan(self._state(job))
        return _Progress(job, plan).report(dry_run=True, began=began)

    def run(self, job: Job) -> dict[str, Any]:
        """Plan, execute, and return both with what became of it.

        `skipped` is `running` where another runner holds the lease; nothing was done then.

        Raises
        ------
        errors.HotplugError
            Where the plan could not be made; an action that fails is counted and named instead.
        """
        began, started_at = time.monotonic(), self._now()
        lease = self._acquire(job)
        if lease is None:
            return _Progress(job, Plan()).report(began=began, skipped="running")
        with telemetry.operation("job.run", job=job.name) as operation:
            hold = _Hold(self._database, lease, self._now)
            try:
                with operation.phase("plan"):
                    plan = job.plan(self._state(job))
                progress = _Progress(job, plan)
                with operation.phase("execute"):
                    progress.execute(hold, until=began + self._deadline_s)
            except BaseException:
                hold.release()
                raise
            report = progress.report(began=began)
            self._finish(job, hold.lease, started_at, progress, report)
            operation.note(planned=report["planned"], done=report["done"], failed=report["failed"])
        telemetry.metric("job.failures", report["failed"])
        return report

    def _state(self, job: Job) -> Mapping[str, Any]:
        with self._database.reads() as session:
            row = session.get(JobRun, job.name)
            return dict(row.state) if row is not None else {}

    def _acquire(self, job: Job) -> Lease | None:
        # Unique to this attempt: what another process holds is never taken for our own.
        owner = new_ulid()
        step("job", "acquire")
        return self._database.run(
            lambda session: leases.acquire(session, lease_name(job.name), owner, LEASE_S, self._now())
        )

    def _finish(
        self, job: Job, lease: Lease, started_at: datetime, progress: _Progress, report: dict[str, Any]
    ) -> None:
        """Write what became of the run, unless another runner took over meanwhile."""
        finished_at = self._now()

        def work(session: Unit) -> None:
            if not leases.holds(session, lease):
                return
            row = session.get(JobRun, job.name)
            if row is None:
                row = JobRun(job=job.name, state={})
                session.add(row)
            row.started_at, row.finished_at = started_at, finished_at
            row.result = {name: value for name, value in report.items() if name not in ("plan", "job")}
            if progress.plan.state is not None and progress.left == 0:
                row.state = dict(progress.plan.state)
            leases.release(session, lease, finished_at)

        step("job", "finish")
        self._database.run(work)


class _Hold:
    """A lease that is renewed while it is used."""

    def __init__(self, database: DatabaseService, lease: Lease, now: Clock) -> None:
        self._database = database
        self._now = now
        self._renewed = time.monotonic()
        self.lease = lease

    def keep(self) -> bool:
        """Renew the lease if that is due; False where it passed to another, who goes on with the work."""
        if time.monotonic() - self._renewed < RENEW_AFTER_S:
            return True
        step("job", "renew")
        renewed = self._database.run(lambda session: leases.renew(session, self.lease, LEASE_S, self._now()))
        if renewed is None:
            return False
        self._renewed, self.lease = time.monotonic(), renewed
        return True

    def release(self) -> None:
        try:
            self._database.run(lambda session: leases.release(session, self.lease, self._now()))
        except HotplugError as error:
            # The failure that led here is what counts; the lease ends by itself.
            telemetry.exception("job.release_failed", error)


class _Progress:
    """The execution of one plan."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._job = job
        self.plan = plan
        self.done = 0
        self.failures: list[dict[str, str]] = []

    @property
    def left(self) -> int:
        """How many actions were not tried, or not brought to their end."""
        return len(self.plan.actions) - self.done - len(self.failures)

    def execute(self, hold: _Hold, *, until: float) -> None:
        for action in self.plan.actions:
            if len(self.failures) >= MOST_FAILURES or not self._carry_out(action, hold, until):
                return

    def _carry_out(self, action: Action, hold: _Hold, until: float) -> bool:
        """Do one action to its end; False where time is up or the lease is gone."""
        try:
            more = True
            while more:
                if time.monotonic() >= until or not hold.keep():
                    return False
                more = action.work()
        except Exception as error:  # noqa: BLE001 - one broken item must not keep the job from all the others
            code = error.code if isinstance(error, HotplugError) else "internal"
            telemetry.exception(
                "job.action_failed", error, job=self._job.name, action=action.what, target=action.target
            )
            self.failures.append({"action": action.what, "target": action.target, "code": code})
        else:
            self.done += 1
        return True

    def report(self, *, began: float, dry_run: bool = False, skipped: str | None = None) -> dict[str, Any]:
        return {
            "job": self._job.name,
            "dryRun": dry_run,
            "skipped": skipped,
            "planned": len(self.plan.actions),
            "plan": [action.as_dict() for action in self.plan.actions[:MOST_SHOWN]],
            "more": self.plan.more,
            "done": self.done,
            "failed": len(self.failures),
            "left": 0 if dry_run else self.left,
            "failures": list(self.failures),
            "tookMs": round((time.monotonic() - began) * 1000, 1),
        }


def describe_jobs(session: Session, jobs: Iterable[Job], now: datetime) -> list[dict[str, Any]]:
    """Return each job with its schedule, whether it runs now, and its latest run."""
    known = tuple(jobs)
    names = [job.name for job in known]
    runs = {row.job: row for row in session.scalars(select(JobRun).where(JobRun.job.in_(names)))}
    return [
        {
            "job": job.name,
            "summary": job.summary,
            "everySeconds": job.every_s,
            "running": leases.is_held(session, lease_name(job.name), now),
            "lastRun": _last_run(runs.get(job.name)),
        }
        for job in known
    ]


def _last_run(row: JobRun | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "startedAt": timestamp(row.started_at),
        "finishedAt": timestamp(row.finished_at),
        "planned": row.result["planned"],
        "more": row.result["more"],
        "done": row.result["done"],
        "failed": row.result["failed"],
        "left": row.result["left"],
        "failures": row.result["failures"],
        "tookMs": row.result["tookMs"],
    }
