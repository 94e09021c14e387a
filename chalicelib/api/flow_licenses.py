"""/api/v1/flows/{flowId}/licenses: which apps may run a flow."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_schemas import LICENSE, LICENSE_STATUS
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.flows import catalog, licensing

blueprint = Blueprint(__name__)


@endpoint(
    blueprint, "GET", "/flows/{flowId}/licenses", role="publisher", query=PAGE,
    returns={200: page_of(LICENSE)}, summary="Which apps have a licence for a flow, newest first",
)  # fmt: skip
def list_licenses(request: Request) -> dict[str, Any]:
    flow_id = int(request.path["flowId"])
    catalog.find_own(request.cache, request.caller, flow_id)
    with request.reads() as session:
        return licensing.list_licenses(session, flow_id, request.page())


@endpoint(
    blueprint, "PUT", "/flows/{flowId}/licenses/{aliasId}", role="publisher", if_match="honoured",
    body=LICENSE_STATUS, returns={200: LICENSE}, summary="License a flow to an app, or refuse it every further run",
)  # fmt: skip
def put_license(request: Request) -> Answer:
    flow_id, alias_id = int(request.path["flowId"]), request.path["aliasId"]
    status = request.body["status"]
    # Before the alias is looked at: what apps there are is nothing that a stranger's flow tells.
    catalog.find_own(request.cache, request.caller, flow_id)
    return request.write(
        lambda session: licensing.put(session, request.caller, flow_id, alias_id, status, request.if_match)
    )
