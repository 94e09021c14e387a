"""The node `plugin` at a real HTTP server on loopback that keeps every byte it is sent."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import OUTPUT_MISFIT, TOOL_FAILED, NodeError, NodeTimeout
from chalicelib.flows.nodes.calling import call_services, calling_nodes
from tests.flow_builders import end, flow, node, output, ref, start
from tests.flow_calls import call, caller_of, failing, outputs
from tests.flow_runs import APP, express
from tests.internet import header_of
from tests.tool_documents import document, json_of
from tests.tool_world import TOOLS, World, reply, world

PET = {"id": 7, "name": "Tom"}
Serve = Callable[..., World]


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a world whose server gives these answers, the last one for ever."""
    with ExitStack() as worlds:

        def begin(*answers: Any) -> World:
            begun = worlds.enter_context(world(database_url, tmp_path, *(answers or (reply(PET),))))
            begun.client_of("friend", "caller")  # runs the flows, owns nothing
            return begun

        yield begin


NUMBER: dict[str, Any] = {"schema": {"type": "integer"}}
OPERATIONS: dict[str, Any] = {
    "putPet": {
        "at": ("put", "/owners/{id}/pets"),
        "parameters": [
            {"name": "id", "in": "path", "required": True, **NUMBER},
            {"name": "dry", "in": "query", **NUMBER},
            {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
            {"name": "tenant", "in": "query", "x-from": 1, "schema": {"type": "string"}},
        ],
        "requestBody": json_of(
            {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "id": {"type": "integer"},
                    "name": {"type": "string"},
                    "secret": {"type": "string", "x-from": 1},
                },
            }
        ),
    },
    "post": {"at": ("post", "/pets"), "requestBody": json_of(True)},
    "keyed": {
        "at": ("post", "/keyed"),
        "parameters": [{"name": "idempotency-key", "in": "header", "schema": {"type": "string"}}],
    },
}


def work(begun: World, operation: str, inputs: dict[str, Any] | None = None, **more: Any) -> Call:
    """A call of an operation of a tool that the app `acme` owns and `friend` runs."""
    description = more.pop("description", None) or document(begun.url, **json.loads(json.dumps(OPERATIONS)))
    tool = more.pop("tool", None) or begun.register(description)
    params = {"pluginId": tool, "operationId": operation, **more.pop("params", {})}
    declared = more.pop("declared", ())
    who = {"author": caller_of("acme"), "user": caller_of("friend")}
    return call("plugin", params, inputs, declared, **{**who, **more})


def execute(one: Call) -> Result:
    return calling_nodes(call_services())["plugin"](one)


def sent(begun: World, index: int = -1) -> tuple[str, bytes]:
    head, _, body = begun.server.requests[index].partition(b"\r\n\r\n")
    return head.decode().partition("\r\n")[0], body


def test_each_input_goes_where_the_operation_has_a_place_of_its_name(serve: Serve) -> None:
    begun = serve()
    inputs = {"id": 3, "dry": 1, "x-trace": "t", "name": "Tom", "further": [1]}
    business = [
        {"name": "tenant", "value": "eu"},
        {"name": "secret", "value": "s"},
        {"name": "dry", "value": 9},
    ]

    result = execute(
        work(begun, "putPet", inputs, declared=outputs("name"), params={"businessInput": business})
    )

    line, body = sent(begun)
    assert line == "PUT /owners/3/pets?dry=1&tenant=eu HTTP/1.1"  # an input stands before the business
    assert json.loads(body) == {"id": 3, "name": "Tom", "further": [1], "secret": "s"}
    assert header_of(begun.server.requests[0], "X-Trace") == "t"
    assert result.outputs == {"name": "Tom"}


def test_a_body_that_is_no_object(serve: Serve) -> None:
    begun = serve()
    execute(work(begun, "post", {"body": [1, 2]}))
    assert json.loads(sent(begun)[1]) == [1, 2]


@pytest.mark.parametrize(
    ("operation", "inputs", "told"),
    [
        ("getPet", {"petId": 7, "colour": "red"}, "/colour has no place in this operation"),
        ("getPet", {}, "/path/petId is required"),
        ("getPet", {"petId": "seven"}, "/path/petId"),
        ("putPet", {"id": 3, "name": "Tom", "tenant": "eu"}, "/query/tenant is not for the model to give"),
        ("putPet", {"id": 3, "name": "Tom", "secret": "s"}, "/body/secret is not for the model to give"),
        ("nothing", {}, "(tool.unknown_operation)"),
    ],
)
def test_what_cannot_be_sent_is_final_and_named(
    serve: Serve, operation: str, inputs: dict[str, Any], told: str
) -> None:
    begun = serve()

    error = failing(execute, work(begun, operation, inputs))

    assert (error.code, error.is_transient) == (TOOL_FAILED, False)
    assert told in error.message
    assert begun.server.requests == []


def test_the_key_is_the_same_for_every_attempt_and_for_no_other_run(serve: Serve) -> None:
    begun = serve()
    first = work(begun, "post", {"body": {}})
    tool = first.node.params["pluginId"]
    for one in (
        first,
        work(begun, "post", {"body": {}}, tool=tool, attempt=2),
        work(begun, "post", {"body": {}}, tool=tool, run_id="run-2"),
        work(begun, "post", {"body": {}}, tool=tool, key="iteration::1[2]/plugin::1"),
    ):
        execute(one)

    keys = [header_of(request, "Idempotency-Key") for request in begun.server.requests]
    assert keys[0] == keys[1] == first.idempotency_key
    assert len(set(keys)) == 3


def test_a_header_of_the_operations_own_is_never_overridden(serve: Serve) -> None:
    begun = serve()
    one = work(begun, "keyed", {"Idempotency-Key": "mine"})
    execute(one)
    execute(work(begun, "keyed", tool=one.node.params["pluginId"]))

    assert [header_of(request, "idempotency-key") for request in begun.server.requests] == ["mine", None]


def test_a_credential_in_that_header_is_what_is_sent(serve: Serve) -> None:
    begun = serve()
    described = document(begun.url, **json.loads(json.dumps(OPERATIONS)))
    described["components"]["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "Idempotency-Key"}
    }
    described["security"] = [{"key": []}]
    one = work(begun, "post", {"body": {}}, description=described)
    tool = one.node.params["pluginId"]
    begun.client.put(f"{TOOLS}/{tool}/credentials", {"key": {"value": "of-acme"}})

    execute(one)  # as its author, whose credential it is

    assert header_of(begun.server.requests[0], "Idempotency-Key") == "of-acme"


def test_it_runs_as_the_author_and_leaves_a_row_of_his(serve: Serve) -> None:
    begun = serve(reply(PET), reply({"no": "pet"}, 500))
    one = work(begun, "getPet", {"petId": 7})
    execute(one)
    with pytest.raises(NodeError):
        execute(one)

    rows = begun.rows()
    assert [(row.app_id, row.outcome, row.operation) for row in rows] == [
        (caller_of("acme").app_id, "success", "getPet"),
        (caller_of("acme").app_id, "failed", "getPet"),
    ]
    stranger = failing(
        execute, work(begun, "getPet", {"petId": 7}, tool=rows[0].tool_id, author=caller_of("friend"))
    )
    assert (stranger.code, stranger.is_transient) == (TOOL_FAILED, False)
    assert "tool.not_found" in stranger.message


def test_the_first_version_unless_another_is_named(serve: Serve) -> None:
    begun = serve()
    one = work(begun, "getPet", {"petId": 7})
    tool = one.node.params["pluginId"]
    newer = document(begun.url + "/v2")
    begun.client.post(f"{TOOLS}/{tool}/versions", {"version": "V2.0", "name": "Pets", "openapi": newer})

    execute(one)
    execute(work(begun, "getPet", {"petId": 7}, tool=tool, params={"version": "V2.0"}))

    assert [sent(begun, index)[0] for index in (0, 1)] == ["GET /pets/7 HTTP/1.1", "GET /v2/pets/7 HTTP/1.1"]


@pytest.mark.parametrize(
    ("body", "declared", "expected"),
    [
        ({"a": "x", "b": 1}, outputs("a", b="integer"), {"a": "x", "b": 1}),
        (
            {"a": "x"},
            outputs("a", b="integer", c={"type": "string", "default": "d"}),
            {"a": "x", "b": 0, "c": "d"},
        ),
        ({"a": None, "b": 1}, outputs("a", b="integer"), {"a": "", "b": 1}),
        ({"a": "x"}, outputs(all="object"), {"all": {"a": "x"}}),
        ({"all": {"a": "x"}}, outputs(all="object"), {"all": {"a": "x"}}),
        ([1, 2], outputs(all="array"), {"all": [1, 2]}),
        ("text", outputs("all"), {"all": "text"}),
        ("text", (), {}),
    ],
)
def test_outputs_are_members_of_the_answer(serve: Serve, body: Any, declared: Any, expected: Any) -> None:
    begun = serve(reply(body))
    assert execute(work(begun, "post", {"body": {}}, declared=declared)).outputs == expected


@pytest.mark.parametrize(
    ("body", "declared", "told"),
    [
        ({"a": 1}, outputs("a"), "/a is not a string"),
        ({"b": 1}, outputs("a_", b="integer"), "/a is missing"),
        ({"a": None, "b": 1}, outputs("a_", b="integer"), "/a is missing"),
        ([1], outputs("a", "b"), "The answer is no object, and the node declares 2 outputs."),
        ([1, "x"], outputs(all={"type": "array", "items": {"type": "integer"}}), "/all/1 is not an integer"),
    ],
)
def test_an_answer_that_does_not_fit(serve: Serve, body: Any, declared: Any, told: str) -> None:
    begun = serve(reply(body))
    error = failing(execute, work(begun, "post", {"body": {}}, declared=declared))
    assert error.code == OUTPUT_MISFIT
    assert told in error.message


@pytest.mark.parametrize(
    ("status", "is_transient"), [(404, False), (422, False), (409, True), (429, True), (500, True)]
)
def test_what_a_server_refuses_for_good_is_not_asked_again(
    serve: Serve, status: int, is_transient: bool
) -> None:
    begun = serve(reply({"secret": "s"}, status))
    error = failing(execute, work(begun, "post", {"body": {}}))
    assert (error.code, error.is_transient) == (TOOL_FAILED, is_transient)
    assert error.message == f"The server answered with status {status}. (tool.upstream_error)"


def test_a_server_that_does_not_answer_takes_the_nodes_time(serve: Serve) -> None:
    def silent(conn: socket.socket, _: bytes) -> None:
        time.sleep(2)

    begun = serve(silent)
    one = work(begun, "post", {"body": {}}, seconds=0.5)
    began = time.monotonic()
    error = failing(execute, one)
    assert time.monotonic() - began < 1.5
    assert isinstance(error, NodeTimeout)


def test_in_a_flow_it_is_tried_again_with_its_key(serve: Serve) -> None:
    begun = serve(reply("busy", 503), reply(PET))
    tool = begun.register(document(begun.url, **json.loads(json.dumps(OPERATIONS))))
    acme = caller_of("acme")
    work_node = node(
        "plugin::1",
        {"pluginId": tool, "operationId": "post"},
        inputs=[ref("name", "node-start::1", "query")],
        outputs=[output("id", "integer"), output("name")],
        retry={"shouldRetry": True, "maxRetries": 1, "errorStrategy": 0, "backoff": 0.01},
    )
    data = flow([start(), work_node, end(ref("name", "plugin::1", "name"))])

    def as_acme(one: Call) -> Result:
        scope = type(one.scope)(one.scope.run_id, APP, acme, 1)
        return execute(Call(scope, one.node, one.key, one.inputs, one.attempt, one.deadline))

    outcome, told = express(data, {"query": "Tom"}, {"plugin": as_acme})

    assert (outcome.state, told.outputs("plugin::1")["id"]) == ("succeeded", 7), outcome
    keys = {header_of(request, "Idempotency-Key") for request in begun.server.requests}
    assert len(begun.server.requests) == 2 and len(keys) == 1 and None not in keys
