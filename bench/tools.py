"""Tools: registering a large document, what a call adds to the call itself, a warm read, a long list over MCP."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import create_engine, insert

from bench.clock import interleaved, seconds
from bench.documents import ONE_MIB, large_document
from bench.figure import Figure, compared, counted, plain
from bench.gateway_event import caller, gateway_event
from bench.machine import silence
from bench.read import bare_handler
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.tools.models import ToolExecution
from chalicelib.tools.openapi.metaschema import check_structure
from tests import databases
from tests.http import Client, Deployment, deployed
from tests.internet import Server
from tests.tool_documents import document
from tests.wire import WireProxy

AREA = "tools"
TOOLS, TOOL, RUN, MCP = (
    "/api/v1/" + path for path in ("tools", "tools/{toolId}", "tools/{toolId}/run", "mcp")
)
# The official validator takes seconds for a document of this size.
REGISTRATIONS, REFERENCES = 12, 3
CALLS, READS, TIMES, LISTS = 150, 200, 8, 30
COUNTED = 100
FEW, MANY, AT_ONCE = 100, 1_000, 20
PET = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{"id": 7, "name": "Tom"}'
)


def measure() -> list[Figure]:
    """Return the figures of this area."""
    figures: list[Figure] = []
    for work in (_register, _run, _read, _list):
        with databases.new_database() as url:
            figures += work(url)
    return figures


def _post(
    client: Client, resource: str, body: Any, expected: int, **ids: str
) -> Callable[[], dict[str, Any]]:
    event = gateway_event("POST", resource, ids, credential=client.credential, body=body)
    return caller(client.app, event, expected)


def _registered(client: Client, openapi: dict[str, Any], name: str = "Pets") -> str:
    answer = _post(client, TOOLS, {"name": name, "openapi": openapi}, 201)()
    return str(json.loads(answer["body"])["toolId"])


def _register(url: str) -> list[Figure]:
    large = large_document(ONE_MIB)
    text = json.dumps(large)

    def official() -> None:
        parsed = json.loads(text)
        if not OpenAPIV31SpecValidator(parsed).is_valid():
            raise RuntimeError("the document does not hold")

    def verdict() -> None:
        if check_structure(json.loads(text)):
            raise RuntimeError("the document does not hold")

    with deployed(url) as deployment, silence():
        register = _post(deployment.client, TOOLS, {"name": "Large", "openapi": large}, 201)
        slow = interleaved(
            {"ours": lambda: seconds(register), "official": lambda: seconds(official)}, REFERENCES
        )
        fast = interleaved(
            {"ours": lambda: seconds(register), "verdict": lambda: seconds(verdict)}, REGISTRATIONS
        )
    return [
        compared(
            "register a 1 MB OpenAPI document / parse it and let openapi-spec-validator judge it",
            AREA, slow["ours"], slow["official"], "ms", 3, scale=1000,
        ),
        compared(
            "the same / parse it and let the compiled schema alone say yes or no",
            AREA, fast["ours"], fast["verdict"], "ms", None, scale=1000,
        ),
    ]  # fmt: skip


def _run(url: str) -> list[Figure]:
    with closing(Server(PET)) as server:
        endpoint = f"127.0.0.1:{server.port}"
        with (
            deployed(url, HOTPLUG_PRIVATE_ENDPOINTS=endpoint) as deployment,
            httpx.Client(trust_env=False, headers={"Connection": "close"}) as http,
            silence(),
        ):
            tool = _registered(deployment.client, document(f"http://{endpoint}"))
            engine = create_engine(url, connect_args={"ssl_disabled": True, "charset": "utf8mb4"})
            body = {"operationId": "getPet", "path": {"petId": 7}}
            run = _post(deployment.client, RUN, body, 200, toolId=tool)

            def bare() -> None:
                if http.get(f"http://{endpoint}/pets/7").json()["id"] != 7:
                    raise RuntimeError("another pet")

            def bare_with_row() -> None:
                bare()
                with engine.begin() as connection:
                    connection.execute(insert(ToolExecution), _row())

            readings = interleaved(
                {
                    "ours": lambda: seconds(run),
                    "bare": lambda: seconds(bare),
                    "bare with row": lambda: seconds(bare_with_row),
                },
                CALLS,
                warm_up=5,
            )
            engine.dispose()
    return [
        compared(
            "call of a warm tool / the same call with httpx, and the same row in one INSERT and COMMIT",
            AREA, readings["ours"], readings["bare with row"], "ms", 3, scale=1000,
        ),
        compared(
            "call of a warm tool / the same call with httpx alone",
            AREA, readings["ours"], readings["bare"], "ms", None, scale=1000,
        ),
    ]  # fmt: skip


def _row() -> dict[str, Any]:
    return {
        "id": new_id(), "execution_id": new_ulid(), "tool_id": "tool@1", "app_id": 1, "version": "V1.0",
        "operation": "getPet", "outcome": "success", "error_code": None, "status": 200, "duration_us": 1000,
        "request_id": "", "started_at": datetime.now(UTC),
    }  # fmt: skip


def _get(deployment: Deployment) -> Callable[[], object]:
    tool = _registered(deployment.client, document())
    event = gateway_event("GET", TOOL, {"toolId": tool}, credential=deployment.client.credential)
    return caller(deployment.client.app, event)


def _read(url: str) -> list[Figure]:
    with WireProxy(url) as proxy, deployed(proxy.url) as deployment, silence():
        get, most = _get(deployment), 0
        get()
        for _ in range(COUNTED):
            before = len(proxy.commands)
            get()
            most = max(most, len(proxy.commands) - before)
    with databases.new_database() as other, deployed(other) as deployment, silence():
        get, bare = _get(deployment), bare_handler(other)
        readings = interleaved(
            {"ours": lambda: seconds(get, TIMES), "bare": lambda: seconds(bare, TIMES)}, READS
        )
    return [
        counted("warm GET of a tool, most round trips of a request", AREA, most, "round trips", 1),
        compared(
            "warm GET of a tool / a bare handler with one round trip",
            AREA, readings["ours"], readings["bare"], "ms", 2, scale=1000,
        ),
        plain("warm GETs of a tool on one core", AREA, 1 / median(readings["ours"]), "1/s"),
    ]  # fmt: skip


def _list(url: str) -> list[Figure]:
    """Two apps, one with a hundred tools and one with a thousand, list a page of the same size."""
    with deployed(url) as deployment, silence():
        lists = {name: _listing(deployment, name, count) for name, count in (("few", FEW), ("many", MANY))}
        cold = seconds(lists["many"])
        readings = interleaved(
            {"few": lambda: seconds(lists["few"]), "many": lambda: seconds(lists["many"])}, LISTS, warm_up=3
        )
    return [
        compared(
            f"tools/list of {FEW} among {MANY:,} tools, warm / among {FEW}",
            AREA, readings["many"], readings["few"], "ms", 1.5, scale=1000,
        ),
        plain(f"tools/list of {FEW} among {MANY:,} tools, nothing in memory", AREA, cold * 1000, "ms"),
    ]  # fmt: skip


def _listing(deployment: Deployment, app: str, count: int) -> Callable[[], object]:
    client = Client(deployment.client.app, deployment.credential(app, "admin"))
    described = document()
    for start in range(0, count, AT_ONCE):
        tools = [{"name": f"Tool {number}", "openapi": described} for number in range(start, start + AT_ONCE)]
        _post(client, TOOLS, {"tools": tools}, 201)()
    message = {"jsonrpc": "2.0", "id": str(uuid4()), "method": "tools/list"}
    call = _post(client, MCP, message, 200)

    def work() -> object:
        answer = call()
        if len(json.loads(answer["body"])["result"]["tools"]) != FEW:
            raise RuntimeError("another page than expected")
        return answer

    return work
