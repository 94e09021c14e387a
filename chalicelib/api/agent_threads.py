"""/api/v1/agents/{agentName}/threads: what an app and an agent said to each other."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.agent_schemas import MESSAGE, THREAD
from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request

blueprint = Blueprint(__name__)


@endpoint(
    blueprint, "GET", "/agents/{agentName}/threads", role="caller", query=PAGE,
    returns={200: page_of(THREAD)}, summary="The app's conversations with an agent, the highest id first",
)  # fmt: skip
def list_threads(request: Request) -> dict[str, Any]:
    from chalicelib.agents import conversations

    history = conversations.of(request.caller, request.path["agentName"])
    with request.reads() as session:
        return history.list_threads(session, request.page())


@endpoint(
    blueprint, "GET", "/agents/{agentName}/threads/{threadId}/messages", role="caller", query=PAGE,
    returns={200: page_of(MESSAGE)}, summary="What was said in a conversation, newest first",
)  # fmt: skip
def list_messages(request: Request) -> dict[str, Any]:
    from chalicelib.agents import conversations

    history = conversations.of(request.caller, request.path["agentName"])
    with request.reads() as session:
        return history.list_messages(session, request.path["threadId"], request.page())


@endpoint(
    blueprint, "DELETE", "/agents/{agentName}/threads/{threadId}", role="caller", errors=(409,),
    returns={204: None}, summary="Delete a conversation",
)  # fmt: skip
def delete_thread(request: Request) -> Answer:
    from chalicelib.agents import conversations

    history = conversations.of(request.caller, request.path["agentName"])
    thread_id = request.path["threadId"]
    history.delete_most(request.database, thread_id)

    def work(session: Any) -> Answer:
        history.delete(session, request.caller, thread_id)
        return Answer(status=204)

    return request.write(work)
