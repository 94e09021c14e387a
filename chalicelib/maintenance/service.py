"""Every scheduled job of every domain, for the schedules and for the API: a floor of its own, since jobs belong to
the domains and both edges run them."""

from __future__ import annotations

from typing import Any

from chalicelib.agents.maintenance import agent_jobs
from chalicelib.core import process, telemetry
from chalicelib.core.errors import HotplugError
from chalicelib.core.housekeeping import housekeeping_jobs
from chalicelib.core.jobs import Job, Runner
from chalicelib.core.keys.rewrapping import rewrapping_jobs
from chalicelib.flows.maintenance import flow_jobs
from chalicelib.plugins.maintenance.catalog import plugin_jobs
from chalicelib.plugins.maintenance.context import plugin_context
from chalicelib.plugins.services import plugin_services
from chalicelib.tools.maintenance import tool_jobs

# Of all jobs of one firing; the functions have 120 s.
DEADLINE_S = 80.0


def jobs() -> dict[str, Job]:
    """Return every scheduled job by its name."""
    database = process.database()
    all_jobs = (
        *plugin_jobs(plugin_context(plugin_services())),
        *tool_jobs(database),
        *agent_jobs(database),
        *flow_jobs(database),
        *housekeeping_jobs(database),
        *rewrapping_jobs(database),
    )
    return {job.name: job for job in all_jobs}


def run(*names: str) -> dict[str, Any]:
    """Run jobs one after the other.

    Returns
    -------
    What became of each, by its name.

    Raises
    ------
    errors.HotplugError
        The first failure of a whole job, after the others had their turn: the firing counts as failed.
    """
    known = jobs()
    runner = Runner(process.database(), deadline_s=DEADLINE_S / len(names))
    results: dict[str, Any] = {}
    failed: HotplugError | None = None
    for name in names:
        try:
            results[name] = runner.run(known[name])
        except HotplugError as error:
            telemetry.exception("job.failed", error, job=name)
            failed = failed or error
    if failed is not None:
        raise failed
    return results
