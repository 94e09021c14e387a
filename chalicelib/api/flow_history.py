"""/api/v1/flows/{flowId}/history: what the nodes of a flow remember of a conversation."""

from __future__ import annotations

import json
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.flow_schemas import NODE_HISTORY, PERSON
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Request

blueprint = Blueprint(__name__)


@endpoint(
    blueprint, "GET", "/flows/{flowId}/history", role="caller",
    query={**PAGE, "uid": PERSON, "chatId": PERSON}, returns={200: page_of(NODE_HISTORY)},
    summary="What the nodes of the app's own or a licensed flow would be told of a conversation, by node id",
)  # fmt: skip
def list_flow_history(request: Request) -> dict[str, Any]:
    from chalicelib.flows import catalog
    from chalicelib.flows.history import budget, listing
    from chalicelib.flows.history.dao import Chat

    flow_id = int(request.path["flowId"])
    chat = Chat(request.caller.app_id, flow_id, request.query["uid"], request.query["chatId"])
    data = listing.published_data(request.cache, request.caller, flow_id)
    with request.reads() as session:
        if data is None:
            data = json.loads(catalog.read_draft(session, request.caller, flow_id).text)
        return listing.list_history(session, chat, budget.node_max_tokens(data), request.page())
