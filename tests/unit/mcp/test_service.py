from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.core.caller import Caller
from chalicelib.core.errors import BadRequest, Invalid, NotFound, TooManyRequests, UpstreamFailed, Violation
from chalicelib.mcp.offers import ToolResult
from chalicelib.mcp.protocol import UnknownTool
from chalicelib.mcp.service import LATEST_START_S, MAX_EXPLAINED, ToolServer, explained
from tests.fakes.mcp_host import MemoryProvider, echo

ME = Caller(1, "me", 2, "caller", "request-1")


def server(*providers: MemoryProvider, caller: Caller = ME, **options: Any) -> ToolServer:
    options = {"cursor_key": b"key", "admit": lambda: None, **options}
    return ToolServer(caller, providers, **options)


def provider(kind: str, *names: str, **options: Any) -> MemoryProvider:
    return MemoryProvider(kind, dict.fromkeys(names, echo), **options)


def listed(made: ToolServer) -> list[list[str]]:
    """Return the names on each page."""
    pages, cursor = [], None
    while True:
        page = made.list_tools(cursor)
        pages.append([offer.name for offer in page.offers])
        cursor = page.next_cursor
        if cursor is None:
            return pages
        assert len(pages) < 20, "the pages do not end"


def test_nothing_is_a_page_too() -> None:
    assert listed(server()) == [[]]
    assert listed(server(provider("plugin"))) == [[]]


def test_all_kinds_are_listed_in_the_order_of_their_names() -> None:
    made = server(
        provider("tool", "tool_b", "tool_a"), provider("flow", "flow_z"), provider("plugin", "plugin_m")
    )
    assert listed(made) == [["flow_z", "plugin_m", "tool_a", "tool_b"]]


@pytest.mark.parametrize(
    ("count", "sizes"), [(99, [99]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])]
)
def test_pages_hold_a_hundred_and_cross_providers(count: int, sizes: list[int]) -> None:
    names = [f"tool_{number:04}" for number in range(count - 1)]
    pages = listed(server(provider("tool", *names), provider("flow", "flow_a")))
    assert [len(page) for page in pages] == sizes
    assert [name for page in pages for name in page] == ["flow_a", *names]


def test_each_provider_is_asked_once_a_page_and_only_about_its_own() -> None:
    tools, flows = provider("tool", "tool_a", "tool_b"), provider("flow", "flow_a")
    server(tools, flows).list_tools(None)
    assert (tools.described, flows.described) == ([["tool_a", "tool_b"]], [["flow_a"]])


def test_a_page_ends_before_its_definitions_grow_beyond_an_answer() -> None:
    schema = {"type": "object", "description": "x" * 300_000}
    names = [f"tool_{number}" for number in range(7)]
    assert [len(page) for page in listed(server(provider("tool", *names, schema=schema)))] == [3, 3, 1]
    schema["description"] = "x" * 3_000_000
    assert [len(page) for page in listed(server(provider("tool", *names, schema=schema)))] == [1] * 7


def test_what_comes_and_goes_between_two_pages_shifts_nothing() -> None:
    names = [f"tool_{number:03}" for number in range(0, 300, 2)]
    tools = provider("tool", *names)
    cursor = server(tools).list_tools(None).next_cursor
    del tools.tools["tool_198"], tools.tools["tool_000"]
    tools.tools["tool_001"] = tools.tools["tool_199"] = echo
    page = server(tools).list_tools(cursor)
    assert [offer.name for offer in page.offers][:2] == ["tool_199", "tool_200"]


def test_what_is_gone_when_it_is_described_is_left_out() -> None:
    names = [f"tool_{number:03}" for number in range(150)]
    pages = listed(server(provider("tool", *names, gone={"tool_000", "tool_099", "tool_149"})))
    assert [len(page) for page in pages] == [98, 49]


def test_a_page_of_which_all_is_gone_leads_on() -> None:
    names = [f"tool_{number:03}" for number in range(150)]
    pages = listed(server(provider("tool", *names, gone=set(names[:100]))))
    assert [len(page) for page in pages] == [0, 50]


@pytest.mark.parametrize(
    ("caller", "key"),
    [
        (Caller(9, "other", 2, "caller", "r"), b"key"),
        (Caller(1, "me", 3, "caller", "r"), b"key"),
        (ME, b"other"),
    ],
)
def test_a_cursor_belongs_to_its_caller(caller: Caller, key: bytes) -> None:
    tools = provider("tool", *(f"tool_{number:03}" for number in range(150)))
    cursor = server(tools).list_tools(None).next_cursor
    with pytest.raises(BadRequest):
        server(tools, caller=caller, cursor_key=key).list_tools(cursor)


@pytest.mark.parametrize("cursor", ["x", "é", "A" * 1000, "====", "AAAAAAAAAAAAAAAAAAAAAFsiYSJd"])
def test_a_cursor_that_nobody_gave_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequest):
        server(provider("tool", "tool_a")).list_tools(cursor)


# -- calling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "tool", "tool_", "tool_b", "flow_a", "plugin_a", "TOOL_a", "tool_a ", "_"]
)
def test_only_what_is_offered_can_be_called(name: str) -> None:
    with pytest.raises(UnknownTool):
        server(provider("tool", "tool_a"), provider("flow", "flow_b")).call_tool(name, {}, {})


def test_a_call_goes_to_its_provider() -> None:
    assert server(provider("tool", "tool_a")).call_tool("tool_a", {"x": 1}, {}).structured == {"x": 1}


def test_a_refusal_is_a_result() -> None:
    def refuse(arguments: dict[str, Any]) -> ToolResult:
        raise NotFound("There is no such plugin.", code="plugin.not_found")

    made = server(MemoryProvider("tool", {"tool_a": refuse}))
    assert made.call_tool("tool_a", {}, {}) == ToolResult(
        [{"type": "text", "text": "There is no such plugin. (plugin.not_found)"}],
        {
            "code": "plugin.not_found",
            "status": 404,
            "detail": "There is no such plugin.",
            "requestId": "request-1",
            "errors": [],
        },
        is_error=True,
    )


def test_a_result_tells_a_model_every_violation_and_what_the_tool_itself_said() -> None:
    error = UpstreamFailed(
        "The plugin answered with an error.",
        code="plugin.failed",
        errors=[Violation("", "r", "first"), Violation("/arguments/a", "schema.type", "must be a string")],
        extensions={
            "error": {"code": "quota", "message": "no more today", "data": [1]},
            "logs": "secret",
            "code": "overwritten",
            "executionId": "e",
        },
        retry_after=5,
    )
    result = explained(error, "r")
    assert result.content[0]["text"].splitlines() == [
        "The plugin answered with an error. (plugin.failed)",
        "quota: no more today",
        "- /: first",
        "- /arguments/a: must be a string",
        "Trying again after 5 s makes sense.",
    ]
    assert result.structured == {
        "error": {"code": "quota", "message": "no more today", "data": [1]},
        "executionId": "e",
        "code": "plugin.failed",
        "status": 502,
        "detail": "The plugin answered with an error.",
        "requestId": "r",
        "errors": [
            {"pointer": "", "rule": "r", "message": "first"},
            {"pointer": "/arguments/a", "rule": "schema.type", "message": "must be a string"},
        ],
    }


def test_many_violations_are_counted_in_the_text_and_listed_beside_it() -> None:
    many = [Violation(f"/{number}", "r", "m") for number in range(MAX_EXPLAINED + 5)]
    result = explained(Invalid("No.", errors=many), "r")
    assert result.content[0]["text"].splitlines()[-1] == "- and 5 more"
    assert len(result.structured["errors"]) == MAX_EXPLAINED + 5


def test_each_call_of_a_batch_after_the_first_is_paid_for() -> None:
    taken: list[int] = []

    def admit() -> None:
        taken.append(1)
        if len(taken) == 2:
            raise TooManyRequests("Too many.")

    made = server(provider("tool", "tool_a"), admit=admit)
    results = [made.call_tool("tool_a", {}, {}) for _ in range(4)]
    assert [result.is_error for result in results] == [False, False, True, False]
    assert results[2].structured["code"] == "rate_limited"
    assert len(taken) == 3


@pytest.mark.parametrize(("spent", "runs"), [(LATEST_START_S, True), (LATEST_START_S + 0.1, False)])
def test_a_call_is_not_begun_that_could_be_cut_off(spent: float, runs: bool) -> None:
    now = [100.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    calls: list[int] = []

    def slow(arguments: dict[str, Any]) -> ToolResult:
        calls.append(1)
        now[0] += spent
        return ToolResult([])

    made = server(MemoryProvider("tool", {"tool_a": slow}), clock=clock)
    made.call_tool("tool_a", {}, {})
    second = made.call_tool("tool_a", {}, {})
    assert (len(calls), second.is_error) == (2 if runs else 1, not runs)
    if not runs:
        assert second.structured["code"] == "mcp.no_time"
