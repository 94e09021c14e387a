"""Flows for tests, in few words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

Data = dict[str, Any]


def declared(kind: str = "string", **more: Any) -> Data:
    """A declared schema."""
    return {"type": kind, **more}


def literal(name: str, content: Any, kind: str = "string", input_id: str = "", **more: Any) -> Data:
    """An input with a literal."""
    value = {"type": "literal", "content": content}
    return {"id": input_id or f"in-{name}", "name": name, "schema": {"type": kind, **more, "value": value}}


def ref(name: str, node_id: str, path: str, kind: str = "string", input_id: str = "", **more: Any) -> Data:
    """An input that refers to another node's output."""
    value = {"type": "ref", "content": {"nodeId": node_id, "name": path}}
    return {"id": input_id or f"in-{name}", "name": name, "schema": {"type": kind, **more, "value": value}}


def output(name: str, kind: str = "string", *, required: bool | None = None, **more: Any) -> Data:
    """A declared output."""
    made: Data = {"id": f"out-{name}", "name": name, "schema": {"type": kind, **more}}
    return made if required is None else {**made, "required": required}


def node(
    node_id: str,
    params: Data | None = None,
    *,
    inputs: list[Data] | None = None,
    outputs: list[Data] | None = None,
    retry: Data | None = None,
) -> Data:
    """A node of any type."""
    data: Data = {
        "nodeMeta": {"nodeType": node_id.partition("::")[0], "aliasName": node_id[:40]},
        "inputs": inputs or [],
        "outputs": outputs or [],
        "nodeParam": params or {},
    }
    return {"id": node_id, "data": data if retry is None else {**data, "retryConfig": retry}}


START = "node-start::1"
END = "node-end::1"


def start(*outputs: Data, node_id: str = START) -> Data:
    """A start node; by default with one optional text `query`."""
    return node(node_id, outputs=list(outputs) or [output("query")])


def end(*inputs: Data, template: str | None = None, node_id: str = END) -> Data:
    """An end node: its inputs as variables, or rendered by a template."""
    mode: Data = {"outputMode": 0} if template is None else {"outputMode": 1, "template": template}
    return node(node_id, mode, inputs=list(inputs))


def edge(source: str, target: str, handle: str = "") -> Data:
    """An edge."""
    return {"sourceNodeId": source, "targetNodeId": target, "sourceHandle": handle}


def chain(*nodes: Data) -> list[Data]:
    """The edges that lead from each of the nodes to the next."""
    ids = [one["id"] for one in nodes]
    return [edge(source, target) for source, target in pairwise(ids)]


def flow(nodes: list[Data], edges: list[Data] | None = None) -> Data:
    """A flow; without edges, its nodes one after the other."""
    return {"nodes": nodes, "edges": chain(*nodes) if edges is None else edges}


def around(one: Data, *, handles: tuple[str, ...] = ("",)) -> Data:
    """Start, the node, end: an edge for each of the node's handles."""
    out = [edge(one["id"], END, handle) for handle in handles]
    return flow([start(), one, end()], [edge(START, one["id"]), *out])


def text_joiner(
    node_id: str = "text-joiner::1", prompt: str = "x", *inputs: Data, name: str = "output"
) -> Data:
    """A node that renders a template."""
    return node(node_id, {"mode": 0, "prompt": prompt}, inputs=list(inputs), outputs=[output(name)])


def message(node_id: str = "message::1", template: str = "hello", *inputs: Data) -> Data:
    """A message."""
    return node(node_id, {"template": template}, inputs=list(inputs))


def code(
    node_id: str = "code::1", *outputs: Data, inputs: list[Data] | None = None, retry: Data | None = None
) -> Data:
    """A code node that returns its inputs."""
    params = {"codeLanguage": "python", "code": "def main(**inputs):\n    return inputs\n"}
    return node(node_id, params, inputs=inputs, outputs=list(outputs) or [output("result")], retry=retry)


def condition(left: str, operator: str, right: str | None = None) -> Data:
    """A comparison of two inputs, by their ids."""
    made = {"leftVarIndex": left, "compareOperator": operator}
    return made if right is None else {**made, "rightVarIndex": right}


def case(suffix: str, *conditions: Data, level: int = 1, operator: str = "and") -> Data:
    """A case of an if-else node; level 999 is the default."""
    return {
        "id": f"branch_one_of::{suffix}",
        "level": level,
        "logicalOperator": operator,
        "conditions": list(conditions),
    }


def if_else(*cases: Data, inputs: list[Data] | None = None, node_id: str = "if-else::1") -> Data:
    """A branch."""
    return node(node_id, {"cases": list(cases)}, inputs=inputs)


def iteration(
    items: Data, *body: Data, node_id: str = "iteration::1", suffix: str = "1", item_kind: str = "string"
) -> tuple[list[Data], list[Data]]:
    """An iteration over one array: its nodes, and the edges of its body.

    Parameters
    ----------
    items
        The input with the array.
    body
        Between start and end, one after the other; the last one's first output is the result of an item.
    """
    begin = node(f"iteration-node-start::{suffix}", outputs=[output(items["name"], item_kind)])
    last = body[-1] if body else begin
    name = last["data"]["outputs"][0]["name"]
    finish = node(
        f"iteration-node-end::{suffix}", {"outputMode": 0}, inputs=[ref("result", last["id"], name)]
    )
    owner = node(
        node_id,
        {"IterationStartNodeId": begin["id"], "maxConcurrency": 2},
        inputs=[items],
        outputs=[output("result", "array", items=declared())],
    )
    return [owner, begin, *body, finish], chain(begin, *body, finish)


def loop(
    variable: Data, *body: Data, count: int = 3, until: Data | None = None, suffix: str = "1"
) -> tuple[list[Data], list[Data]]:
    """A loop over one variable: its nodes, and the edges of its body, whose last node gives the next value."""
    name = variable["name"]
    begin = node(f"loop-node-start::{suffix}", outputs=[output(name, variable["schema"]["type"])])
    last = body[-1] if body else begin
    finish = node(
        f"loop-node-end::{suffix}",
        {"outputMode": 0},
        inputs=[ref(name, last["id"], last["data"]["outputs"][0]["name"], variable["schema"]["type"])],
    )
    params: Data = {"LoopStartNodeId": begin["id"], "maxCount": count}
    owner = node(
        f"loop::{suffix}",
        params if until is None else {**params, "until": until},
        inputs=[variable],
        outputs=[output(name, variable["schema"]["type"])],
    )
    return [owner, begin, *body, finish], chain(begin, *body, finish)


def with_body(parts: tuple[list[Data], list[Data]], *inputs: Data) -> Data:
    """Start, an iteration or a loop, end."""
    nodes, edges = parts
    owner = nodes[0]["id"]
    return flow([start(), *nodes, end(*inputs)], [edge(START, owner), edge(owner, END), *edges])
