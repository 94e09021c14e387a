"""What tests of runs that outlive their request share: a clock, the jobs, and runs that were begun and left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from chalicelib.core import process
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.jobs import Job, Runner
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.client import HttpOut
from chalicelib.flows.runs import plans, starting
from chalicelib.flows.runs.jobs import HttpOf, run_jobs
from chalicelib.flows.runs.models import FlowRun
from chalicelib.flows.runs.starting import Begun, Wanted
from chalicelib.flows.services import flow_services
from tests.fakes.circuits import MemoryCircuits
from tests.http import Client

FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"


def in_(**span: float) -> datetime:
    """The moment that is so far away."""
    return datetime.now(UTC) + timedelta(**span)


def job(name: str, at: datetime, http_of: HttpOf | None = None) -> Job:
    """One of the jobs of runs, as it is at a moment."""

    def no_http(app_id: int) -> AppHttp:
        raise AssertionError("nothing is to be sent")

    jobs = run_jobs(process.database(), flow_services, http_of or no_http, lambda: at)
    return {one.name: one for one in jobs}[name]


def run_job(name: str, at: datetime, http_of: HttpOf | None = None) -> dict[str, Any]:
    """Run a job and return its report."""
    return Runner(process.database(), deadline_s=60).run(job(name, at, http_of))


def actions(name: str, at: datetime, run_id: str) -> list[Callable[[], bool]]:
    """What a job has planned for one run."""
    return [action.work for action in job(name, at).plan({}).actions if action.target == run_id]


def outwards(http: HttpOut) -> HttpOf:
    """What calls out by a client, for every app."""
    return lambda app_id: AppHttp(http, Breaker(MemoryCircuits(), "me"), app_id)


def caller(client: Client) -> Caller:
    """Whom a client speaks for."""
    who = client.get("/api/v1/me").json
    return Caller(int(who["appId"]), who["aliasId"], int(who["credentialId"]), "caller", "request-1")


def begin(
    client: Client,
    flow_id: str,
    parameters: Mapping[str, Any] | None = None,
    database: DatabaseService | None = None,
    **wanted: Any,
) -> Begun:
    """Begin a run of a published flow, and leave it there, as a function does that dies."""
    used = database or process.database()
    who, cache = caller(client), HotCache(used)
    cache.refresh()
    runnable = plans.published(cache, who, int(flow_id), None)
    return starting.begin(used, cache, who, runnable, Wanted(parameters or {}, **wanted))


def change(run_id: str, **values: Any) -> None:
    """Change the row of a run."""
    process.database().run(
        lambda session: session.execute(update(FlowRun).where(FlowRun.run_id == run_id).values(**values))
    )


def row(run_id: str) -> FlowRun | None:
    """The row of a run."""
    with process.database().reads() as session:
        return session.get(FlowRun, run_id)


@contextlib.contextmanager
def functions(url: str, count: int) -> Iterator[list[DatabaseService]]:
    """The databases of so many functions, each with a pool of its own."""
    made = [DatabaseService(url) for _ in range(count)]
    try:
        yield made
    finally:
        for one in made:
            one.close()
