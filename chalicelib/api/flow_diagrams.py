"""/api/v1/flows/{flowId}/diagram.svg: a flow's graph as a picture."""

from __future__ import annotations

import json
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_schemas import VERSION
from chalicelib.api.request import Answer, Request
from chalicelib.flows import catalog
from chalicelib.flows.catalog import Draft

blueprint = Blueprint(__name__)

SVG = "image/svg+xml"
# Opened by itself, a picture is a document: it may be styled, and nothing else, whatever its author wrote into it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
PICTURE: dict[str, Any] = {"type": "string", "contentMediaType": SVG}


@endpoint(
    blueprint, "GET", "/flows/{flowId}/diagram.svg", role="viewer", query={"version": VERSION}, errors=(422,),
    returns={200: PICTURE}, media_type=SVG, memory_mb=1769,
    summary="A flow's draft, or a version of it, drawn as far as it is one",
)  # fmt: skip
def get_flow_diagram(request: Request) -> Answer:
    from chalicelib.flows.diagram.drawable import drawable
    from chalicelib.flows.diagram.drawing import draw

    found = _wanted(request)
    shown = drawable(json.loads(found.text))
    picture = draw(shown.flow, name=found.row.name, violations=shown.violations)
    return Answer(picture, headers=HEADERS)


def _wanted(request: Request) -> Draft:
    """The draft, or the version that the query names, of a flow of the caller's."""
    flow_id, version = int(request.path["flowId"]), request.query.get("version")
    catalog.find_own(request.cache, request.caller, flow_id)
    with request.reads() as session:
        if version is None:
            return catalog.read_draft(session, request.caller, flow_id)
        return catalog.read_version(session, flow_id, version)
