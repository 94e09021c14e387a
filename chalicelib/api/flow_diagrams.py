"""/api/v1/flows/{flowId}/diagram.svg: a flow's graph as a picture."""

from __future__ import annotations

import json
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_schemas import VERSION
from chalicelib.api.request import Answer, Request
from chalicelib.core.ids import ULID_PATTERN
from chalicelib.flows import catalog
from chalicelib.flows.catalog import Draft

blueprint = Blueprint(__name__)

RUN: dict[str, Any] = {
    "type": "string",
    "minLength": 26,
    "maxLength": 26,
    "pattern": ULID_PATTERN,
    "description": "A run of the flow, in whose version it is drawn.",
}
SVG = "image/svg+xml"
# Opened by itself, a picture is a document: it may be styled, and nothing else, whatever its author wrote into it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
PICTURE: dict[str, Any] = {"type": "string", "contentMediaType": SVG}


@endpoint(
    blueprint, "GET", "/flows/{flowId}/diagram.svg", role="viewer", query={"version": VERSION, "runId": RUN},
    errors=(422,),
    returns={200: PICTURE}, media_type=SVG, memory_mb=1769,
    summary="A flow's draft, or a version of it, drawn as far as it is one; with `runId` what that run did",
)  # fmt: skip
def get_flow_diagram(request: Request) -> Answer:
    from chalicelib.flows.diagram.drawable import drawable
    from chalicelib.flows.diagram.drawing import draw

    states = None
    if "runId" in request.query:
        name, text, states = _of_run(request)
    else:
        found = _wanted(request, request.query.get("version"))
        name, text = found.row.name, found.text
    shown = drawable(json.loads(text))
    picture = draw(shown.flow, name=name, states=states, violations=shown.violations)
    return Answer(picture, headers=HEADERS)


def _of_run(request: Request) -> tuple[str, str, dict[str, str]]:
    """The flow's name, the data that a run of the caller's ran, and how its nodes stand."""
    from chalicelib.flows.runs import resource

    with request.reads() as session:
        run = resource.read(session, request.caller, request.query["runId"], whole=False)
        if run.flow_id != int(request.path["flowId"]):
            raise resource.not_found()
        states = resource.node_states(session, run)
        text = None if run.version else resource.draft_data(session, run)
    found = _wanted(request, run.version or None)
    return found.row.name, found.text if text is None else text, states


def _wanted(request: Request, version: str | None) -> Draft:
    """The draft, or a version, of a flow of the caller's."""
    flow_id = int(request.path["flowId"])
    catalog.find_own(request.cache, request.caller, flow_id)
    with request.reads() as session:
        if version is None:
            return catalog.read_draft(session, request.caller, flow_id)
        return catalog.read_version(session, flow_id, version)
