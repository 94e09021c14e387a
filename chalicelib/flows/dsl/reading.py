"""From a flow's data to nodes and edges in one spelling, keeping what can be kept of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.limits import MAX_DATA_BYTES, MAX_EDGES, MAX_ID_LENGTH, MAX_INPUTS, MAX_NODES
from chalicelib.flows.dsl.model import (
    ALIASES,
    WITHOUT_OUTPUTS,
    Edge,
    Input,
    Literal,
    Node,
    Output,
    Ref,
    RetryConfig,
    plain_handle,
)
from chalicelib.flows.dsl.params import PARAMS
from chalicelib.flows.dsl.paths import PathError, parse_path
from chalicelib.flows.dsl.spelling import Spelling, Steps
from chalicelib.flows.dsl.structure import Explainer, field_text, is_valid, json_fault, spelling
from chalicelib.flows.dsl.values import LiteralError, convert_literal, default_of

_ID = re.compile(r"[a-z-]+::[0-9a-zA-Z-]+")
_DATA = Spelling(
    {"node_meta": "nodeMeta", "node_param": "nodeParam", "retry_config": "retryConfig"},
)
_REF = Spelling({"node_id": "nodeId"})


@dataclass
class DraftNode:
    """A node as far as it could be read.

    Parameters
    ----------
    index
        Its place in `nodes`.
    type
        By our name; '' for a type that there is not.
    places
        Of each input that could be read, its place in `inputs`.
    outputs_known
        Whether all outputs could be read: only then can it be said that one is not declared.
    params
        None where they are not valid.
    """

    index: int
    id: str
    type: str
    alias_name: str = ""
    inputs: list[Input] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    inputs_known: bool = True
    outputs: list[Output] = field(default_factory=list)
    outputs_known: bool = True
    params: dict[str, Any] | None = None
    retry: RetryConfig = field(default_factory=RetryConfig)
    retry_known: bool = True

    def steps(self, *below: str | int) -> Steps:
        """Where something of its data stands."""
        return ("nodes", self.index, "data", *below)

    def frozen(self) -> Node:
        """The node, of a flow without violations."""
        outputs = () if self.type in WITHOUT_OUTPUTS else tuple(self.outputs)
        params = self.params or {}
        return Node(self.id, self.type, self.alias_name, tuple(self.inputs), outputs, params, self.retry)


@dataclass
class Draft:
    """All that could be read: of nodes with one id the first, and every edge that is one, with its place."""

    nodes: list[DraftNode]
    by_id: dict[str, int]
    edges: list[tuple[int, Edge]]


def read(data: Any, findings: Findings) -> Draft | None:
    """Read a flow's data; None where it is not even a list of nodes."""
    fault = _fault(data)
    if fault:
        place, message = fault
        findings.add("param.schema", "", place, message, (place,) if place else ())
        return None
    explainer = Explainer(findings)
    draft = Draft([], {}, [])
    for index, raw in enumerate(data["nodes"]):
        node = _node(index, raw, draft.by_id, explainer)
        if node is not None:
            draft.by_id[node.id] = len(draft.nodes)
            draft.nodes.append(node)
    draft.edges.extend(_edges(data.get("edges", []), explainer))
    return draft


def _fault(data: Any) -> tuple[str, str] | None:
    message = json_fault(data)
    if message:
        return "", message
    if not isinstance(data, dict):
        return "", "is not an object"
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode("utf-8"))
    except ValueError:
        return "", "holds a number or a text that is not JSON"
    if size > MAX_DATA_BYTES:
        return "", f"has {size} bytes; at most {MAX_DATA_BYTES} are allowed"
    for name, most in (("nodes", MAX_NODES), ("edges", MAX_EDGES)):
        items = data.get(name, [])
        if not isinstance(items, list) or (name == "nodes" and name not in data):
            return name, "is not a list"
        if len(items) > most:
            return name, f"has {len(items)} members; at most {most} are allowed"
    return None


def _node(index: int, raw: Any, known: dict[str, int], explainer: Explainer) -> DraftNode | None:
    findings, here = explainer.findings, ("nodes", index)
    if not isinstance(raw, dict):
        findings.add("param.schema", "", f"nodes[{index}]", "is not an object", here)
        return None
    node_id = raw.get("id")
    if not isinstance(node_id, str):
        findings.add("node.id", "", "id", "is not a text", (*here, "id"))
        return None
    if node_id in known:
        findings.add("node.duplicate", node_id, "id", "is the id of an earlier node", (*here, "id"))
        return None
    kind = node_id.partition("::")[0]
    kind = ALIASES.get(kind, kind)
    if not _ID.fullmatch(node_id) or len(node_id) > MAX_ID_LENGTH:
        findings.add("node.id", node_id, "id", "is not type::suffix of at most 255 characters", (*here, "id"))
    elif kind not in PARAMS:
        findings.add("node.type", node_id, "id", f"there is no node type {shown(kind)}", (*here, "id"))
    node = DraftNode(index, node_id, kind if kind in PARAMS else "")
    body = raw.get("data", {})
    if isinstance(body, dict):
        _body(node, _DATA.apply(body), explainer)
    else:
        findings.add("param.schema", node_id, "data", "is not an object", (*here, "data"))
        node.outputs_known = node.inputs_known = node.retry_known = False
    return node


def _body(node: DraftNode, body: dict[str, Any], explainer: Explainer) -> None:
    meta = _part("nodeMeta", "nodeMeta", node, body, explainer, {})
    if meta is not None:
        node.alias_name = meta.get("aliasName", "")
    if node.type:
        params = _part(f"nodeParam {node.type}", "nodeParam", node, body, explainer, {})
        if params is not None and "model" not in params and "domain" in params:
            params = {**params, "model": params["domain"]}
        node.params = params
    retry = spelling("retryConfig").apply(body.get("retryConfig", {}))
    if isinstance(retry, dict) and retry.get("shouldRetry") is not True:
        # Nobody fills in the rest of what is switched off.
        retry = {name: value for name, value in retry.items() if name == "shouldRetry"}
    checked = _part("retryConfig", "retryConfig", node, {"retryConfig": retry}, explainer, {})
    node.retry_known = checked is not None
    node.retry = _retry(checked or {})
    for place, raw in _members("inputs", "input", node, body, explainer):
        node.inputs.append(_input(node, place, raw, explainer.findings))
        node.places.append(place)
    for place, raw in _members("outputs", "output", node, body, explainer):
        schema = raw["schema"]
        _check_default(node, ("outputs", place, "schema", "default"), raw["name"], schema, explainer.findings)
        output = Output(raw.get("id", ""), raw["name"], schema, raw.get("required", False))
        node.outputs.append(output)


def _part(
    part: str, name: str, node: DraftNode, body: dict[str, Any], explainer: Explainer, absent: Any
) -> Any:
    """A member of the node's data in our spelling; None where it is not valid, which is then told."""
    value = spelling(part).apply(body.get(name, absent))
    if is_valid(part, value):
        return value
    explainer.explain(part, value, node.id, node.steps(name), name)
    return None


def _members(
    name: str, part: str, node: DraftNode, body: dict[str, Any], explainer: Explainer
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The members of `inputs` or `outputs` that are valid, with their places; the others are told."""
    value = _spelt_refs(body.get(name, []))
    known = is_valid(name, value) if not isinstance(value, list) or len(value) <= MAX_INPUTS else False
    if not known:
        if isinstance(value, list) and len(value) > MAX_INPUTS:
            message = f"has {len(value)} members; at most {MAX_INPUTS} are allowed"
            explainer.findings.add("param.schema", node.id, name, message, node.steps(name))
            value = value[:MAX_INPUTS]
        if not is_valid(name, value):
            explainer.explain(name, value, node.id, node.steps(name), name)
        setattr(node, f"{name}_known", False)
    seen: set[str] = set()
    for place, raw in enumerate(value if isinstance(value, list) else ()):
        if not known and not is_valid(part, raw):
            continue
        if raw["name"] in seen:
            field_name = field_text(name, (raw["name"],))
            steps = node.steps(name, place, "name")
            explainer.findings.add("param.schema", node.id, field_name, "is named twice", steps)
            continue
        seen.add(raw["name"])
        yield place, raw


def _spelt_refs(members: Any) -> Any:
    """Inputs whose references say `nodeId`. What else stands under `content` is a stranger's own."""
    if not isinstance(members, list):
        return members
    return [_spelt_ref(member) for member in members]


def _spelt_ref(member: Any) -> Any:
    schema = member.get("schema") if isinstance(member, dict) else None
    value = schema.get("value") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(value, dict) or value.get("type") != "ref":
        return member
    content = _REF.apply(value.get("content"))
    return {**member, "schema": {**schema, "value": {**value, "content": content}}}


def _input(node: DraftNode, place: int, raw: dict[str, Any], findings: Findings) -> Input:
    name, given = raw["name"], raw["schema"]
    schema = {key: item for key, item in given.items() if key != "value"}
    here: Steps = ("inputs", place, "schema")
    value: Ref | Literal | None = None
    sound = _check_default(node, (*here, "default"), name, schema, findings)
    if "value" in given:
        content = given["value"].get("content")
        steps = node.steps(*here, "value", "content")
        if given["value"]["type"] == "ref":
            value = _ref(node, name, content, steps, findings)
        elif content is not None:
            value = _literal(node, name, content, schema, steps, findings)
        elif sound:
            value = Literal(default_of(schema))
    return Input(raw.get("id", ""), name, schema, value)


def _ref(node: DraftNode, name: str, content: dict[str, Any], steps: Steps, findings: Findings) -> Ref | None:
    try:
        return Ref(content["nodeId"], parse_path(content["name"]))
    except PathError as error:
        findings.add("ref.output", node.id, f"inputs.{name}", f"its name {error}", (*steps, "name"))
        return None


def _literal(
    node: DraftNode, name: str, content: Any, schema: dict[str, Any], steps: Steps, findings: Findings
) -> Literal | None:
    try:
        return Literal(convert_literal(content, schema))
    except LiteralError as error:
        findings.add("literal.type", node.id, f"inputs.{name}", str(error), steps)
        return None


def _check_default(
    node: DraftNode, below: Steps, name: str, schema: dict[str, Any], findings: Findings
) -> bool:
    try:
        default_of(schema)
    except LiteralError as error:
        place = f"{below[0]}.{name}"
        findings.add("literal.type", node.id, place, f"its default {error}", node.steps(*below))
        return False
    return True


def _retry(given: dict[str, Any]) -> RetryConfig:
    plain = RetryConfig()
    return RetryConfig(
        should_retry=given.get("shouldRetry", False),
        max_retries=int(given.get("maxRetries", plain.max_retries)),
        error_strategy=int(given.get("errorStrategy", plain.error_strategy)),
        custom_output=given.get("customOutput", {}),
        timeout_s=float(given.get("timeout", plain.timeout_s)),
        backoff_s=float(given.get("backoff", plain.backoff_s)),
    )


def _edges(edges: list[Any], explainer: Explainer) -> Iterator[tuple[int, Edge]]:
    for index, raw in enumerate(edges):
        value = spelling("edge").apply(raw)
        if is_valid("edge", value):
            handle = value.get("sourceHandle") or ""
            yield index, Edge(value["sourceNodeId"], value["targetNodeId"], plain_handle(handle))
        else:
            explainer.explain("edge", value, "", ("edges", index), f"edges[{index}]")
