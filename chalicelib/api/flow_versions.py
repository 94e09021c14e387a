"""/api/v1/flows/{flowId}: what is published of a flow, and what it is compared with."""

from __future__ import annotations

import json
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_schemas import (
    COMPARISON,
    COMPARISON_WITH_DATA,
    FLOW_DATA,
    FLOW_LIMIT,
    FLOW_VERSION,
    PUBLICATION,
    PUBLISH,
    PUBLISHED_FLOW,
    TAKE_OFF,
    TAKEN_OFF,
    VERSION,
)
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.flows import catalog, rendering
from chalicelib.flows.names import WORKBENCH

blueprint = Blueprint(__name__)

CHECKS_FLOWS: dict[str, Any] = {"memory_mb": 1769}


def _flow_id(request: Request) -> int:
    return int(request.path["flowId"])


@endpoint(
    blueprint, "POST", "/flows/{flowId}/publish", role="publisher", idempotent=True, body=PUBLISH,
    errors=(409,), returns={200: PUBLICATION}, **CHECKS_FLOWS,
    summary="Publish the draft as a version, or a version on one more platform",
)  # fmt: skip
def publish_flow(request: Request) -> Answer:
    from chalicelib.flows import publishing

    body, flow_id = request.body, _flow_id(request)
    wanted = publishing.Wanted(body["version"], body.get("platform", WORKBENCH), body.get("api", False))
    valid = publishing.check_draft(request.database, request.cache, request.caller, flow_id)
    return request.write(lambda session: publishing.publish(session, request.caller, flow_id, wanted, valid))


@endpoint(
    blueprint, "POST", "/flows/{flowId}/take-off", role="publisher", idempotent=True, body=TAKE_OFF,
    returns={200: TAKEN_OFF}, summary="Take a version, or all, off a platform",
)  # fmt: skip
def take_flow_off(request: Request) -> Answer:
    from chalicelib.flows import publishing

    body = request.body
    return request.write(
        lambda session: publishing.take_off(
            session, request.caller, _flow_id(request), body["platform"], body.get("version")
        )
    )


@endpoint(
    blueprint, "GET", "/flows/{flowId}/versions", role="viewer", query=PAGE,
    returns={200: page_of(FLOW_VERSION)}, summary="A flow's versions, the highest number first",
)  # fmt: skip
def list_flow_versions(request: Request) -> dict[str, Any]:
    catalog.find_own(request.cache, request.caller, _flow_id(request))
    with request.reads() as session:
        return catalog.list_versions(session, _flow_id(request), request.page())


@endpoint(
    blueprint, "GET", "/flows/{flowId}/published", errors=(422,), role="viewer", query={"version": VERSION},
    returns={200: PUBLISHED_FLOW},
    summary="What a run of the app's own or a licensed flow takes, in its newest published version or the one named",
)  # fmt: skip
def get_published_flow(request: Request) -> dict[str, Any]:
    version = request.query.get("version")
    return rendering.published(catalog.find_usable(request.cache, request.caller, _flow_id(request), version))


@endpoint(
    blueprint, "PUT", "/flows/{flowId}/comparisons/{version}", role="publisher", if_match="honoured",
    body=FLOW_DATA, body_optional=True, max_body_bytes=FLOW_LIMIT, errors=(409,),
    returns={200: COMPARISON}, summary="Freeze the draft, or other data, to be run beside its versions",
    **CHECKS_FLOWS,
)  # fmt: skip
def put_comparison(request: Request) -> Answer:
    from chalicelib.flows import comparisons, drafts

    flow_id, version = _flow_id(request), request.path["version"]
    with request.reads() as session:
        draft = catalog.read_draft(session, request.caller, flow_id)
    data = request.body["data"] if "data" in request.body else json.loads(draft.text)
    prepared = drafts.prepare(request.cache, request.caller, data, flow_id)
    return request.write(
        lambda session: rendering.comparison(
            comparisons.put(session, request.caller, flow_id, version, request.if_match, prepared)
        )
    )


@endpoint(
    blueprint, "GET", "/flows/{flowId}/comparisons/{version}", errors=(422,), role="viewer",
    returns={200: COMPARISON_WITH_DATA}, summary="A comparison with its data",
)  # fmt: skip
def get_comparison(request: Request) -> Answer:
    catalog.find_own(request.cache, request.caller, _flow_id(request))
    with request.reads() as session:
        found = catalog.read_comparison(session, _flow_id(request), request.path["version"])
    shown = rendering.comparison(found.row)
    return Answer({**shown, "data": json.loads(found.text)}, tagged=shown)


@endpoint(
    blueprint, "DELETE", "/flows/{flowId}/comparisons/{version}", errors=(422,), role="publisher", if_match="honoured",
    returns={204: None}, summary="Delete a comparison",
)  # fmt: skip
def delete_comparison(request: Request) -> Answer:
    from chalicelib.flows import comparisons

    def work(session: Any) -> Answer:
        comparisons.delete(
            session, request.caller, _flow_id(request), request.path["version"], request.if_match
        )
        return Answer(status=204)

    return request.write(work)
