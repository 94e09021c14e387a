"""/api/v1/flows/{flowId}/runs: running flows. What runs them is imported by the handlers that do so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.api.run_schemas import LISTED_RUN, NEW_DEBUG_RUN, NEW_RUN, NODE_DEBUG, RUN
from chalicelib.core.settings import ONE_MIB
from chalicelib.flows.runs.names import CANCELLED, DURABLE, FAILED, SUCCEEDED, WAITING

blueprint = Blueprint(__name__)

RUNS: dict[str, Any] = {
    "memory_mb": 1769,
    "max_body_bytes": ONE_MIB,
}
NODES = ("database", "open_secrets", "presign", "invoke_runtime", "internet", "ask_model")
"""What nodes do, whoever runs them. One that is run alone never waits, so nothing durable is started for it."""
_SETTLED = (SUCCEEDED, FAILED, CANCELLED, WAITING)


def _flow_id(request: Request) -> int:
    return int(request.path["flowId"])


@endpoint(
    blueprint, "POST", "/flows/{flowId}/runs", role="caller", idempotent=True, body=NEW_RUN, body_optional=True,
    errors=(429, 503), rights=(*NODES, "start_runs"), returns={200: RUN, 202: RUN},
    summary="Run a published flow", **RUNS,
)  # fmt: skip
def run_flow(request: Request) -> Answer:
    from chalicelib.flows.runs import plans

    version = request.body.get("version")
    return _run(request, plans.published(request.cache, request.caller, _flow_id(request), version))


@endpoint(
    blueprint, "POST", "/flows/{flowId}/debug-runs", role="publisher", idempotent=True, body=NEW_DEBUG_RUN,
    body_optional=True, errors=(429, 503), rights=(*NODES, "start_runs"), returns={200: RUN, 202: RUN},
    summary="Run a flow's draft", **RUNS,
)  # fmt: skip
def debug_flow(request: Request) -> Answer:
    from chalicelib.flows.runs import plans

    with request.reads() as session:
        runnable = plans.draft(session, request.caller, _flow_id(request))
    return _run(request, runnable)


@endpoint(
    blueprint, "POST", "/flows/{flowId}/nodes/{nodeId}/debug", role="publisher", idempotent=True, body=NODE_DEBUG,
    body_optional=True, errors=(429, 503), returns={200: RUN}, summary="Run one node of a draft with given inputs",
    rights=NODES, **RUNS,
)  # fmt: skip
def debug_node(request: Request) -> Answer:
    from chalicelib.flows.runs import debugging

    with request.reads() as session:
        runnable = debugging.one_node(
            session, request.caller, _flow_id(request), request.path["nodeId"], request.body
        )
    return _run(request, runnable, {**request.body, "parameters": {}, "mode": "express"})


@endpoint(
    blueprint, "GET", "/flows/{flowId}/runs", role="viewer", query=PAGE, returns={200: page_of(LISTED_RUN)},
    summary="The runs that the app made of a flow, newest first",
)  # fmt: skip
def list_runs(request: Request) -> dict[str, Any]:
    from chalicelib.flows import catalog
    from chalicelib.flows.runs import resource

    catalog.find_visible(request.cache, request.caller, _flow_id(request))
    with request.reads() as session:
        return resource.list_runs(session, request.caller, _flow_id(request), request.page())


def _run(request: Request, runnable: Any, asked: Mapping[str, Any] | None = None) -> Answer:
    """Begin a run; wait for its end as long as the caller wants to."""
    from chalicelib.flows.runs import durable, express, starting
    from chalicelib.flows.services import flow_services

    body = request.body if asked is None else asked
    wait_s = body.get("waitSeconds", 25)
    wanted = starting.Wanted(
        parameters=body.get("parameters", {}),
        uid=body.get("uid", ""),
        chat_id=body.get("chatId", ""),
        keeps_history=body.get("history", True),
        mode=body.get("mode", "auto"),
        waits=wait_s > 0,
        callback_url=body.get("callbackUrl"),
    )
    services = flow_services()
    begun = starting.begin(services.database, services.cache, request.caller, runnable, wanted)
    if begun.mode != DURABLE:
        run = express.ExpressRun(services.database, services.cache, services.kinds, begun)
        run.run()
        return request.write(run.store)
    durable.send(services, begun.run_id)
    return answer_when_settled(request, begun.run_id, wait_s)


def answer_when_settled(request: Request, run_id: str, wait_s: float) -> Answer:
    """Return the run: 200 once it has ended, 202 with its place before that or while it waits for an answer."""
    from chalicelib.flows.runs import resource, waiting

    def look() -> Any:
        with request.reads() as session:
            return resource.read(session, request.caller, run_id)

    row = waiting.until(look, lambda seen: seen.state in _SETTLED, wait_s)
    has_ended = row.state in _SETTLED and row.state != WAITING
    headers = {} if has_ended else {"Location": f"{BASE}/runs/{run_id}", "Retry-After": "1"}
    found = resource.run(row)
    return request.write(lambda _session: Answer(found, 200 if has_ended else 202, headers))
