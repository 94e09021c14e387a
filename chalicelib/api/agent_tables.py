"""/api/v1/agents/tables and …/moves: where agents keep what they know, for how long, and moving it."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.agent_schemas import CHECKED_TABLE, MOVE, NEW_MOVE, RETENTION, TABLE
from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request

blueprint = Blueprint(__name__)

# How often the job that moves runs.
RETRY_AFTER_S = 60


@endpoint(
    blueprint, "GET", "/agents/tables", role="admin", query=PAGE,
    returns={200: page_of(CHECKED_TABLE)}, summary="Every table of the agents, compared with its model now",
)  # fmt: skip
def list_tables(request: Request) -> dict[str, Any]:
    from chalicelib.agents.tables import catalog

    with request.reads() as session:
        return catalog.list_tables(session, request.page(), _declared())


@endpoint(
    blueprint, "PATCH", "/agents/tables/{table}", role="admin", if_match="honoured", body=RETENTION,
    returns={200: TABLE}, summary="How long its rows are kept, and how many",
)  # fmt: skip
def patch_table(request: Request) -> Answer:
    from chalicelib.agents.tables import catalog

    name, declared = request.path["table"], _declared()
    return request.write(
        lambda session: catalog.set_retention(
            session, request.caller, name, request.body, request.if_match, declared
        )
    )


@endpoint(
    blueprint, "POST", "/agents/{agentName}/moves", role="admin", idempotent=True, body=NEW_MOVE, errors=(409, 503),
    returns={202: MOVE}, summary="Move an agent's history between the shared table and its own",
)  # fmt: skip
def create_move(request: Request) -> Answer:
    from chalicelib.agents import catalog, invoking
    from chalicelib.agents.moves import service
    from chalicelib.agents.services import agent_services

    name, body = request.path["agentName"], request.body
    place = invoking.place_of(catalog.find(agent_services(), name))

    def work(session: Any) -> Answer:
        made = service.begin(
            session, request.caller, name, place, body["target"], body.get("keepDays", service.KEEP_DAYS)
        )
        location = f"{BASE}/agents/{name}/moves/{made['moveId']}"
        return Answer(made, 202, {"Location": location, "Retry-After": str(RETRY_AFTER_S)})

    return request.write(work)


@endpoint(
    blueprint, "GET", "/agents/{agentName}/moves", role="admin", query=PAGE,
    returns={200: page_of(MOVE)}, summary="The moves of an agent's history, newest first",
)  # fmt: skip
def list_moves(request: Request) -> dict[str, Any]:
    from chalicelib.agents.moves import service

    name = _known(request)
    with request.reads() as session:
        return service.list_moves(session, name, request.page())


@endpoint(
    blueprint, "GET", "/agents/{agentName}/moves/{moveId}", role="admin", returns={200: MOVE},
    summary="How far a move is",
)  # fmt: skip
def get_move(request: Request) -> dict[str, Any]:
    from chalicelib.agents.moves import service

    name = _known(request)
    with request.reads() as session:
        return service.get_move(session, name, request.path["moveId"])


@endpoint(
    blueprint, "DELETE", "/agents/{agentName}/moves/{moveId}", role="admin", if_match="honoured", errors=(409,),
    returns={200: MOVE}, summary="Cancel a move that goes on; nothing is lost",
)  # fmt: skip
def cancel_move(request: Request) -> Answer:
    from chalicelib.agents.moves import service

    name, move_id = _known(request), request.path["moveId"]

    def work(session: Any) -> dict[str, Any]:
        service.cancel(session, request.caller, name, move_id, request.if_match)
        return service.get_move(session, name, move_id)

    return request.write(work)


def _declared() -> dict[str, Any]:
    """Every table that an agent of this release declares, by name."""
    from chalicelib.agents.loading.process import registry_of_process
    from chalicelib.agents.loading.registry import agent_tables

    return {table.name: table for table in agent_tables(registry_of_process())}


def _known(request: Request) -> str:
    from chalicelib.agents import catalog
    from chalicelib.agents.services import agent_services

    return catalog.find(agent_services(), request.path["agentName"]).name
