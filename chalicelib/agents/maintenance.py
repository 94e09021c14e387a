"""The jobs of the agent domain."""

from __future__ import annotations

from chalicelib.agents.history.place import Place
from chalicelib.agents.moves.job import move_jobs
from chalicelib.agents.retention import retention_jobs
from chalicelib.core.database import DatabaseService
from chalicelib.core.jobs import Clock, Job, utc_now


def agent_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs that move histories, and those that end what is kept."""
    return (*move_jobs(database, _place, now), *retention_jobs(database, now))


def _place(agent_name: str) -> Place | None:
    # Loaded when a job has a move to work on, which is almost never.
    from chalicelib.agents.loading.process import registry_of_process

    loaded = registry_of_process().get(agent_name)
    if loaded is None or loaded.history_mode is None:
        return None
    return Place(loaded.history_models, loaded.history_mode)
