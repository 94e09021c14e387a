"""/api/v1/runs: following a run, answering its questions, ending it."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_runs import answer_when_settled
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.api.run_schemas import FRAMES, RESUME, RUN, RUN_NODE, WAIT
from chalicelib.core.settings import ONE_MIB
from chalicelib.flows.runs import resource
from chalicelib.flows.runs.names import shown

blueprint = Blueprint(__name__)

NOTHING: dict[str, Any] = {"type": "object", "maxProperties": 0}
AFTER: dict[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "maximum": 2**31 - 1,
    "default": 0,
    "description": "The number of the last event that is known.",
}


@endpoint(
    blueprint, "GET", "/runs/{runId}", role="viewer", returns={200: RUN}, summary="A run of the app's",
)  # fmt: skip
def get_run(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return resource.run(resource.read(session, request.caller, request.path["runId"]))


@endpoint(
    blueprint, "GET", "/runs/{runId}/nodes", role="viewer", query=PAGE, returns={200: page_of(RUN_NODE)},
    summary="The nodes of a run that have ended, in that order",
)  # fmt: skip
def list_run_nodes(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        resource.read(session, request.caller, request.path["runId"], whole=False)
        return resource.list_nodes(session, request.path["runId"], request.page())


@endpoint(
    blueprint, "GET", "/runs/{runId}/events", role="viewer",
    query={"after": AFTER, "waitSeconds": {**WAIT, "default": 0}}, returns={200: FRAMES},
    summary="What a run tells, from a number on; with `waitSeconds` as soon as there is something",
)  # fmt: skip
def run_events(request: Request) -> dict[str, Any]:
    from chalicelib.flows.runs import waiting

    after, run_id = request.query["after"], request.path["runId"]

    def look() -> tuple[Any, list[dict[str, Any]], bool]:
        # The state first: what was told before the end is then in the frames that are read after it.
        with request.reads() as session:
            row = resource.read(session, request.caller, run_id, whole=False)
            return row, *resource.frames(session, run_id, after)

    row, frames, has_more = waiting.until(
        look, lambda seen: bool(seen[1]) or not seen[0].active, request.query["waitSeconds"]
    )
    return {
        "items": frames,
        "next": frames[-1]["seq"] if frames else after,
        "state": shown(row.state),
        "isComplete": not row.active and not has_more,
    }


@endpoint(
    blueprint, "POST", "/runs/{runId}/resume", role="caller", idempotent=True, body=RESUME, max_body_bytes=ONE_MIB,
    errors=(409, 429, 503), rights=("database", "answer_runs"), returns={200: RUN, 202: RUN},
    summary="Answer a run's question",
)  # fmt: skip
def resume_run(request: Request) -> Answer:
    from chalicelib.flows.runs import resuming
    from chalicelib.flows.services import flow_services

    body, run_id = request.body, request.path["runId"]
    resuming.resume(
        flow_services(), request.caller, run_id, body["eventId"], body["action"], body.get("content")
    )
    return answer_when_settled(request, run_id, body.get("waitSeconds", 0))


@endpoint(
    blueprint, "POST", "/runs/{runId}/cancel", role="caller", idempotent=True, body=NOTHING, body_optional=True,
    errors=(503,), rights=("database", "answer_runs"), returns={200: RUN},
    summary="End a run; one that has ended stays as it is",
)  # fmt: skip
def cancel_run(request: Request) -> Answer:
    from chalicelib.flows.runs import cancelling, resuming
    from chalicelib.flows.services import flow_services

    run_id = request.path["runId"]
    woken: list[str] = []

    def work(session: Any) -> dict[str, Any]:
        run, callback_id = cancelling.cancel(session, request.caller, run_id)
        woken[:] = [] if callback_id is None else [callback_id]
        return run

    answer = request.write(work)
    for callback_id in woken:
        resuming.hand_over(flow_services(), run_id, callback_id, {"action": "abort"})
    return answer
