"""/api/v1/agents: which there are, what admins decide about them, and talking to them."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.agent_schemas import AGENT, AGENT_DETAIL, ANSWER, INVOKE
from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request
from chalicelib.core.settings import ONE_MIB

blueprint = Blueprint(__name__)

NOTHING: dict[str, Any] = {"type": "object", "maxProperties": 0}
TALKS = ("database", "open_secrets", "presign", "invoke_runtime", "internet", "ask_model")


@endpoint(
    blueprint, "GET", "/agents", role="viewer", query=PAGE,
    returns={200: page_of(AGENT)}, summary="Every agent of this deployment, by name",
)  # fmt: skip
def list_agents(request: Request) -> dict[str, Any]:
    from chalicelib.agents import catalog
    from chalicelib.agents.services import agent_services

    return catalog.list_agents(agent_services(), request.page())


@endpoint(
    blueprint, "GET", "/agents/{agentName}", role="viewer",
    returns={200: AGENT_DETAIL}, summary="An agent: its state, its tables, why it could not be loaded",
)  # fmt: skip
def get_agent(request: Request) -> dict[str, Any]:
    from chalicelib.agents import catalog
    from chalicelib.agents.services import agent_services

    services = agent_services()
    agent = catalog.find(services, request.path["agentName"])
    return catalog.detail(services, agent, request.caller.app_id)


def _decide(request: Request, verb: str) -> Answer:
    from chalicelib.agents import catalog, lifecycle
    from chalicelib.agents.services import agent_services

    agent = catalog.find(agent_services(), request.path["agentName"])
    decide = {"enable": lifecycle.enable, "disable": lifecycle.disable, "reload": lifecycle.reload}[verb]
    return request.write(lambda session: decide(session, request.caller, agent))


@endpoint(
    blueprint, "POST", "/agents/{agentName}/enable", role="admin", idempotent=True, body=NOTHING, body_optional=True,
    errors=(409, 503), returns={200: AGENT}, summary="Let an agent be called again",
)  # fmt: skip
def enable_agent(request: Request) -> Answer:
    return _decide(request, "enable")


@endpoint(
    blueprint, "POST", "/agents/{agentName}/disable", role="admin", idempotent=True, body=NOTHING, body_optional=True,
    errors=(503,), returns={200: AGENT}, summary="Refuse calls of an agent in every function",
)  # fmt: skip
def disable_agent(request: Request) -> Answer:
    return _decide(request, "disable")


@endpoint(
    blueprint, "POST", "/agents/{agentName}/reload", role="admin", idempotent=True, body=NOTHING, body_optional=True,
    errors=(503,), returns={200: AGENT}, summary="Let every function make a new instance before its next call",
)  # fmt: skip
def reload_agent(request: Request) -> Answer:
    return _decide(request, "reload")


@endpoint(
    blueprint, "POST", "/agents/{agentName}/invoke", role="caller", idempotent=True, body=INVOKE,
    max_body_bytes=ONE_MIB, errors=(409, 502, 503, 504), rights=TALKS, memory_mb=1769,
    returns={200: ANSWER}, summary="Talk to an agent",
)  # fmt: skip
def invoke_agent(request: Request) -> Answer:
    from chalicelib.agents import invoking
    from chalicelib.agents.services import agent_services

    body = request.body
    answered = invoking.invoke(
        agent_services(),
        request.caller,
        request.path["agentName"],
        message=body["message"],
        thread_id=body.get("threadId"),
        context=body.get("context"),
    )
    return request.write(lambda session: invoking.store(session, answered))
