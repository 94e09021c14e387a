"""The jobs of the agent domain."""

from __future__ import annotations

from chalicelib.agents.history.place import Place
from chalicelib.agents.moves.job import move_jobs
from chalicelib.core.database import DatabaseService
from chalicelib.core.jobs import Clock, Job, utc_now


def agent_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs that move histories."""
    return move_jobs(database, _place, now)


def _place(agent_name: str) -> Place | None:
    # Loaded when a job has a move to work on, which is almost never.
    from chalicelib.agents.loading.process import deployment_of_process

    loaded = deployment_of_process().registry.get(agent_name)
    if loaded is None or loaded.history_mode is None:
        return None
    return Place(loaded.history_models, loaded.history_mode)
