"""The jobs of the flow domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.jobs import Clock, Job, utc_now
from chalicelib.flows.history.retention import memory_jobs
from chalicelib.flows.runs.jobs import run_jobs

if TYPE_CHECKING:
    from chalicelib.core.outbound.app_client import AppHttp


def flow_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs that go after runs, and those that end what flows remember."""
    from chalicelib.flows.services import flow_services

    return (*run_jobs(database, flow_services, _http_of, now), *memory_jobs(database, now))


def _http_of(app_id: int) -> AppHttp:
    from chalicelib.core.outbound.app_client import AppHttp

    return AppHttp(process.http(), process.breaker(), app_id)
