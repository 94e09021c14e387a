"""/api/v1/agents/tables and …/moves: where agents keep what they know, for how long, and moving it."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.agent_schemas import MOVE, NEW_MOVE, RETENTION, TABLE
from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.request import Answer, Request

blueprint = Blueprint(__name__)

DEFAULT_KEEP_DAYS = 7
RETRY_AFTER_S = 5


@endpoint(
    blueprint, "GET", "/agents/tables", role="admin", query=PAGE,
    returns={200: page_of(TABLE)}, summary="Every table of the agents, compared with its model now",
)  # fmt: skip
def list_tables(request: Request) -> dict[str, Any]:
    from chalicelib.agents.services import agent_services
    from chalicelib.agents.tables import listing

    return listing.list_tables(request.database, agent_services().agents.tables(), request.page())


@endpoint(
    blueprint, "PATCH", "/agents/tables/{table}", role="admin", if_match="honoured", body=RETENTION,
    returns={200: TABLE}, summary="How long a table's rows are kept, and how many",
)  # fmt: skip
def patch_table(request: Request) -> Answer:
    raise NotImplementedError
