"""Random flows and random junk: a check always answers, and an oracle that knows nothing of its ways agrees."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.findings import RULES
from tests.flow_builders import Data, edge, node, output, ref
from tests.flow_graphs import Body, bodies, data_of
from tests.unit.flows.dsl.test_graph import paths

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["id", "data", "nodes", "edges", "inputs", "outputs", "name", "schema", "type", "value", "content",
             "nodeParam", "node_param", "retryConfig", "sourceNodeId", "target_node_id", "x"]
        ),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip
IDS = st.sampled_from(
    ["node-start::1", "node-end::1", "message::1", "if-else::1", "llm::1", "iteration::1", "iteration-node-start::1",
     "loop::1", "flow::1", "code::1", "question-answer::1", "text-joiner::1", "nothing", ""]
)  # fmt: skip
NODES = st.fixed_dictionaries({"id": IDS | JUNK}, optional={"data": JUNK})
EDGES = st.fixed_dictionaries(
    {"sourceNodeId": IDS | JUNK, "targetNodeId": IDS}, optional={"sourceHandle": JUNK}
)


@settings(max_examples=60)
@given(
    JUNK
    | st.fixed_dictionaries({"nodes": st.lists(NODES | JUNK, max_size=6), "edges": st.lists(EDGES | JUNK)})
)
def test_junk_is_answered(data: Any) -> None:
    checked = check_flow(data, subflow=lambda flow_id, version: data)
    assert (checked.flow is None) == (checked.total > 0)
    assert all(one.rule in RULES and one.violation().message for one in checked.violations)


@st.composite
def flows(draw: st.DrawFn) -> Data:
    """Up to eight nodes with any edges and references, start and end among them or not."""
    size = draw(st.integers(1, 8))
    kinds = [draw(st.sampled_from(["node-start", "node-end", "code", "code", "code"])) for _ in range(size)]
    if draw(st.booleans()):
        kinds[0], kinds[-1] = "node-start", "node-end"
    ids = [f"{kind}::{number}" for number, kind in enumerate(kinds)]
    places = st.integers(0, size - 1)
    nodes = []
    for number, kind in enumerate(kinds):
        targets = draw(st.lists(st.integers(0, size), max_size=2))
        names = [draw(st.sampled_from(["o", "o", "errorCode", "x"])) for _ in targets]
        inputs = [
            ref(f"i{place}", [*ids, "code::none"][target], name)
            for place, (target, name) in enumerate(zip(targets, names, strict=True))
        ]
        params = {"code": "x"} if kind == "code" else {}
        outputs = [] if kind == "node-end" else [output("o")]
        nodes.append(node(ids[number], params, inputs=inputs, outputs=outputs))
    forward = draw(st.booleans())
    pairs = draw(st.lists(st.tuples(places, places), max_size=14))
    chain = [(number, number + 1) for number in range(size - 1)] if draw(st.booleans()) else []
    edges = [edge(ids[a], ids[b]) for a, b in [*chain, *pairs] if not forward or a < b]
    return {"nodes": nodes, "edges": edges}


def expected(data: Data) -> set[tuple[str, str]]:
    """Rules and nodes, by closing the graph over all paths and looking at every pair."""
    ids = [one["id"] for one in data["nodes"]]
    number = {node_id: place for place, node_id in enumerate(ids)}
    out: list[list[int]] = [[] for _ in ids]
    found: set[tuple[str, str]] = set()
    for one in data["edges"]:
        out[number[one["sourceNodeId"]]].append(number[one["targetNodeId"]])
        if one["sourceNodeId"].startswith("node-end"):
            found.add(("edge.handle", one["sourceNodeId"]))
    leads = paths(out)
    starts = [place for place, node_id in enumerate(ids) if node_id.startswith("node-start")]
    ends = [place for place, node_id in enumerate(ids) if node_id.startswith("node-end")]
    if len(starts) != 1:
        found.add(("start.count", ""))
    reached = {
        place for place in range(len(ids)) if place in starts or any(leads[one][place] for one in starts)
    }
    if not ends:
        found.add(("end.missing", ""))
    elif starts and not reached & set(ends):
        found.add(("end.unreachable", ids[ends[0]]))
    if starts:
        found |= {("graph.unreachable", ids[place]) for place in range(len(ids)) if place not in reached}
    for place in range(len(ids)):
        ring = [other for other in range(len(ids)) if leads[place][other] and leads[other][place]]
        if ring and min(ring) == place:
            found.add(("graph.cycle", ids[place]))
    for one in data["nodes"]:
        for given_input in one["data"]["inputs"]:
            content = given_input["schema"]["value"]["content"]
            target = number.get(content["nodeId"])
            if target is None or not leads[target][number[one["id"]]]:
                found.add(("ref.node", one["id"]))
            if target is not None:
                declared = {made["name"] for made in data["nodes"][target]["data"]["outputs"]}
                if content["name"] not in declared | {"errorCode", "errorMessage"}:
                    found.add(("ref.output", one["id"]))
    return found


@settings(max_examples=120)
@given(flows())
def test_an_oracle_agrees(data: Data) -> None:
    checked = check_flow(data)
    assert {(one.rule, one.node) for one in checked.violations} == expected(data)
    if checked.flow is not None:
        place = {node_id: position for position, node_id in enumerate(checked.flow.bodies[""])}
        assert all(place[one.source] < place[one.target] for one in checked.flow.edges)


@settings(max_examples=150)
@given(bodies(depth=0))
def test_operations_are_those_of_a_count_of_pairs(body: Body) -> None:
    """Steps, and one for every two of those that some other step neither comes before nor after."""
    data = data_of(body)
    ids = [one["id"] for one in data["nodes"]]
    number = {node_id: place for place, node_id in enumerate(ids)}
    out: list[list[int]] = [[] for _ in ids]
    for one in data["edges"]:
        out[number[one["sourceNodeId"]]].append(number[one["targetNodeId"]])
    leads = paths(out)
    reached = [place for place in range(len(ids)) if leads[number["node-start::1"]][place]]
    steps = [place for place in reached if ids[place].startswith("code::")]
    beside = [
        one
        for one in steps
        if not all(one == other or leads[one][other] or leads[other][one] for other in steps)
    ]
    assert check_flow(data).operations == len(steps) + len(beside) // 2
