"""Flows that were made to cost more than there is: each ends, soon, with an error that says why."""

from __future__ import annotations

import hashlib
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.flows.engine import interpreter as engine
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.engine.durable import Values
from chalicelib.flows.engine.errors import Interrupt, NodeError
from chalicelib.flows.engine.held import MAX_HELD, MAX_LEVELS
from chalicelib.flows.engine.outcome import MAX_ANSWER, Outcome
from chalicelib.flows.engine.owners import MAX_DEPTH
from tests.flow_builders import (
    END,
    START,
    Data,
    code,
    edge,
    end,
    flow,
    iteration,
    literal,
    loop,
    message,
    node,
    output,
    ref,
    start,
    text_joiner,
    with_body,
)
from tests.flow_runs import Told, durable, express

MIB = 1024 * 1024
BOTH = pytest.mark.parametrize("how", [express, durable], ids=["express", "durable"])
How = Callable[..., tuple[Outcome, Told]]


def failure(outcome: Outcome) -> tuple[int, str, str | None]:
    """Code, message and node of a run that failed."""
    assert outcome.state == "failed"
    assert outcome.error is not None
    return outcome.error.code, outcome.error.message, outcome.error.node_id


def node_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("node-")]


# -- size --------------------------------------------------------------------------------------------------------


def side_by_side(count: int) -> Data:
    nodes = [code(f"code::{number}") for number in range(count)]
    edges = [one for each in nodes for one in (edge(START, each["id"]), edge(each["id"], END))]
    return flow([start(), *nodes, end()], edges)


def test_two_thousand_nodes_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(_call: Call) -> Result:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return Result()

    outcome, told = express(side_by_side(2_000), kinds={"code": work}, seconds=60)
    assert outcome.state == "succeeded"
    assert set(told.states().values()) == {"succeeded"}
    assert len(told.records) == len(told.states()) == 2_002
    assert most <= 16


@pytest.mark.parametrize("make", [message, code], ids=["pure", "works"])
def test_a_chain_of_ten_thousand_nodes(make: Any) -> None:
    count = 9_998 if make is message else 3_000
    data = flow([start(), *(make(f"{make.__name__}::{number}") for number in range(count)), end()])
    outcome, told = express(data, seconds=60)
    assert outcome.state == "succeeded"
    assert len(told.records) == count + 2
    assert [record.position for record in told.records] == list(range(count + 2))


def test_layers_that_are_fully_connected() -> None:
    """65,536 ways lead through, each node is one."""
    layers = [[code(f"code::{layer}-{side}") for side in range(2)] for layer in range(16)]
    edges = [edge(START, one["id"]) for one in layers[0]] + [edge(one["id"], END) for one in layers[-1]]
    for before, after in pairwise(layers):
        edges += [edge(a["id"], b["id"]) for a in before for b in after]
    data = flow([start(), *(one for layer in layers for one in layer), end()], edges)
    for how in (express, durable):
        outcome, told = how(data)
        assert outcome.state == "succeeded"
        assert max(Counter(record.key for record in told.records).values()) == 1
        assert len(told.records) == 34


class Kept(Values):
    """Keeps large values outside the checkpoints, as a store does."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def kept(self, text: str) -> str:
        name = hashlib.sha256(text.encode()).hexdigest()
        self._texts[name] = text
        return name

    def found(self, kept: str) -> str:
        return self._texts[kept]


@BOTH
def test_megabytes_pass_through(how: How) -> None:
    more = {"values": Kept()} if how is durable else {}
    text = "é" * (800 * 1024)
    data = flow(
        [
            start(),
            code(inputs=[ref("result", START, "query")]),
            end(ref("t", "code::1", "result"), template="x"),
        ]
    )
    outcome, _ = how(data, {"query": text}, **more)
    assert outcome.outputs == {"t": text}
    assert outcome.content == "x"


@BOTH
def test_an_answer_is_no_larger_than_a_function_gives(how: How) -> None:
    data = flow([start(), end(ref("t", START, "query"))])
    assert failure(how(data, {"query": "x" * 3 * MIB})[0]) == (
        22302,
        f"Outputs and content take more than {MAX_ANSWER} bytes of an answer.",
        None,
    )


def test_an_answer_is_measured_in_bytes() -> None:
    data = flow([start(), end(ref("t", START, "query"), template="")])
    assert express(data, {"query": "x" * (2 * MIB)})[0].state == "succeeded"
    assert express(data, {"query": "😀" * (2 * MIB)})[0].state == "failed"


def test_an_answer_is_measured_as_it_travels() -> None:
    """A text of quotation marks is four times as long where Lambda carries it: the run would have succeeded, and
    whoever waits for it would have been told that the function failed."""
    data = flow([start(), end(ref("t", START, "query"), template="")])
    assert express(data, {"query": '"' * MIB})[0].state == "succeeded"
    assert express(data, {"query": '"' * (2 * MIB)})[0].state == "failed"


def test_what_a_failed_run_said_is_cut_to_what_travels() -> None:
    said = message("message::1", "{{t}}", ref("t", START, "query"))
    outcome, _ = express(flow([start(), said, end()]), {"query": '"' * (2 * MIB)})
    assert outcome.state == "failed"
    assert outcome.content == '"' * (MIB + 1)


def doubling(count: int) -> Data:
    return with_body(
        loop(
            ref("t", START, "query"),
            text_joiner("text-joiner::1", "{{t}}{{t}}", ref("t", "loop-node-start::1", "t")),
            count=count,
        )
    )


@BOTH
def test_a_text_that_doubles_in_every_round(how: How) -> None:
    outcome, told = how(doubling(1_000), {"query": "x" * 1024})
    code_, text, blamed = failure(outcome)
    assert (code_, blamed) == (22302, "text-joiner::1")
    assert "renders to more than 4194304 characters" in text
    assert len(told.records) < 60


@BOTH
def test_texts_of_one_run_have_a_bound_together(how: How) -> None:
    body = text_joiner("text-joiner::1", "{{t}}", ref("t", "loop-node-start::1", "t"))
    data = with_body(loop(ref("t", START, "query"), body, count=1_000))
    tracemalloc.start()
    outcome, told = how(data, {"query": "x" * (2 * MIB)})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_HELD
    code_, text, _ = failure(outcome)
    assert (code_, text) == (
        22302,
        f"The run's values are larger than {MAX_HELD} characters together.",
    )
    assert len(told.records) < 40


@BOTH
def test_messages_count_as_well(how: How) -> None:
    body = message("message::1", "{{t}}" * 2, ref("t", "loop-node-start::1", "t"))
    nodes, edges = loop(ref("t", START, "query"), count=1_000)
    edges = [edge("loop-node-start::1", "message::1"), edge("message::1", "loop-node-end::1")]
    data = flow([start(), *nodes, body, end()], [edge(START, "loop::1"), edge("loop::1", END), *edges])
    outcome, _ = how(data, {"query": "x" * MIB})
    assert failure(outcome)[1].startswith("The run's values are larger than")
    assert len(outcome.content) <= MAX_ANSWER


@BOTH
def test_a_list_that_is_wrapped_in_every_round(how: How) -> None:
    """No encoder writes what is nested a thousand deep: the run must end before one has to."""
    nodes, _ = loop(literal("x", [], "array"), count=1_000)
    begin, finish = nodes[1], nodes[2]
    finish["data"]["inputs"] = [ref("x", "iteration::1", "r", "array")]
    wrap = node(
        "iteration::1",
        {"IterationStartNodeId": "iteration-node-start::1"},
        inputs=[literal("one", [0], "array"), ref("x", begin["id"], "x", "object")],
        outputs=[output("r", "array")],
    )
    inside = [
        node("iteration-node-start::1", outputs=[output("x", "object")]),
        node("iteration-node-end::1", inputs=[ref("r", "iteration-node-start::1", "x", "array")]),
    ]
    data = flow(
        [start(), *nodes, wrap, *inside, end()],
        [
            edge(START, "loop::1"),
            edge("loop::1", END),
            edge(begin["id"], wrap["id"]),
            edge(wrap["id"], finish["id"]),
            edge(inside[0]["id"], inside[1]["id"]),
        ],
    )
    outcome, told = how(data)
    assert failure(outcome)[:2] == (22302, f"A value of it is nested more than {MAX_LEVELS} deep.")
    assert len(told.records) < 600


@pytest.mark.parametrize("levels", [2_000, 100_000])
def test_a_node_may_give_anything(levels: int) -> None:
    def deep(_call: Call) -> Result:
        value: Any = 0
        for _ in range(levels):
            value = [value]
        return Result({"o": {"v": value}})

    data = flow(
        [start(), code("code::1", output("o", "object")), end(ref("x", "code::1", "o.v.a.b"), template="")]
    )
    assert failure(express(data, kinds={"code": deep})[0])[1].startswith("A value of it is nested")


def test_integers_of_any_length_are_compared() -> None:
    huge = Result({"o": {"v": 10**400}})
    condition = {"id": "branch_one_of::yes", "conditions": [
        {"leftVarIndex": "a", "compareOperator": "gt", "rightVarIndex": "b"}]}  # fmt: skip
    branch = node(
        "if-else::1",
        {"cases": [condition, {"id": "branch_one_of::no", "level": 999}]},
        inputs=[ref("a", "code::1", "o.v", input_id="a"), literal("b", "1.5", "number", input_id="b")],
    )
    data = flow(
        [start(), code("code::1", output("o", "object")), branch, message(template="more"), end(template="")],
        [
            edge(START, "code::1"),
            edge("code::1", "if-else::1"),
            edge("if-else::1", "message::1", "branch_one_of::yes"),
            edge("message::1", END),
            edge("if-else::1", END, "branch_one_of::no"),
        ],
    )
    assert express(data, kinds={"code": lambda _: huge})[0].content == "more"


def test_an_error_of_the_interpreters_own_thread_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RecursionError("a secret")

    data = flow([start(), message(), end()])
    monkeypatch.setitem(engine.PASSES, "loop", broken)  # type: ignore[arg-type]
    looped = with_body(loop(literal("t", "a")))
    assert failure(express(looped)[0]) == (22302, "The node failed: RecursionError.", "loop::1")
    monkeypatch.setattr(engine, "inputs_of", broken)
    assert failure(express(data)[0]) == (22302, "The node failed: RecursionError.", START)


# -- depth and count ---------------------------------------------------------------------------------------------


def nested(depth: int, work: Data | None = None) -> Data:
    """A loop within a loop within a loop …"""
    nodes, edges = [start(), end()], [edge(START, "loop::0"), edge("loop::0", END)]
    for level in range(depth):
        parts, _ = loop(literal("n", "a"), count=1, suffix=str(level))
        nodes += parts
        inside = f"loop::{level + 1}" if level + 1 < depth else "message::1"
        edges += [edge(f"loop-node-start::{level}", inside), edge(inside, f"loop-node-end::{level}")]
    return flow([*nodes, work or message()], edges)


@BOTH
def test_bodies_that_are_nested_forty_deep(how: How) -> None:
    assert how(nested(MAX_DEPTH))[0].state == "succeeded"
    code_, text, _ = failure(how(nested(40))[0])
    assert (code_, text) == (23200, f"bodies and sub-flows are nested more than {MAX_DEPTH} deep")


@BOTH
def test_flows_that_come_to_call_themselves(how: How) -> None:
    """Each was sound when it was published."""
    calls = [flow([start(), node("flow::1", {"flowId": str(other)}), end()]) for other in (2, 1)]
    outcome, told = how(calls[0], subflows={"1": calls[0], "2": calls[1]})
    code_, text, blamed = failure(outcome)
    assert (code_, blamed) == (22801, "flow::1")
    assert f"nested more than {MAX_DEPTH} deep" in text
    assert len(told.records) <= 2 * (MAX_DEPTH + 2)


def test_loops_in_loops_in_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_DECIDED", 5_000)
    inner, inner_edges = loop(literal("t", "a"), count=1_000, suffix="2")
    outer, _ = loop(literal("t", "a"), count=1_000, suffix="1")
    edges = [edge("loop-node-start::1", "loop::2"), edge("loop::2", "loop-node-end::1")]
    data = flow(
        [start(), *outer, *inner, end()], [edge(START, "loop::1"), edge("loop::1", END), *edges, *inner_edges]
    )
    outcome, told = express(data)
    assert failure(outcome) == (22302, "The run has more than 5000 nodes.", None)
    assert len(told.records) <= 5_001
    assert engine.MAX_DECIDED == 5_000


def test_a_run_that_only_computes_ends_with_its_time() -> None:
    inner, inner_edges = loop(literal("t", "a"), count=1_000, suffix="2")
    outer, _ = loop(literal("t", "a"), count=1_000, suffix="1")
    edges = [edge("loop-node-start::1", "loop::2"), edge("loop::2", "loop-node-end::1")]
    data = flow(
        [start(), *outer, *inner, end()], [edge(START, "loop::1"), edge("loop::1", END), *edges, *inner_edges]
    )
    outcome, _ = express(data, seconds=0.3)
    assert failure(outcome)[1] == "The run's time is over; a durable run has no such limit."


@BOTH
def test_ten_thousand_items(how: How) -> None:
    items = [f"{number}" for number in range(10_000)]
    data = with_body(
        iteration(
            ref("items", START, "items", "array"),
            text_joiner("text-joiner::1", "<{{i}}>", ref("i", "iteration-node-start::1", "items")),
        ),
        ref("r", "iteration::1", "result", "array"),
    )
    data["nodes"][0] = start(output("items", "array"))
    outcome, told = how(data, {"items": items})
    assert outcome.outputs == {"r": [f"<{item}>" for item in items]}
    assert len(told.records) == 30_003
    code_, text, blamed = failure(how(data, {"items": [*items, "x"]})[0])
    assert (code_, text, blamed) == (23200, "10001 items are more than 10000", "iteration::1")


# -- threads -----------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled_while_threads_work() -> None:
    release, begun = threading.Event(), threading.Barrier(17, timeout=10)
    is_wanted = threading.Event()

    def work(_call: Call) -> Result:
        begun.wait()
        assert release.wait(10)
        return Result()

    def watch() -> None:
        begun.wait()
        is_wanted.set()
        time.sleep(1.2)  # two looks
        release.set()

    def tick() -> None:
        if is_wanted.is_set():
            raise Interrupt(22302, "The run was cancelled.", cancelled=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    outcome, told = express(side_by_side(40), kinds={"code": work}, tick=tick)
    watcher.join()
    assert (outcome.state, outcome.error and outcome.error.code) == ("cancelled", 22302)
    assert [record.key for record in told.records] == [START]
    assert len(told.begun) == 40
    assert node_threads() == []


def test_no_thread_outlives_its_run() -> None:
    ended = threading.Event()

    def work(_call: Call) -> Result:
        time.sleep(0.6)
        ended.set()
        return Result({"result": "too late"})

    one = code(
        retry={"shouldRetry": True, "timeout": 0.1, "errorStrategy": 1, "customOutput": {"result": "c"}}
    )
    outcome, told = express(flow([start(), one, end(ref("r", "code::1", "result"))]), kinds={"code": work})
    assert outcome.outputs == {"r": "c"}
    assert ended.is_set()
    assert node_threads() == []
    assert [record.duration_ms < 500 for record in told.records] == [True] * 3


def test_a_thread_that_is_given_up_keeps_its_place() -> None:
    """Else a run whose upstreams hang has more threads with every retry."""
    lock, alive, most = threading.Lock(), 0, 0

    def work(_call: Call) -> Result:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.3)
        with lock:
            alive -= 1
        return Result()

    retry = {"shouldRetry": True, "timeout": 0.05, "maxRetries": 2, "backoff": 0, "errorStrategy": 2}
    nodes = [code(f"code::{number}", retry=retry) for number in range(6)]
    edges = [
        one for each in nodes for one in (edge(START, each["id"]), edge(each["id"], END, "fail_one_of::1"))
    ]
    outcome, told = express(
        flow([start(), *nodes, end()], edges), kinds={"code": work}, threads=4, seconds=15
    )
    assert outcome.state == "succeeded"
    assert most == 4
    assert {record.attempt for record in told.records if record.node_type == "code"} == {3}


def test_the_time_of_an_express_run() -> None:
    def work(call: Call) -> Result:
        time.sleep(call.seconds_left() + 0.05)
        return Result()

    retry = {"shouldRetry": True, "maxRetries": 5, "errorStrategy": 1, "customOutput": {}}
    outcome, told = express(flow([start(), code(retry=retry), end()]), kinds={"code": work}, seconds=0.3)
    assert failure(outcome) == (22302, "The run's time is over; a durable run has no such limit.", None)
    assert [record.key for record in told.records] == [START]
    assert node_threads() == []


def test_time_that_is_over_while_an_attempt_is_waited_for() -> None:
    def work(_call: Call) -> Result:
        raise NodeError(21600, "x")

    retry = {"shouldRetry": True, "maxRetries": 5, "backoff": 60}
    outcome, _ = express(flow([start(), code(retry=retry), end()]), kinds={"code": work}, seconds=0.3)
    assert failure(outcome)[1].startswith("The run's time is over")


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outcome, _ = express(flow([start(), code(), end()]))
    assert failure(outcome) == (22302, "The node failed: RuntimeError.", "code::1")


@BOTH
def test_a_type_that_nothing_runs(how: How) -> None:
    data = flow([start(), node("agent::1", {"agentName": "a"}), end()])
    assert failure(how(data)[0]) == (22302, "nothing here runs nodes of type agent", "agent::1")


# -- durable operations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "state"), [(4, "succeeded"), (3, "failed")])
def test_operations_of_a_round_are_counted(most: int, state: str) -> None:
    """Three works, and one that begins them together."""
    outcome, told = durable(side_by_side(3), most=most)
    assert outcome.state == state
    if state == "failed":
        assert failure(outcome) == (22302, "The run takes more than 3 durable operations.", None)
        assert [record.key for record in told.records] == [START]


def test_operations_of_an_iteration_are_counted_when_it_runs() -> None:
    body = iteration(
        literal("items", ["a"] * 50, "array"),
        code(inputs=[ref("result", "iteration-node-start::1", "items")]),
    )
    outcome, _ = durable(with_body(body), most=20)
    assert failure(outcome)[1] == "The run takes more than 20 durable operations."


def test_what_is_left_of_a_round_goes_on_nowhere() -> None:
    """Of two works of one round the second fails what the first stands in: nothing more is told of its body."""
    inner_start = node("iteration-node-start::2", outputs=[output("cells")])
    inner = [
        node(
            "iteration::2",
            {"IterationStartNodeId": inner_start["id"]},
            inputs=[ref("cells", "iteration-node-start::1", "rows", "array")],
            outputs=[output("q", "array")],
        ),
        inner_start,
        node("iteration-node-end::2", inputs=[literal("q", "done")]),
        code("code::1", inputs=[ref("result", inner_start["id"], "cells")]),
    ]
    nodes, _ = iteration(literal("rows", [["a"], ["b"]], "array"), item_kind="array")
    nodes[0]["data"]["retryConfig"] = {
        "shouldRetry": True, "errorStrategy": 1, "customOutput": {"result": []},
    }  # fmt: skip
    nodes[2]["data"]["inputs"] = [ref("result", "iteration::2", "q", "array")]
    edges = [
        edge(START, "iteration::1"),
        edge("iteration::1", END),
        edge("iteration-node-start::1", "iteration::2"),
        edge("iteration::2", "iteration-node-end::1"),
        edge("iteration-node-start::2", "iteration-node-end::2"),
        edge("iteration-node-start::2", "code::1"),  # leads nowhere: its end is that of the pass
    ]

    def work(call: Call) -> Result:
        if call.inputs["result"] == "b":
            raise NodeError(21600, "second")
        return Result({"result": "a"})

    kinds: dict[str, Execute] = {"code": work}
    outcome, told = durable(flow([start(), *nodes, *inner, end()], edges), kinds=kinds)
    assert outcome.state == "succeeded"
    keys = [record.key for record in told.records]
    assert keys[-2:] == ["iteration::1", END]
    assert "iteration::1[0]/iteration::2" not in keys
