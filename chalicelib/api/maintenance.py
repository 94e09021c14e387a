"""/api/v1/maintenance: the scheduled jobs, for admins."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import page_of, resource
from chalicelib.api.request import Answer, Request
from chalicelib.core import audit
from chalicelib.core.errors import NotFound
from chalicelib.core.jobs import Runner, describe_jobs, utc_now
from chalicelib.maintenance.service import jobs

blueprint = Blueprint(__name__)

# The gateway ends a request after 29 s; what is left goes on at the next run.
DEADLINE_S = 15.0
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXT: dict[str, Any] = {"type": "string"}

# Every job, those of runs included, which are looked after and tell of their ends, and a change of the master key.
RUNS_ANY_JOB = (
    "database", "check_uploads", "remove_uploads", "remove_artifacts", "announce", "start_runs", "answer_runs",
    "watch_runs", "remove_run_values", "open_secrets", "rewrap_keys", "internet",
)  # fmt: skip

FAILURE = resource("JobFailure", {"action": TEXT, "target": TEXT, "code": TEXT})
OUTCOME: dict[str, Any] = {
    "planned": COUNT,
    "more": {"type": "boolean", "description": "the plan was cut at a bound; the next run goes on"},
    "done": COUNT,
    "failed": COUNT,
    "left": COUNT,
    "failures": {"type": "array", "items": FAILURE},
    "tookMs": {"type": "number"},
}
LAST_RUN = resource("JobLastRun", {"startedAt": TIME, "finishedAt": TIME, **OUTCOME})
JOB = resource(
    "Job",
    {
        "job": TEXT,
        "summary": TEXT,
        "everySeconds": {"type": ["integer", "null"]},
        "running": {"type": "boolean"},
        "lastRun": {"anyOf": [LAST_RUN, {"type": "null"}]},
    },
)
RUN = resource(
    "JobRun",
    {
        "job": TEXT,
        "dryRun": {"type": "boolean"},
        "skipped": {"enum": ["running", None], "description": "why nothing was done"},
        "plan": {
            "type": "array",
            "description": "the first actions; `planned` counts all",
            "items": resource("JobAction", {"action": TEXT, "target": TEXT, "count": COUNT}),
        },
        **OUTCOME,
    },
)
ORDER: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"dryRun": {"type": "boolean", "default": False}},
}


@endpoint(
    blueprint, "GET", "/maintenance", role="admin",
    returns={200: page_of(JOB)}, summary="Every scheduled job, and how its latest run went",
)  # fmt: skip
def list_jobs(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return {"items": describe_jobs(session, jobs().values(), utc_now()), "nextCursor": None}


@endpoint(
    blueprint, "POST", "/maintenance/{job}", role="admin", idempotent=True,
    body=ORDER, body_optional=True, rights=RUNS_ANY_JOB,
    returns={200: RUN}, summary="Run a job now, or with `dryRun` only show what it would do",
)  # fmt: skip
def run_job(request: Request) -> Answer:
    name, dry_run = request.path["job"], (request.body or {}).get("dryRun", False)
    job = jobs().get(name)
    if job is None:
        raise NotFound("There is no such job.", code="maintenance.no_such_job")
    runner = Runner(request.database, deadline_s=DEADLINE_S)
    report = runner.preview(job) if dry_run else runner.run(job)
    return request.write(lambda session: _recorded(session, request, report))


def _recorded(session: Any, request: Request, report: dict[str, Any]) -> dict[str, Any]:
    action = "maintenance.preview" if report["dryRun"] else "maintenance.run"
    audit.record(session, request.caller, action, "job", report["job"], after=report)
    return report
