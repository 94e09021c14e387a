"""One node of a draft, with inputs that are given: a flow of its own is made around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import Invalid, NotFound, Violation
from chalicelib.core.strict_json import escape
from chalicelib.flows import catalog
from chalicelib.flows.dsl.branches import branch_list
from chalicelib.flows.dsl.model import (
    BODY_ENDS,
    BODY_STARTS,
    END,
    START,
    START_PARAMETERS,
    Node,
    plain_handle,
)
from chalicelib.flows.engine.questions import QUESTION
from chalicelib.flows.runs import plans
from chalicelib.flows.runs.plans import Runnable

_ALONE = frozenset({START, END, QUESTION, *BODY_STARTS, *BODY_ENDS, *START_PARAMETERS})
"""Types that mean nothing without what stands around them, or that wait."""
_BEGIN, _FINISH = "node-start::debug", "node-end::debug"


def one_node(
    session: Session, caller: Caller, flow_id: int, node_id: str, body: Mapping[str, Any]
) -> Runnable:
    """Return a flow that runs one node of a draft.

    Parameters
    ----------
    body
        `inputs`: values by name; an input that is not named has its default.

    Raises
    ------
    errors.NotFound
        The flow, or `flow.node_not_found`.
    errors.Invalid
        `flow.node_not_alone`; `flow.unknown_input`; `flow.invalid` where the draft has violations.
    """
    data = json.loads(catalog.read_draft(session, caller, flow_id).text)
    flow = plans.of_data(data, flow_id, caller.app_id).plan.flow
    node = flow.nodes.get(node_id)
    if node is None:
        raise NotFound("The draft has no such node.", code="flow.node_not_found")
    if node.type in _ALONE:
        raise Invalid(f"A node of type {node.type} cannot be run alone.", code="flow.node_not_alone")
    raw = next(one for one in data["nodes"] if one.get("id") == node_id)
    return plans.of_data(_around(node, raw, body.get("inputs", {})), flow_id, caller.app_id)


def _around(node: Node, raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    known = {one.name: one for one in node.inputs}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise Invalid(
            "The node has no such inputs.",
            code="flow.unknown_input",
            errors=[
                Violation(f"/inputs/{escape(name)}", "flow.unknown_input", "is no input of the node")
                for name in unknown
            ],
        )
    inputs = [
        {
            "id": one.id or f"debug-{number}",
            "name": one.name,
            "schema": {**one.schema, "value": {"type": "literal", "content": given.get(one.name)}},
        }
        for number, one in enumerate(node.inputs)
    ]
    shown = [
        {
            "id": f"debug-{output.name}",
            "name": output.name,
            "schema": {
                "type": output.schema["type"],
                "value": {"type": "ref", "content": {"nodeId": node.id, "name": output.name}},
            },
        }
        for output in node.outputs
    ]
    listed = branch_list(node.type, dict(node.params))
    handles = [""] if listed is None else [plain_handle(one["id"]) for one in listed[1]]
    if node.retry.has_failure_edge:
        handles.append("fail_one_of")
    edges = [(_BEGIN, node.id, ""), *((node.id, _FINISH, handle) for handle in handles)]
    return {
        "nodes": [
            _node(_BEGIN, {}, []),
            {**raw, "data": {**raw["data"], "inputs": inputs}},
            _node(_FINISH, {"outputMode": 0}, shown),
        ],
        "edges": [
            {"sourceNodeId": source, "targetNodeId": target, "sourceHandle": handle}
            for source, target, handle in edges
        ],
    }


def _node(node_id: str, params: dict[str, Any], inputs: list[dict[str, Any]]) -> dict[str, Any]:
    meta = {"nodeType": node_id.partition("::")[0], "aliasName": "debug"}
    return {
        "id": node_id,
        "data": {"nodeMeta": meta, "inputs": inputs, "outputs": [], "nodeParam": params},
    }
