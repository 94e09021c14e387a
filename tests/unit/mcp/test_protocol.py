"""Raw messages and their exact answers, for each protocol revision."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from chalicelib.core.answers import MAX_ANSWER_BYTES
from chalicelib.core.errors import Unavailable
from chalicelib.core.settings import VERSION
from chalicelib.mcp.offers import ABSENT, ToolResult
from chalicelib.mcp.protocol import MAX_BATCH, Reply, answer, handle
from chalicelib.mcp.rendering import INSTRUCTIONS, MAX_REPEATED_BYTES
from tests.fakes.mcp_host import MemoryHost

OLD = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEW = "2026-07-28"
SUPPORTED = [NEW, *reversed(OLD)]
PREFIX = "io.modelcontextprotocol/"
META = {f"{PREFIX}protocolVersion": NEW, f"{PREFIX}clientCapabilities": {}}
SERVER = {"name": "hotplug", "version": VERSION, "title": "Hotplug"}
CALL = {"name": "echo", "arguments": {"a": 1}}
NOTHING = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def ask(method: str, params: Any = ..., id: Any = 1) -> dict[str, Any]:
    found = {"jsonrpc": "2.0", "id": id, "method": method}
    return found if params is ... else {**found, "params": params}


def modern(method: str, meta: Any = META, **params: Any) -> dict[str, Any]:
    return ask(method, {**params, "_meta": meta})


def headers(method: str, name: str | None = None, version: str = NEW) -> dict[str, str]:
    found = {"mcp-protocol-version": version, "mcp-method": method}
    return found if name is None else {**found, "mcp-name": name}


def error(code: int, message: str, id: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, **more}}


def result(value: dict[str, Any], id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": value}


def post(body: Any, sent: dict[str, str] | None = None, host: MemoryHost | None = None) -> Reply:
    return handle(body, sent or {}, host or MemoryHost())


def at(version: str) -> dict[str, str]:
    return {"mcp-protocol-version": version}


# -- the handshake ---------------------------------------------------------------------------------------------------


def greeting(version: Any) -> dict[str, Any]:
    return ask(
        "initialize",
        {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
    )


@pytest.mark.parametrize(
    ("asked", "settled"),
    [*zip(OLD, OLD, strict=True), (NEW, OLD[-1]), ("1900-01-01", OLD[-1]), ("", OLD[-1]), ("zzz", OLD[-1])],
)
def test_initialize_settles_the_version(asked: str, settled: str) -> None:
    info = SERVER if settled in OLD[2:] else {"name": "hotplug", "version": VERSION}
    assert post(greeting(asked)) == Reply(
        200,
        result(
            {
                "protocolVersion": settled,
                "capabilities": {"tools": {"listChanged": False}},
                "serverInfo": info,
                "instructions": INSTRUCTIONS,
            }
        ),
    )


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({}, "protocolVersion, capabilities, clientInfo"),
        ({"protocolVersion": 1, "capabilities": {}, "clientInfo": {}}, "protocolVersion"),
        ({"protocolVersion": OLD[0], "capabilities": [], "clientInfo": {}}, "capabilities"),
        ({"protocolVersion": OLD[0], "capabilities": {}, "clientInfo": "me"}, "clientInfo"),
        ({"protocolVersion": None, "capabilities": None, "clientInfo": {}}, "protocolVersion, capabilities"),
    ],
)
def test_initialize_names_what_is_missing(params: dict[str, Any], named: str) -> None:
    message = f"Missing or of a wrong type in params: {named}."
    assert post(ask("initialize", params)) == Reply(200, error(-32602, message))


# -- what every revision answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OLD)
def test_ping(version: str) -> None:
    assert post(ask("ping"), at(version)) == Reply(200, result({}))


@pytest.mark.parametrize("version", [*OLD, NEW])
@pytest.mark.parametrize(
    "method", ["notifications/initialized", "notifications/cancelled", "notifications/made-up", "tools/call"]
)
def test_a_message_without_id_is_taken_and_not_answered(version: str, method: str) -> None:
    host = MemoryHost()
    message = {"jsonrpc": "2.0", "method": method, "params": CALL}
    assert post(message, at(version), host) == Reply(202)
    assert host.calls == []


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("member", [{"result": {}}, {"error": {"code": 1, "message": "x"}}])
def test_a_response_is_taken_and_dropped(version: str, member: dict[str, Any]) -> None:
    assert post({"jsonrpc": "2.0", "id": 1, **member}, at(version)) == Reply(202)


def test_a_response_is_refused_since_clients_must_not_send_any() -> None:
    refused = error(-32600, "A client sends no responses.", None)
    assert post({"jsonrpc": "2.0", "id": 1, "result": {}}, at(NEW)) == Reply(400, refused)


UNKNOWN = (
    "resources/list", "prompts/list", "logging/setLevel", "completion/complete", "server/discover",
    "tools/list/", "TOOLS/LIST", "notifications/initialized", "a\x00b", "__init__", "subscriptions/listen",
)  # fmt: skip


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("method", UNKNOWN)
def test_an_unknown_method_is_told_with_200(version: str, method: str) -> None:
    expected = error(-32601, f"There is no method {method}.")
    assert post(ask(method), at(version)) == Reply(200, expected)


@pytest.mark.parametrize(
    "method", [name for name in UNKNOWN if name != "server/discover"] + ["ping", "initialize"]
)
def test_an_unknown_method_is_told_with_404(method: str) -> None:
    expected = error(-32601, f"There is no method {method}.")
    assert post(modern(method), headers(method)) == Reply(404, expected)


# -- what is no message ----------------------------------------------------------------------------------------------

NO_OBJECT = "A message is a JSON object."
NO_ID = "The id must be an integer or a string of at most 256 characters."
NO_METHOD = "The method must be a string of 1 to 128 characters."
MALFORMED: list[tuple[Any, dict[str, Any]]] = [
    (None, error(-32600, NO_OBJECT, None)),
    (True, error(-32600, NO_OBJECT, None)),
    (7, error(-32600, NO_OBJECT, None)),
    ("ping", error(-32600, NO_OBJECT, None)),
    ({}, error(-32600, 'The member jsonrpc must be "2.0".', None)),
    ({"id": 1, "method": "ping"}, error(-32600, 'The member jsonrpc must be "2.0".')),
    ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, error(-32600, 'The member jsonrpc must be "2.0".')),
    ({"jsonrpc": 2.0, "id": "x", "method": "ping"}, error(-32600, 'The member jsonrpc must be "2.0".', "x")),
    ({"jsonrpc": "2.0", "id": 1}, error(-32600, NO_METHOD)),
    ({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}, error(-32600, NO_METHOD)),
    (ask("ping", id=None), error(-32600, NO_ID, None)),
    (ask("ping", id=True), error(-32600, NO_ID, None)),
    (ask("ping", id=False), error(-32600, NO_ID, None)),
    (ask("ping", id=1.0), error(-32600, NO_ID, None)),
    (ask("ping", id=[]), error(-32600, NO_ID, None)),
    (ask("ping", id={"a": 1}), error(-32600, NO_ID, None)),
    (ask("ping", id="i" * 257), error(-32600, NO_ID, None)),
    (ask(""), error(-32600, NO_METHOD)),
    (ask("m" * 129), error(-32600, NO_METHOD)),
    ({"jsonrpc": "2.0", "id": 1, "method": 5}, error(-32600, NO_METHOD)),
    ({"jsonrpc": "2.0", "id": 1, "method": None}, error(-32600, NO_METHOD)),
    ({"jsonrpc": "2.0", "id": 1, "method": ["ping"]}, error(-32600, NO_METHOD)),
    ({"jsonrpc": "2.0", "method": 5}, error(-32600, NO_METHOD, None)),
    (ask("ping", []), error(-32602, "The params must be an object.")),
    (ask("ping", "x"), error(-32602, "The params must be an object.")),
    (ask("ping", 0), error(-32602, "The params must be an object.")),
    ({**NOTHING, "params": [1]}, error(-32602, "The params must be an object.", None)),
]


@pytest.mark.parametrize("version", [OLD[0], OLD[1], OLD[3], NEW])
@pytest.mark.parametrize(("message", "expected"), MALFORMED)
def test_what_is_no_message_is_400(version: str, message: Any, expected: dict[str, Any]) -> None:
    assert post(message, at(version)) == Reply(400, expected)


@pytest.mark.parametrize("id", [0, -1, 2**64 - 1, -(2**63), "", "0", "i" * 256, "\x00", "é", "null"])
def test_an_id_comes_back_as_it_was(id: Any) -> None:
    reply = post(ask("ping", id=id))
    assert reply == Reply(200, result({}, id))
    assert type(reply.body["id"]) is type(id)


@pytest.mark.parametrize(
    "params", [..., None, {}, {"_meta": {"progressToken": 1}}, {"unknown": [1], "x": None}]
)
def test_unknown_members_and_absent_params_are_fine(params: Any) -> None:
    assert post({**ask("ping", params), "extra": 1}) == Reply(200, result({}))


# -- versions in headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2026-07-29", "2025-06-18 ", "", "x" * 500, "1.0", "é"])
@pytest.mark.parametrize("message", [ask("ping"), greeting(OLD[0])])
def test_a_header_with_an_unknown_version_is_400(version: str, message: dict[str, Any]) -> None:
    data = {"supported": SUPPORTED, "requested": version[:64]}
    assert post(message, at(version)) == Reply(400, error(-32022, "Unsupported protocol version.", data=data))


def test_without_a_header_it_is_2025_03_26() -> None:
    listed = post(ask("tools/list")).body["result"]["tools"]
    assert [sorted(tool) for tool in listed] == [
        ["description", "inputSchema", "name"],
        ["annotations", "description", "inputSchema", "name"],
    ]


def test_a_session_id_is_ignored() -> None:
    assert post(ask("ping"), {**at(OLD[3]), "mcp-session-id": "x", "last-event-id": "1"}) == Reply(
        200, result({})
    )


# -- the envelope of 2026-07-28 --------------------------------------------------------------------------------------

NO_META = f"params._meta must be an object with {PREFIX}protocolVersion and {PREFIX}clientCapabilities."
BAD_META = "Missing or of a wrong type in params._meta: "
MISMATCH = "The header {} is missing or does not match the body."
REFUSED: list[tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = [
    (ask("tools/list"), headers("tools/list"), error(-32602, NO_META)),
    (ask("tools/list", {"_meta": 1}), headers("tools/list"), error(-32602, NO_META)),
    (greeting(OLD[3]), at(NEW), error(-32602, NO_META)),
    (
        modern("tools/list", {}),
        headers("tools/list"),
        error(-32602, f"{BAD_META}{PREFIX}protocolVersion, {PREFIX}clientCapabilities."),
    ),
    (
        modern("tools/list", {f"{PREFIX}protocolVersion": NEW}),
        headers("tools/list"),
        error(-32602, f"{BAD_META}{PREFIX}clientCapabilities."),
    ),
    (
        modern("tools/list", {**META, f"{PREFIX}clientCapabilities": []}),
        headers("tools/list"),
        error(-32602, f"{BAD_META}{PREFIX}clientCapabilities."),
    ),
    (
        modern("tools/list", {**META, f"{PREFIX}protocolVersion": 20260728}),
        headers("tools/list"),
        error(-32602, f"{BAD_META}{PREFIX}protocolVersion."),
    ),
    (
        modern("tools/list", {**META, f"{PREFIX}clientInfo": "me"}),
        headers("tools/list"),
        error(-32602, f"{BAD_META}{PREFIX}clientInfo."),
    ),
    (modern("tools/list"), {}, error(-32020, MISMATCH.format("mcp-protocol-version"))),
    (modern("tools/list"), at(OLD[3]), error(-32020, MISMATCH.format("mcp-protocol-version"))),
    (modern("tools/list"), at("2099-01-01"), error(-32020, MISMATCH.format("mcp-protocol-version"))),
    (modern("tools/list"), at(NEW), error(-32020, MISMATCH.format("mcp-method"))),
    (modern("tools/list"), headers("tools/call"), error(-32020, MISMATCH.format("mcp-method"))),
    (modern("tools/list"), headers("Tools/List"), error(-32020, MISMATCH.format("mcp-method"))),
    (modern("tools/call", **CALL), headers("tools/call"), error(-32020, MISMATCH.format("mcp-name"))),
    (
        modern("tools/call", **CALL),
        headers("tools/call", "other"),
        error(-32020, MISMATCH.format("mcp-name")),
    ),
    (modern("tools/call", name=7), headers("tools/call", "7"), error(-32020, MISMATCH.format("mcp-name"))),
    (modern("tools/call"), headers("tools/call", "echo"), error(-32020, MISMATCH.format("mcp-name"))),
    (
        modern("tools/call", **CALL),
        headers("tools/call", "=?base64?ZWNobw?="),
        error(-32020, MISMATCH.format("mcp-name")),
    ),
    (
        modern("tools/call", **CALL),
        headers("tools/call", "=?base64?/////w==?="),
        error(-32020, MISMATCH.format("mcp-name")),
    ),
    (
        modern("tools/list", {**META, f"{PREFIX}protocolVersion": "2099-01-01"}),
        headers("tools/list", version="2099-01-01"),
        error(
            -32022, "Unsupported protocol version.", data={"supported": SUPPORTED, "requested": "2099-01-01"}
        ),
    ),
]


@pytest.mark.parametrize(("message", "sent", "expected"), REFUSED)
def test_an_envelope_that_is_incomplete_or_contradicted_is_400(
    message: dict[str, Any], sent: dict[str, str], expected: dict[str, Any]
) -> None:
    host = MemoryHost()
    assert post(message, sent, host) == Reply(400, expected)
    assert host.calls == []


@pytest.mark.parametrize("payload", ["ZWNobx==", "ZWNo bw==", "ZWNobw=", "ZWNobw", "/////w==", "\u00e9"])
def test_an_encoded_name_has_one_spelling(payload: str) -> None:
    sent = headers("tools/call", f"=?base64?{payload}?=")
    assert post(modern("tools/call", **CALL), sent) == Reply(400, error(-32020, MISMATCH.format("mcp-name")))


def test_a_name_header_may_be_encoded() -> None:
    host = MemoryHost(tools={"é": lambda arguments: ToolResult([])})
    name = f"=?base64?{base64.b64encode('é'.encode()).decode()}?="
    assert post(modern("tools/call", name="é"), headers("tools/call", name), host).status == 200


def test_an_envelope_that_agrees_with_an_older_header_is_only_metadata() -> None:
    meta = {**META, f"{PREFIX}protocolVersion": OLD[3]}
    assert post(modern("ping", meta), at(OLD[3])) == Reply(200, result({}))


def test_discover() -> None:
    assert post(modern("server/discover"), headers("server/discover")) == Reply(
        200,
        result(
            {
                "resultType": "complete",
                "supportedVersions": SUPPORTED,
                "capabilities": {"tools": {"listChanged": False}},
                "instructions": INSTRUCTIONS,
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {f"{PREFIX}serverInfo": SERVER},
            }
        ),
    )


# -- tools/list ------------------------------------------------------------------------------------------------------

COUNTED = {"name": "count", "description": "Counts.", "inputSchema": {"type": "object"}}
ECHOED = {"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object"}}
HINTS = {"annotations": {"openWorldHint": False}}
NAMED = {"title": "Echo", "outputSchema": {"type": "object"}}


@pytest.mark.parametrize(
    ("version", "tools"),
    [
        (OLD[0], [COUNTED, ECHOED]),
        (OLD[1], [COUNTED, ECHOED | HINTS]),
        (OLD[2], [COUNTED | {"title": "Count"}, ECHOED | HINTS | NAMED]),
        (OLD[3], [COUNTED | {"title": "Count"}, ECHOED | HINTS | NAMED]),
    ],
)
def test_a_list_has_what_the_revision_knows(version: str, tools: list[dict[str, Any]]) -> None:
    assert post(ask("tools/list"), at(version)) == Reply(200, result({"tools": tools}))
    host = MemoryHost(next_cursor="next")
    assert (
        post(ask("tools/list", {"cursor": "good"}), at(version), host).body["result"]["nextCursor"] == "next"
    )


def test_a_modern_list_is_not_to_be_cached() -> None:
    counted = COUNTED | {"title": "Count", "outputSchema": {"type": "integer"}}
    assert post(modern("tools/list"), headers("tools/list"), MemoryHost(next_cursor="n")) == Reply(
        200,
        result(
            {
                "resultType": "complete",
                "tools": [counted, ECHOED | HINTS | NAMED],
                "nextCursor": "n",
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {f"{PREFIX}serverInfo": SERVER},
            }
        ),
    )


@pytest.mark.parametrize("cursor", [1, "", [], {"a": 1}, True, "c" * 1025])
def test_a_cursor_of_a_wrong_kind_is_refused(cursor: Any) -> None:
    expected = error(-32602, "The cursor must be one that tools/list gave.")
    assert post(ask("tools/list", {"cursor": cursor})) == Reply(200, expected)
    assert post(modern("tools/list", cursor=cursor), headers("tools/list")) == Reply(400, expected)


def test_a_foreign_cursor_is_refused() -> None:
    message = "The cursor does not belong to this listing."
    expected = error(-32602, message, data={"code": "request.cursor"})
    assert post(ask("tools/list", {"cursor": "bad"})) == Reply(200, expected)


def test_a_list_that_cannot_be_read_says_which_request_that_was() -> None:
    def away() -> None:
        raise Unavailable("The database is away.", code="database.away")

    host = MemoryHost(listing=away)
    data = {"code": "database.away", "requestId": "r-1"}
    assert post(ask("tools/list"), None, host) == Reply(
        200, error(-32603, "The database is away.", data=data)
    )
    assert host.log == [("tools/list", None, OLD[1], "-32603")]


# -- tools/call ------------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "said"}


@pytest.mark.parametrize("version", OLD)
def test_a_call(version: str) -> None:
    host = MemoryHost()
    told: dict[str, Any] = {"content": [TEXT], "isError": False}
    if version in OLD[2:]:
        told["structuredContent"] = {"a": 1}
    assert post(ask("tools/call", CALL), at(version), host) == Reply(200, result(told))
    assert host.calls == [("echo", {"a": 1})]
    assert host.log == [("tools/call", "echo", version, "success")]


def test_a_modern_call() -> None:
    host = MemoryHost(
        tools={
            "echo": lambda arguments: ToolResult(
                [TEXT], None, is_error=True, meta={"hotplug/executionId": "e"}
            )
        }
    )
    assert post(modern("tools/call", **CALL), headers("tools/call", "echo"), host) == Reply(
        200,
        result(
            {
                "resultType": "complete",
                "content": [TEXT],
                "isError": True,
                "structuredContent": None,
                "_meta": {"hotplug/executionId": "e", f"{PREFIX}serverInfo": SERVER},
            }
        ),
    )
    assert host.log == [("tools/call", "echo", NEW, "tool_error")]


@pytest.mark.parametrize(
    ("version", "structured", "shown"),
    [
        (OLD[1], {"a": 1}, False),
        (OLD[3], {"a": 1}, True),
        (OLD[3], [1], False),
        (OLD[3], "x", False),
        (OLD[3], None, False),
        (OLD[3], ABSENT, False),
        (NEW, [1], True),
        (NEW, "x", True),
        (NEW, None, True),
        (NEW, ABSENT, False),
    ],
)
def test_a_structured_result_is_shown_where_the_revision_admits_it(
    version: str, structured: Any, shown: bool
) -> None:
    host = MemoryHost(tools={"echo": lambda arguments: ToolResult([TEXT], structured)})
    message = modern("tools/call", **CALL) if version == NEW else ask("tools/call", CALL)
    told = post(message, headers("tools/call", "echo", version), host).body["result"]
    assert ("structuredContent" in told) == shown
    assert told["content"] == [TEXT]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Missing or of a wrong type in params: name."),
        ({"name": 1}, "Missing or of a wrong type in params: name."),
        ({"name": None}, "Missing or of a wrong type in params: name."),
        ({"name": "echo", "arguments": []}, "The arguments must be an object."),
        ({"name": "echo", "arguments": "x"}, "The arguments must be an object."),
        ({"name": "echo", "arguments": False}, "The arguments must be an object."),
        ({"name": ""}, "Unknown tool: "),
        ({"name": "other"}, "Unknown tool: other"),
        ({"name": "Echo"}, "Unknown tool: Echo"),
        ({"name": "echo\x00"}, "Unknown tool: echo\x00"),
        ({"name": "n" * 5000}, f"Unknown tool: {'n' * 64}"),
    ],
)
def test_a_call_that_is_none_is_a_protocol_error(params: dict[str, Any], message: str) -> None:
    host = MemoryHost()
    assert post(ask("tools/call", params), at(OLD[3]), host) == Reply(200, error(-32602, message))
    assert (host.calls, host.log) == ([], [("tools/call", None, OLD[3], "-32602")])


def test_an_unknown_tool_is_400_since_2026() -> None:
    told = post(modern("tools/call", name="other"), headers("tools/call", "other"))
    assert told == Reply(400, error(-32602, "Unknown tool: other"))


@pytest.mark.parametrize("arguments", [{}, {"arguments": None}, {"arguments": {}}, {"task": {"ttl": 1}}])
def test_arguments_may_be_absent(arguments: dict[str, Any]) -> None:
    host = MemoryHost()
    assert post(ask("tools/call", {"name": "echo", **arguments}), None, host).status == 200
    assert host.calls == [("echo", {})]


def test_an_unexpected_error_tells_its_request_and_nothing_else() -> None:
    def crash(arguments: dict[str, Any]) -> ToolResult:
        raise RuntimeError("SELECT secret FROM app")

    host = MemoryHost(tools={"echo": crash})
    expected = error(-32603, "Something went wrong on our side.", data={"requestId": "r-1"})
    assert post(ask("tools/call", CALL), at(OLD[3]), host) == Reply(200, expected)
    assert [str(one) for one in host.errors] == ["SELECT secret FROM app"]


def test_what_the_client_made_up_does_not_reach_the_log() -> None:
    host = MemoryHost()
    post(ask('evil"\n{"level":"INFO"}'), at(OLD[3]), host)
    assert host.log == [("unknown", None, OLD[3], "-32601")]


def test_a_long_result_is_not_sent_twice() -> None:
    long = "x" * (MAX_REPEATED_BYTES + 1)
    host = MemoryHost(
        tools={"echo": lambda arguments: ToolResult([{"type": "text", "text": long}], {"a": long})}
    )
    newer = post(ask("tools/call", CALL), at(OLD[3]), host).body["result"]
    assert newer["structuredContent"] == {"a": long}
    assert newer["content"] == [
        {"type": "text", "text": "The result is too long to be repeated as text: see structuredContent."}
    ]
    older = post(ask("tools/call", CALL), at(OLD[0]), host).body["result"]
    assert older["content"] == [{"type": "text", "text": long}]


def test_a_result_that_no_answer_can_carry_is_an_error() -> None:
    # Each quote takes four characters where Lambda returns it.
    huge = '"' * (MAX_ANSWER_BYTES // 4 + 1)
    host = MemoryHost(tools={"echo": lambda arguments: ToolResult([{"type": "text", "text": huge}])})
    expected = error(-32603, "The answer is larger than one answer may be.")
    assert post(ask("tools/call", CALL), at(OLD[3]), host) == Reply(200, expected)
    assert host.log == [("tools/call", "echo", OLD[3], "-32603")]


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [{}, at(OLD[1])])
def test_a_batch_is_answered_in_its_order_without_what_needs_no_answer(sent: dict[str, str]) -> None:
    messages = [
        ask("ping", id="a"),
        NOTHING,
        ask("nothing", id=2),
        7,
        {"jsonrpc": "2.0", "id": 9, "result": {}},
        greeting(OLD[1]),
        ask("tools/call", CALL, id="2"),
    ]
    assert post(messages, sent) == Reply(
        200,
        [
            result({}, "a"),
            error(-32601, "There is no method nothing.", 2),
            error(-32600, NO_OBJECT, None),
            error(-32600, "initialize stands alone."),
            result({"content": [TEXT], "isError": False}, "2"),
        ],
    )


@pytest.mark.parametrize(
    "messages", [[NOTHING], [NOTHING, NOTHING], [{"jsonrpc": "2.0", "id": 1, "result": {}}]]
)
def test_a_batch_that_asks_nothing_is_202(messages: list[Any]) -> None:
    assert post(messages) == Reply(202)


@pytest.mark.parametrize("version", [OLD[0], OLD[2], OLD[3], NEW])
@pytest.mark.parametrize("messages", [[], [ask("ping")], [[]]])
def test_other_revisions_have_no_batches(version: str, messages: list[Any]) -> None:
    expected = error(-32600, f"Revision {version} has no batches.", None)
    assert post(messages, at(version)) == Reply(400, expected)


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1, 5000])
def test_a_batch_is_bounded(count: int) -> None:
    host = MemoryHost()
    messages = [ask("tools/call", CALL, id=number) for number in range(count)]
    expected = error(-32600, f"A batch has 1 to {MAX_BATCH} messages.", None)
    assert post(messages, None, host) == Reply(400, expected)
    assert host.calls == []


@pytest.mark.parametrize("ids", [[1, 2, 1], ["a", "a"], [1, "1", 1]])
def test_ids_that_repeat_in_a_batch_are_refused_before_anything_runs(ids: list[Any]) -> None:
    host = MemoryHost()
    messages = [ask("tools/call", CALL, id=one) for one in ids]
    expected = error(-32600, "Two messages of the batch have the same id.", None)
    assert post(messages, None, host) == Reply(400, expected)
    assert host.calls == []


def test_the_answers_of_a_batch_share_the_room_of_one() -> None:
    half = "x" * (MAX_ANSWER_BYTES // 2)
    host = MemoryHost(tools={"echo": lambda arguments: ToolResult([{"type": "text", "text": half}])})
    bodies = post([ask("tools/call", CALL, id=number) for number in range(3)], None, host).body
    assert ["result" in body for body in bodies] == [True, False, False]
    assert len(json.dumps(bodies)) < MAX_ANSWER_BYTES


# -- bytes and headers -----------------------------------------------------------------------------------------------

PING = json.dumps(ask("ping")).encode()


def receive(raw: bytes, max_bytes: int = 1000, **sent: str) -> Reply:
    return answer(raw, sent, MemoryHost(), allowed_origins={"https://app.example.com"}, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "json.syntax"),
        (b"{", "json.syntax"),
        (b"{}{}", "json.syntax"),
        (b"\xff", "json.encoding"),
        (b"\xef\xbb\xbf{}", "json.encoding"),
        (b'"\\ud800"', "json.encoding"),
        (b'{"a":1,"a":2}', "json.duplicate_key"),
        (b'{"id":NaN}', "json.number"),
        (b'{"id":1e999}', "json.number"),
        (b'{"id":' + b"9" * 50 + b"}", "json.number"),
        (b"[" * 65, "json.depth"),
        (b'{"a":' * 65, "json.depth"),
        (b" " * 1001, "json.size"),
    ],
)
def test_what_is_no_json_is_a_parse_error(raw: bytes, rule: str) -> None:
    reply = receive(raw)
    assert (reply.status, reply.body["id"], reply.body["error"]["code"]) == (400, None, -32700)
    assert reply.body["error"]["message"] == "The body is not acceptable JSON."
    assert rule in [one["rule"] for one in reply.body["error"]["data"]["errors"]]


@pytest.mark.parametrize(
    "accept",
    [
        None, "application/json", "application/json, text/event-stream", "*/*", "application/*;q=0.5",
        "text/html, APPLICATION/JSON ; q=1", "application/json;q=0.001",
    ],
)  # fmt: skip
def test_a_client_that_takes_json_is_served(accept: str | None) -> None:
    sent = {} if accept is None else {"accept": accept}
    assert receive(PING, **sent) == Reply(200, result({}))


@pytest.mark.parametrize(
    "accept",
    ["", "text/event-stream", "text/*", "application/jsonx", "application/json;q=0", "*/*; q=0.000", ","],
)
def test_a_client_that_takes_no_json_is_406(accept: str) -> None:
    expected = error(-32600, "The client must accept application/json.", None)
    assert receive(PING, accept=accept) == Reply(406, expected)


def test_an_allowed_origin_is_served() -> None:
    assert receive(PING, origin="https://app.example.com").status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://app.example.com", "https://app.example.com:443", "https://app.example.com.evil.com",
        "https://APP.example.com", "https://evil.com", "https://app.example.com/",
    ],
)  # fmt: skip
def test_another_origin_is_403_whatever_it_sends(origin: str) -> None:
    expected = error(-32600, "This origin is not allowed.", None)
    assert receive(b"{", origin=origin) == Reply(403, expected)
