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
    blueprint, "GET", "/agents/{agentName}/threads", role="caller", query=PAGE, errors=(503,),
    returns={200: page_of(THREAD)}, summary="The app's conversations with an agent, the highest id first",
)  # fmt: skip
def list_threads(request: Request) -> dict[str, Any]:
    from chalicelib.agents.history import threads

    name, place = request.path["agentName"], _place(request)
    with request.reads() as session:
        return threads.list_threads(session, place, request.caller.app_id, name, request.page())


@endpoint(
    blueprint, "GET", "/agents/{agentName}/threads/{threadId}/messages", role="caller", query=PAGE, errors=(503,),
    returns={200: page_of(MESSAGE)}, summary="What was said in a conversation, newest first",
)  # fmt: skip
def list_messages(request: Request) -> dict[str, Any]:
    from chalicelib.agents.history import threads

    name, place, app_id = request.path["agentName"], _place(request), request.caller.app_id
    with request.reads() as session:
        return threads.list_messages(session, place, app_id, name, request.path["threadId"], request.page())


@endpoint(
    blueprint, "DELETE", "/agents/{agentName}/threads/{threadId}", role="caller", errors=(503,),
    returns={204: None}, summary="Delete a conversation",
)  # fmt: skip
def delete_thread(request: Request) -> Answer:
    from chalicelib.agents.history import threads

    name, place, thread_id = request.path["agentName"], _place(request), request.path["threadId"]
    threads.shorten_thread(request.database, place, request.caller.app_id, name, thread_id)

    def work(session: Any) -> Answer:
        threads.delete_thread(session, request.caller, place, name, thread_id)
        return Answer(status=204)

    return request.write(work)


def _place(request: Request) -> Any:
    """Where the agent's messages are; None for one that keeps none."""
    from chalicelib.agents import catalog, invoking
    from chalicelib.agents.services import agent_services

    return invoking.place_of(catalog.find(agent_services(), request.path["agentName"]))
