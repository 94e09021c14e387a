"""The node `agent`, with the agents of this release and their tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core import process
from chalicelib.core.caller import Caller
from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import OUTPUT_MISFIT, TOOL_FAILED, NodeTimeout
from chalicelib.flows.nodes.agents import thread_of
from chalicelib.flows.nodes.calling import call_services, calling_nodes
from tests.deployed_agents import AGENTS, FakeLlm, Talks, talking
from tests.flow_calls import call, caller_of, failing, outputs
from tests.http import Response
from tests.internet import Server

QUESTION = "What is a plugin?"


@pytest.fixture
def talks(database_url: str, tmp_path: Path) -> Iterator[Talks]:
    with talking(database_url, tmp_path) as running:
        for app in ("acme", "friend"):
            running.client(app, "caller")
        yield running


def execute(one: Call) -> Result:
    return calling_nodes(call_services())["agent"](one)


def asking(
    inputs: dict[str, Any] | None = None,
    declared: Any = (),
    *,
    agent: str = "common_qa",
    context: dict[str, Any] | None = None,
    **more: Any,
) -> Call:
    """A call of an agent in a flow that `acme` owns and `friend` runs."""
    params = {"agentName": agent} | ({} if context is None else {"context": context})
    given = {"message": QUESTION} if inputs is None else inputs
    who = {"author": caller_of("acme"), "user": caller_of("friend")}
    return call("agent", params, given, declared, **{**who, **more})


def thread_in(talks: Talks, thread: str, app: str, agent: str = "common_qa") -> Response:
    return talks.client(app).get(f"{AGENTS}/{agent}/threads/{thread}/messages")


def test_a_reply_and_what_belongs_to_it(talks: Talks) -> None:
    declared = outputs("message", "threadId", metadata="object")
    one = asking(None, declared, chat_id="c1", uid="ada")

    result = execute(one)

    assert "plugin" in result.outputs["message"]
    assert result.outputs["metadata"]["by"] == "base"
    assert result.outputs["threadId"] == thread_of(one)
    # It is the conversation of the app that runs the flow; its owner has none.
    assert talks.said(thread_of(one), app="friend") == [
        ("user", QUESTION),
        ("assistant", result.outputs["message"]),
    ]
    assert thread_in(talks, thread_of(one), "acme").status == 404


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (outputs("message"), {"message"}),
        (outputs("answer"), {"answer"}),
        (outputs("answer", metadata="object"), {"answer"}),
        (outputs("threadId", "answer"), {"answer"}),
        (outputs("message", "other"), {"message"}),
        ((), set()),
    ],
)
def test_which_output_is_the_reply(talks: Talks, declared: Any, expected: set[str]) -> None:
    found = execute(asking(None, declared)).outputs
    assert {name for name, value in found.items() if isinstance(value, str) and "zip" in value} == expected
    assert set(found) == {one.name for one in declared}


def test_an_output_of_another_type(talks: Talks) -> None:
    error = failing(execute, asking(None, outputs(answer="integer")))
    assert (error.code, error.message) == (
        OUTPUT_MISFIT,
        "The reply does not fit the node's outputs: /answer is not an integer.",
    )


def test_a_conversation_goes_on_across_the_runs_of_a_chat(talks: Talks) -> None:
    llm = FakeLlm(["One.", "Two.", "Three.", "Four."])
    process.use_llm(llm)
    first = asking(run_id="run-1", chat_id="c1", uid="ada")
    again = asking({"message": "And a tool?"}, run_id="run-2", chat_id="c1", uid="ada")
    result = execute(first)
    execute(again)

    assert result.usage == Usage(11, 5, 1)
    assert thread_of(first) == thread_of(again)
    assert [(one.role, one.content) for one in llm.asked[1][0][1:]] == [
        ("user", QUESTION),
        ("assistant", "One."),
        ("user", "And a tool?"),
    ]
    # Another user of that chat, and a run without a chat, see nothing of it.
    for stranger in (asking(chat_id="c1", uid="alan"), asking(run_id="run-3")):
        execute(stranger)
        assert [one.role for one in llm.asked[-1][0]] == ["system", "user"]


def test_which_conversation_a_node_is_in() -> None:
    app = Caller(1, "a", 1, "caller", "r")

    def thread(**more: Any) -> str:
        return thread_of(call("agent", {}, author=app, user=app, **more))

    assert len(thread()) <= 255
    same = {"chat_id": "c", "uid": "u"}
    assert thread(**same, run_id="1") == thread(**same, run_id="2")
    assert thread(run_id="1") != thread(run_id="2")
    assert thread(**same) != thread(**same, flow_id=8)
    assert thread(**same) != thread(**same, key="agent::2")
    assert thread(chat_id="c|u") != thread(chat_id="c", uid="u")
    # Rounds of a loop are one conversation, items of an iteration run at once and are several.
    assert thread(key="loop::1[0]/agent::1") == thread(key="loop::1[1]/agent::1")
    assert thread(key="iteration::1[0]/agent::1") != thread(key="iteration::1[1]/agent::1")
    inner = "iteration::1[{}]/loop::1[{}]/agent::1"
    assert thread(key=inner.format(0, 0)) == thread(key=inner.format(0, 5))
    assert thread(key=inner.format(0, 0)) != thread(key=inner.format(1, 0))


def test_without_history_nothing_is_kept(talks: Talks) -> None:
    llm = FakeLlm(["One.", "Two."])
    process.use_llm(llm)
    one = asking(None, outputs("message", "threadId"), chat_id="c1", history=False)
    assert execute(one).outputs == {"message": "One.", "threadId": ""}
    execute(one)
    assert [said.role for said in llm.asked[1][0]] == ["system", "user"]
    assert thread_in(talks, thread_of(one), "friend").status == 404


def test_context_and_inputs_reach_the_agent(talks: Talks) -> None:
    talks.register_cmdb("friend")
    settings = {"message": "use staging by default"}
    execute(asking(settings, agent="cmdb", context={"userId": "alan", "x": 1}))
    execute(asking({**settings, "userId": "ada"}, agent="cmdb", context={"userId": "nobody"}))
    declared = outputs("message", metadata="object")

    def environment(user: str) -> Any:
        question = {"message": "which hosts run nginx?", "userId": user}
        return (
            execute(asking(question, declared, agent="cmdb")).outputs["metadata"]["asked"].get("environment")
        )

    assert [environment(user) for user in ("ada", "alan", "nobody")] == ["staging", "staging", None]


@pytest.mark.parametrize(
    ("inputs", "is_found"),
    [
        ({"message": QUESTION, "other": "x"}, True),
        ({"query": QUESTION, "other": "x"}, True),
        ({"text": QUESTION, "n": 1}, True),
        ({"a": QUESTION, "b": "x"}, False),
        ({"n": 1}, False),
        ({}, False),
        ({"message": ""}, False),
        ({"message": 7}, False),
        ({"message": "a\0b"}, False),
        ({"message": "x" * 100_001}, False),
    ],
)
def test_which_input_is_the_message(talks: Talks, inputs: dict[str, Any], is_found: bool) -> None:
    if is_found:
        assert "plugin" in execute(asking(inputs, outputs("message"))).outputs["message"]
        return
    error = failing(execute, asking(inputs))
    assert (error.code, error.is_transient) == (TOOL_FAILED, False)


def test_an_agent_that_cannot_be_asked(talks: Talks) -> None:
    unknown = failing(execute, asking(agent="nobody"))
    assert (unknown.code, unknown.is_transient) == (TOOL_FAILED, False)
    talks.client().post(f"{AGENTS}/common_qa/disable")
    process.cache().refresh()  # as every request begins
    disabled = failing(execute, asking())
    assert disabled.message == "The agent is disabled. (agent.disabled)"


def test_a_tool_that_fails_fails_the_node_and_nothing_is_said(talks: Talks) -> None:
    talks.register_cmdb("friend", url=f"{talks.cmdb.url}/elsewhere")
    one = asking({"message": "which hosts run nginx?"}, agent="cmdb", chat_id="c")
    error = failing(execute, one)
    assert (error.code, error.message) == (
        TOOL_FAILED,
        "The server answered with status 404. (tool.upstream_error)",
    )
    assert not error.is_transient
    assert thread_in(talks, thread_of(one), "friend", "cmdb").status == 404


def test_its_model_has_the_time_that_the_node_has(talks: Talks) -> None:
    llm = FakeLlm(["One."])
    process.use_llm(llm)
    execute(asking(seconds=3))
    assert 0 < llm.asked[0][1].timeout_s <= 3


def test_its_tools_have_the_time_that_the_node_has(database_url: str, tmp_path: Path) -> None:
    silent = Server(lambda conn, request: time.sleep(3))
    try:
        with talking(database_url, tmp_path, HOTPLUG_PRIVATE_ENDPOINTS=f"127.0.0.1:{silent.port}") as talks:
            talks.client("acme", "caller")
            talks.register_cmdb("friend", url=f"http://127.0.0.1:{silent.port}")
            one = asking({"message": "which hosts run nginx?"}, agent="cmdb", seconds=0.6)
            began = time.monotonic()
            error = failing(execute, one)
            assert isinstance(error, NodeTimeout), error
            assert time.monotonic() - began < 1.8
    finally:
        silent.close()
