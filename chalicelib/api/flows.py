"""/api/v1/flows: the drafts of flows. What judges a flow is imported by the handlers that do so."""

from __future__ import annotations

import json
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.flow_schemas import (
    FLOW,
    FLOW_DATA,
    FLOW_DRAFT,
    FLOW_LIMIT,
    FLOW_WITH_DATA,
    LISTED_FLOW,
    NEW_FLOW,
    VALIDATION,
)
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.flows import catalog, rendering
from chalicelib.flows.names import EVERY_PLATFORM

blueprint = Blueprint(__name__)

# A flow of 5 MB is many times as much in memory while it is checked.
CHECKS_FLOWS: dict[str, Any] = {"memory_mb": 1769, "max_body_bytes": FLOW_LIMIT}
EMPTY: dict[str, Any] = {"nodes": [], "edges": []}


def _answer(row: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(rendering.flow(row), status, headers, tagged=rendering.tagged(row.id, row.revision))


@endpoint(
    blueprint, "POST", "/flows", role="publisher", idempotent=True, body=NEW_FLOW, returns={201: FLOW},
    summary="Store a flow; what is wrong with it is told, not refused", **CHECKS_FLOWS,
)  # fmt: skip
def create_flow(request: Request) -> Answer:
    from chalicelib.flows import drafts

    body = request.body
    prepared = drafts.prepare(request.cache, request.caller, body.get("data", EMPTY), None)

    def work(session: Any) -> Answer:
        row = drafts.create(
            session,
            request.caller,
            body["name"],
            body.get("description", ""),
            prepared,
            body.get("source", EVERY_PLATFORM),
        )
        return _answer(row, 201, Location=f"{BASE}/flows/{row.id}")

    return request.write(work)


@endpoint(
    blueprint, "GET", "/flows", role="viewer", query=PAGE, returns={200: page_of(LISTED_FLOW)},
    summary="The app's flows, newest first",
)  # fmt: skip
def list_flows(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return catalog.list_flows(session, request.caller, request.page())


@endpoint(
    blueprint, "GET", "/flows/{flowId}", role="viewer", returns={200: FLOW_WITH_DATA},
    summary="A flow's draft with its data",
)  # fmt: skip
def get_flow(request: Request) -> Answer:
    with request.reads() as session:
        draft = catalog.read_draft(session, request.caller, int(request.path["flowId"]))
    found = {**rendering.flow(draft.row), "data": json.loads(draft.text)}
    return Answer(found, tagged=rendering.tagged(draft.row.id, draft.row.revision))


@endpoint(
    blueprint, "PUT", "/flows/{flowId}", role="publisher", if_match="required", body=FLOW_DRAFT,
    returns={200: FLOW}, summary="Replace a flow's draft", **CHECKS_FLOWS,
)  # fmt: skip
def put_flow(request: Request) -> Answer:
    from chalicelib.flows import drafts

    body, flow_id = request.body, int(request.path["flowId"])
    catalog.find_own(request.cache, request.caller, flow_id)
    prepared = drafts.prepare(request.cache, request.caller, body["data"], flow_id)
    return request.write(
        lambda session: _answer(
            drafts.replace(
                session,
                request.caller,
                flow_id,
                request.if_match,
                body["name"],
                body.get("description", ""),
                prepared,
            )
        )
    )


@endpoint(
    blueprint, "DELETE", "/flows/{flowId}", role="publisher", if_match="honoured", errors=(409,),
    returns={204: None}, summary="Delete a flow that no platform has",
)  # fmt: skip
def delete_flow(request: Request) -> Answer:
    from chalicelib.flows import drafts

    def work(session: Any) -> Answer:
        drafts.delete(session, request.caller, int(request.path["flowId"]), request.if_match)
        return Answer(status=204)

    return request.write(work)


@endpoint(
    blueprint, "POST", "/flows/{flowId}/validate", role="publisher", body=FLOW_DATA, body_optional=True,
    returns={200: VALIDATION}, summary="Judge a flow's draft, or other data for it; nothing is stored",
    **CHECKS_FLOWS,
)  # fmt: skip
def validate_flow(request: Request) -> dict[str, Any]:
    from chalicelib.flows import drafts

    flow_id = int(request.path["flowId"])
    data = _data(request, flow_id)
    checked = drafts.check(request.cache, request.caller, data, flow_id)
    return {
        "isValid": not checked.violations,
        "violations": drafts.found(checked.violations),
        "violationCount": checked.total,
        "warnings": drafts.found(checked.warnings),
        "inputSchema": checked.input_schema,
        "operations": checked.operations,
    }


def _data(request: Request, flow_id: int) -> Any:
    """The data that the body gives for a flow of the caller's, else its draft's."""
    if "data" in request.body:
        catalog.find_own(request.cache, request.caller, flow_id)
        return request.body["data"]
    with request.reads() as session:
        return json.loads(catalog.read_draft(session, request.caller, flow_id).text)
