from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.flows.dsl import graph
from chalicelib.flows.dsl.check import check_flow
from tests.flow_builders import END, START, Data, edge, end, flow, message, ref, start, text_joiner

GRAPHS = st.integers(1, 9).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, size - 1), max_size=4), min_size=size, max_size=size)
)


def paths(out: list[list[int]]) -> list[list[bool]]:
    """Whether a path of at least one edge leads from each to each, by Warshall's triple loop."""
    size = range(len(out))
    leads = [[target in out[source] for target in size] for source in size]
    for middle in size:
        for source in size:
            for target in size:
                leads[source][target] |= leads[source][middle] and leads[middle][target]
    return leads


@given(GRAPHS)
def test_reach_is_what_paths_lead_to(out: list[list[int]]) -> None:
    leads = paths(out)
    assert sorted(graph.reach(out, [0, 0], set())) == [
        number for number in range(len(out)) if number == 0 or leads[0][number]
    ]


@given(GRAPHS)
def test_components_are_those_that_lead_to_each_other(out: list[list[int]]) -> None:
    leads = paths(out)
    parts = graph.components(out)
    assert sorted(node for part in parts for node in part) == list(range(len(out)))
    for place, part in enumerate(parts):
        assert graph.is_cyclic(out, part) == leads[part[0]][part[0]]
        for node in range(len(out)):
            assert (node in part) == (node == part[0] or (leads[node][part[0]] and leads[part[0]][node]))
            if node not in part and leads[part[0]][node]:
                assert node in [one for earlier in parts[:place] for one in earlier]


@given(GRAPHS)
def test_a_cycle_is_one(out: list[list[int]]) -> None:
    for part in graph.components(out):
        if graph.is_cyclic(out, part):
            way = graph.cycle(out, part)
            assert way[0] == way[-1] == min(part)
            assert all(target in out[source] for source, target in pairwise(way))
            assert len(way) == len(set(way)) + 1


@given(GRAPHS)
def test_ancestors_are_those_that_lead_to_it(out: list[list[int]]) -> None:
    leads = paths(out)
    wanted = list(range(0, len(out), 2))
    before = graph.ancestors(out, graph.components(out), wanted)
    for source in wanted:
        for target in range(len(out)):
            assert before.leads(source, target) == leads[source][target]


@given(GRAPHS)
def test_the_order_follows_edges_and_leaves_cycles_out(out: list[list[int]]) -> None:
    leads = paths(out)
    order = graph.topological(out)
    behind = {
        node
        for node in range(len(out))
        if any(leads[one][one] and leads[one][node] for one in range(len(out)))
    }
    assert set(order) == set(range(len(out))) - behind
    place = {node: position for position, node in enumerate(order)}
    assert all(place[source] < place[target] for source in order for target in out[source] if target in place)


def test_what_has_no_cycle_gives_none() -> None:
    with pytest.raises(ValueError, match="no cycle"):
        graph.cycle([[]], [0])


class Counted(Sequence[int]):
    """Targets of a node that count how often one is looked at."""

    looks = 0

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> Any:
        Counted.looks += 1
        return self.targets[index]

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[int]:
        for target in self.targets:
            Counted.looks += 1
            yield target


def looks_at(out: list[list[int]]) -> int:
    """Edges that all of the algorithms together look at."""
    Counted.looks = 0
    counted = [Counted(targets) for targets in out]
    parts = graph.components(counted)
    graph.reach(counted, [0], set())
    graph.topological(counted)
    for part in parts:
        if graph.is_cyclic(counted, part):
            graph.cycle(counted, part)
    graph.ancestors(counted, parts, range(len(out)))
    return Counted.looks


def layers(count: int) -> list[list[int]]:
    """Layers of two nodes, each with edges to both of the next."""
    below = [[2 * layer + 2, 2 * layer + 3] for layer in range(count - 1) for _ in range(2)]
    return [*below, [], []]


@pytest.mark.parametrize(
    "made",
    [
        lambda size: [[number + 1] for number in range(size - 1)] + [[]],
        lambda size: [[(number + 1) % size] for number in range(size)],
        lambda size: [list(range(1, size)), *([[]] * (size - 1))],
        lambda size: layers(size // 2),
    ],
    ids=["chain", "cycle", "fan", "layers"],
)
def test_each_edge_is_looked_at_a_fixed_number_of_times(made: Any) -> None:
    for size in (100, 10_000):
        out = made(size)
        assert looks_at(out) <= 8 * sum(map(len, out))


def chain_of(size: int) -> Data:
    nodes = [start()]
    before, name = START, "query"
    for number in range(size - 2):
        one = text_joiner(f"text-joiner::{number}", "{{x}}", ref("x", before, name))
        nodes.append(one)
        before, name = one["id"], "output"
    return flow([*nodes, end(ref("x", before, name))])


def fan_of(size: int) -> Data:
    middle = [message(f"message::{number}", "{{q}}", ref("q", START, "query")) for number in range(size - 2)]
    edges = [edge(START, one["id"]) for one in middle] + [edge(one["id"], END) for one in middle]
    return flow([start(), *middle, end()], edges)


def broken(size: int) -> Data:
    return {"nodes": [message(f"message::{number}", "{{q}}") for number in range(size)], "edges": []}


def calls_of(data: Data) -> int:
    """Calls of functions, those of the interpreter included, that a check makes."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        check_flow(data)
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("made", [chain_of, fan_of, broken])
def test_a_check_is_linear(made: Any) -> None:
    calls_of(made(10))  # what is made once, such as validators
    assert calls_of(made(3_000)) <= 12 * calls_of(made(300))


def test_ten_thousand_nodes_in_a_row_are_a_flow() -> None:
    checked = check_flow(chain_of(10_000))
    assert checked.violations == ()
    assert checked.flow is not None
    assert len(checked.flow.bodies[""]) == 10_000


def test_two_thousand_nodes_side_by_side_are_a_flow() -> None:
    assert check_flow(fan_of(2_002)).flow is not None


def test_layers_that_are_fully_connected_are_a_flow() -> None:
    nodes = [message(f"message::{number}", "x") for number in range(32)]
    edges = [
        edge(f"message::{source}", f"message::{target}")
        for source, targets in enumerate(layers(16))
        for target in targets
    ]
    ways = [
        edge(START, "message::0"),
        edge(START, "message::1"),
        edge("message::30", END),
        edge("message::31", END),
    ]
    assert check_flow({"nodes": [start(), *nodes, end()], "edges": [*ways, *edges]}).flow is not None


def test_a_cycle_of_ten_thousand_is_named_in_short() -> None:
    data = chain_of(10_000)
    data["edges"].append(edge("text-joiner::9997", "text-joiner::0"))
    (one,) = check_flow(data).violations
    assert (one.rule, one.node) == ("graph.cycle", "text-joiner::0")
    assert one.message.startswith("text-joiner::0 → text-joiner::1 → ")
    assert one.message.endswith(" → …")


def test_a_short_cycle_is_named_whole() -> None:
    data = chain_of(4)
    data["edges"].append(edge("text-joiner::1", "text-joiner::0"))
    (one,) = check_flow(data).violations
    assert one.message == "text-joiner::0 → text-joiner::1 → text-joiner::0"
