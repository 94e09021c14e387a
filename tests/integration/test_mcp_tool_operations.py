"""Operations of tools over MCP: the list follows every change at once, what a model sees and gives, what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid
from chalicelib.core.outbound.client import HttpOut
from chalicelib.mcp.offers import Offer
from chalicelib.mcp.tool_operations import BUSINESS_KEY, ToolOperations
from chalicelib.tools import drafts, loading, registry
from chalicelib.tools.models import ToolExecution
from chalicelib.tools.services import Services
from tests.http import settings
from tests.internet import Server, header_of
from tests.plugin_rows import OTHER, OWNER, caller
from tests.tool_documents import document, json_of
from tests.tool_rows import put_apps, put_tool, put_tools, tool_services

PET = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{"id": 7, "name": "Tom"}'
)


@pytest.fixture(autouse=True)
def _settings(database_url: str) -> Iterator[None]:
    with settings(HOTPLUG_DATABASE_URL=database_url):
        yield


@pytest.fixture
def two(database: DatabaseService) -> tuple[Services, Services]:
    """The services of two warm functions."""
    put_apps(database)
    return tool_services(database, HttpOut()), tool_services(database, HttpOut())


def offers(made: Services, app_id: int = OWNER) -> list[Offer]:
    """Return all that an app is offered at the beginning of a request."""
    made.cache.refresh()
    found = ToolOperations(made)
    index = found.index(caller(app_id))
    return found.describe(caller(app_id), [(name, index.keys[name]) for name in index.names])


def names(made: Services, app_id: int = OWNER) -> list[str]:
    return [offer.name for offer in offers(made, app_id)]


def statements(database: DatabaseService, work: Callable[[], object]) -> list[str]:
    """Return what `work` sends to the database."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return sent


def test_the_list_follows_every_change_at_once(
    database: DatabaseService, two: tuple[Services, Services]
) -> None:
    def seen(app_id: int = OWNER) -> list[str]:
        first, second = (names(one, app_id) for one in two)
        assert first == second
        return first

    assert seen() == seen(OTHER) == []
    # registered
    tool = put_tool(database)
    assert (seen(), seen(OTHER)) == (["tool_Pets_getPet"], [])
    # changed: another document, another name
    other = drafts.draft(document(ping={"at": ("get", "/ping")}))

    def change(**wanted: Any) -> None:
        database.run(
            lambda session: registry.change(session, caller(), tool, "V1.0", "*", registry.Change(**wanted))
        )

    change(document=other)
    assert seen() == ["tool_Pets_getPet", "tool_Pets_ping"]
    change(name="Cats")
    assert seen() == ["tool_Cats_getPet", "tool_Cats_ping"]
    change(shared=True)
    assert seen(OTHER) == seen() == ["tool_Cats_getPet", "tool_Cats_ping"]
    change(shared=False)
    assert seen(OTHER) == []
    # a newer version counts at once, an older one when it is the newest again
    draft = drafts.draft(document())
    database.run(
        lambda session: registry.add_version(
            session, caller(), tool, "V2", name="Dogs", description=None, document=draft
        )
    )
    assert seen() == ["tool_Dogs_getPet"]
    database.run(lambda session: registry.delete(session, caller(), tool, "V2", None))
    assert seen() == ["tool_Cats_getPet", "tool_Cats_ping"]
    database.run(lambda session: registry.delete(session, caller(), tool, None, None))
    assert seen() == []
    database.run(lambda session: registry.restore(session, caller(), tool, "V2"))
    assert seen() == ["tool_Dogs_getPet"]


def test_a_changed_document_changes_what_a_warm_function_describes(
    database: DatabaseService, two: tuple[Services, Services]
) -> None:
    tool = put_tool(database)
    before = [offers(one)[0].input_schema for one in two]
    assert before[0] == before[1]
    changed = document()
    changed["paths"]["/pets/{petId}"]["get"]["parameters"][0]["schema"] = {"type": "string"}
    draft = drafts.draft(changed)
    database.run(
        lambda session: registry.change(session, caller(), tool, "V1.0", "*", registry.Change(document=draft))
    )
    for one in two:
        path = offers(one)[0].input_schema["properties"]["path"]
        assert path["properties"]["petId"]["type"] == "string"


def test_two_tools_of_one_name_keep_apart(database: DatabaseService, two: tuple[Services, Services]) -> None:
    ids = put_tools(database, ["Pets", "Pets"])
    index = ToolOperations(two[0])
    two[0].cache.refresh()
    keys = index.index(caller()).keys
    assert {key[0] for key in keys.values()} == set(ids)
    assert all(name.startswith("tool_Pets_getPet_") for name in keys)


def test_a_thousand_tools_cost_a_few_statements_and_one_change_three(
    database: DatabaseService, two: tuple[Services, Services]
) -> None:
    made = two[0]
    put_tools(database, [f"Tool {number}" for number in range(1000)])
    made.cache.refresh()
    found = ToolOperations(made)
    first = statements(database, lambda: found.index(caller()))
    # Which there are (own, shared), and fifty tools' operations at a time.
    assert len(first) == 2 + 1000 // 50
    assert len(found.index(caller()).names) == 1000
    assert statements(database, lambda: found.index(caller())) == []
    put_tool(database, "One more")
    made.cache.refresh()
    assert len(statements(database, lambda: found.index(caller()))) == 2 + 1
    assert len(found.index(caller()).names) == 1001


def test_a_page_is_described_by_two_statements_and_then_by_none(
    database: DatabaseService, two: tuple[Services, Services]
) -> None:
    made = two[0]
    put_tools(database, [f"Tool {number}" for number in range(100)])
    made.cache.refresh()
    found = ToolOperations(made)
    index = found.index(caller())
    page = [(name, index.keys[name]) for name in index.names]
    assert len(statements(database, lambda: found.describe(caller(), page))) == 2
    assert statements(database, lambda: found.describe(caller(), page)) == []
    assert [offer.name for offer in found.describe(caller(), page)] == list(index.names)


def test_large_documents_are_read_a_few_at_a_time(
    database: DatabaseService, two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = put_tools(database, ["a", "b", "c"])
    size = len(json.dumps(document(), ensure_ascii=False, separators=(",", ":")))
    for room, batches in ((0, 3), (2 * size, 2), (3 * size, 1)):
        monkeypatch.setattr(loading, "READ_AT_ONCE_BYTES", room)
        sent = statements(database, lambda: list(loading.read_newest(database, ids)))
        assert len(sent) == 1 + batches
    assert {tool_id for tool_id, _ in loading.read_newest(database, ids)} == set(ids)


def test_what_was_deleted_after_the_index_was_read_is_left_out(
    database: DatabaseService, two: tuple[Services, Services]
) -> None:
    tool = put_tool(database)
    put_tool(database, "Stays")
    found = ToolOperations(two[0])
    two[0].cache.refresh()
    index = found.index(caller())
    database.run(lambda session: registry.delete(session, caller(), tool, None, None))
    page = [(name, index.keys[name]) for name in index.names]
    assert [offer.name for offer in found.describe(caller(), page)] == ["tool_Stays_getPet"]


# -- calling: what is the model's, what is the business's --------------------------------------------------------------

# x-from: 0 from the model, 1 from the business, 2 the fixed default; x-display: hidden from the model and pruned.
ORDER: dict[str, Any] = {
    "at": ("post", "/pets/{petId}/orders"),
    "parameters": [
        {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}},
        {"name": "X-Tenant", "in": "header", "required": True, "schema": {"type": "string"}, "x-from": 1},
        {"name": "channel", "in": "query", "schema": {"type": "string", "default": "mcp"}, "x-from": 2},
        {"name": "trace", "in": "query", "schema": {"type": "string"}, "x-display": False},
    ],
    "requestBody": {
        "required": True,
        **json_of(
            {
                "type": "object",
                "required": ["note", "account"],
                "properties": {
                    "note": {"type": "string"},
                    "account": {"type": "string", "x-from": 1},
                    "source": {"type": "string", "default": "agent", "x-from": 2},
                },
            }
        ),
    },
    "responses": {
        "200": {
            "description": "ok",
            **json_of(
                {
                    "type": "object",
                    "properties": {
                        "id": {"type": "integer"},
                        "name": {"type": "string", "x-display": False},
                    },
                }
            ),
        }
    },
}
MODEL = {"path": {"petId": 7}, "body": {"note": "soon"}}
BUSINESS = {"header": {"X-Tenant": "acme"}, "body": {"account": "A-1"}}


@pytest.fixture
def upstream() -> Iterator[Server]:
    server = Server(PET)
    yield server
    server.close()


@pytest.fixture
def ordering(database: DatabaseService, upstream: Server) -> ToolOperations:
    """The operations of an app that has one tool, which orders."""
    put_apps(database)
    put_tool(
        database,
        openapi=document(
            f"http://127.0.0.1:{upstream.port}", order=json.loads(json.dumps(ORDER)) | {"at": ORDER["at"]}
        ),
    )
    http = HttpOut(private_endpoints=[f"127.0.0.1:{upstream.port}"])
    return ToolOperations(tool_services(database, http))


def key_of(found: ToolOperations) -> tuple[str, ...]:
    return found.index(caller()).keys["tool_Pets_order"]


def test_the_model_is_shown_its_part_alone(ordering: ToolOperations) -> None:
    [offer] = [one for one in offers(ordering.services) if one.name == "tool_Pets_order"]
    shown = offer.input_schema["properties"]
    assert set(shown) == {"path", "body"}
    assert set(shown["body"]["properties"]) == {"note"}
    assert shown["body"]["required"] == ["note"]
    for hidden in ("X-Tenant", "channel", "trace", "account", "source"):
        assert hidden not in json.dumps(offer.input_schema)
    assert offer.output_schema is not None
    assert set(offer.output_schema["properties"]) == {"id"}


def test_business_arguments_come_by_meta_and_defaults_by_themselves(
    ordering: ToolOperations, upstream: Server, database: DatabaseService
) -> None:
    result = ordering.call(caller(), key_of(ordering), dict(MODEL), {BUSINESS_KEY: BUSINESS})
    [request] = upstream.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /pets/7/orders?channel=mcp HTTP/1.1\r\n")
    assert header_of(request, "x-tenant") == "acme"
    assert json.loads(body) == {"note": "soon", "account": "A-1", "source": "agent"}
    # The answer's hidden part is pruned, in the text as in the value.
    assert (result.structured, result.is_error) == ({"id": 7}, False)
    assert json.loads(result.content[0]["text"]) == {"id": 7}
    with database.reads() as session:
        [row] = session.query(ToolExecution).all()
    assert (row.execution_id, row.outcome) == (result.meta["hotplug/executionId"], "success")


@pytest.mark.parametrize(
    ("model", "pointer"),
    [
        ({**MODEL, "header": {"X-Tenant": "evil"}}, "/arguments/header/X-Tenant"),
        ({**MODEL, "body": {"note": "a", "account": "B-2"}}, "/arguments/body/account"),
        ({**MODEL, "body": {"note": "a", "source": "me"}}, "/arguments/body/source"),
        ({**MODEL, "query": {"channel": "me"}}, "/arguments/query/channel"),
        ({**MODEL, "query": {"trace": "me"}}, "/arguments/query/trace"),
        ({**MODEL, "other": {}}, "/arguments/other"),
        ({**MODEL, "path": []}, "/arguments/path"),
    ],
)
@pytest.mark.parametrize("business", [{}, {BUSINESS_KEY: BUSINESS}], ids=["alone", "beside"])
def test_a_model_that_gives_what_is_not_its_is_refused(
    ordering: ToolOperations, upstream: Server, model: dict[str, Any], pointer: str, business: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as refused:
        ordering.call(caller(), key_of(ordering), model, business)
    assert pointer in {one.pointer for one in refused.value.errors}
    assert upstream.connections == 0


def test_without_the_business_its_part_is_missing(ordering: ToolOperations, upstream: Server) -> None:
    with pytest.raises(Invalid) as refused:
        ordering.call(caller(), key_of(ordering), dict(MODEL), {})
    assert {one.pointer.rpartition("/")[2] for one in refused.value.errors} >= {"X-Tenant"}
    assert upstream.connections == 0
