"""The scheduled jobs of the plugin domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.core.jobs import Job, Plan
from chalicelib.core.steps import declare
from chalicelib.plugins.maintenance.arrivals import plan_expired_uploads, plan_lost_events
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.maintenance.gauges import plan_gauges
from chalicelib.plugins.maintenance.objects import plan_orphans
from chalicelib.plugins.maintenance.removals import REMOVALS, plan_removals
from chalicelib.plugins.maintenance.retention import plan_executions, plan_versions
from chalicelib.plugins.maintenance.stuck import BATCH, plan_stuck

STEPS = declare(
    "sweep",
    (
        "fail_install", "note_announcement", "announce",
        "delete_package", "delete_compiled", "delete_versions", "delete_configs", "forget_removal",
        "delete_orphan",
    ),
)  # fmt: skip
declare("tombstoned_objects", ("delete_orphan",))
MINUTE_S, DAY_S = 60, 86400
# Object versions of each listing: what a minute has time for, and what a bucket grows by in a day.
SWEPT, WALKED = 500, 20_000


def plugin_jobs(context: Context) -> tuple[Job, ...]:
    """Return the jobs of the plugin domain."""
    return (
        Job(
            "sweep",
            "Bring installs that nobody works on to an end, finish uninstalls, delete objects that no row names",
            MINUTE_S,
            lambda state: plan_sweep(context, state),
        ),
        Job(
            "lost_events",
            "Announce uploads and drops whose event never came, delete what ended installs left",
            5 * MINUTE_S,
            lambda state: plan_lost_events(context, state),
        ),
        Job(
            "measure",
            "Report how many plugins there are in each status, and the bytes they store",
            5 * MINUTE_S,
            lambda _: plan_gauges(context),
        ),
        Job(
            "expired_uploads",
            "End installs whose upload never came, delete what lay unclaimed for seven days",
            10 * MINUTE_S,
            lambda state: plan_expired_uploads(context, state),
        ),
        Job(
            "retain_versions",
            "Keep the newest ten versions of each plugin, the active one and the one before it",
            DAY_S,
            lambda _: plan_versions(context),
        ),
        Job(
            "retain_executions",
            "Delete executions and metrics older than thirty days",
            DAY_S,
            lambda _: plan_executions(context),
        ),
        Job(
            "tombstoned_objects",
            "Go through all stored packages and delete those that no row names, such as a gone plugin's",
            DAY_S,
            lambda state: plan_orphans(context, "tombstoned_objects", state, WALKED),
        ),
    )


def plan_sweep(context: Context, state: Mapping[str, Any]) -> Plan:
    """Plan the sweep: installs first, because publishers wait for them; orphans last, because nobody does."""
    installs = plan_stuck(context)
    removals = plan_removals(context)
    orphans = plan_orphans(context, "sweep", state, SWEPT)
    more = orphans.more or len(installs) == BATCH or len(removals) == REMOVALS
    return Plan((*installs, *removals, *orphans.actions), orphans.state, more)
