"""Nodes that only compute: they run where the run is scheduled, and again whenever a durable run is replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.flows.dsl.model import Node, plain_handle
from chalicelib.flows.dsl.nodes import is_default
from chalicelib.flows.dsl.templates import Template, TemplateError
from chalicelib.flows.dsl.values import LiteralError, conforms, convert_literal, default_of
from chalicelib.flows.engine.call import Result
from chalicelib.flows.engine.conditions import holds
from chalicelib.flows.engine.errors import BRANCH_FAILED, NODE_FAILED, OUTPUT_MISFIT, PARAMETERS, NodeError
from chalicelib.flows.engine.inputs import by_id

Compute = Callable[[Node, dict[str, Any]], Result]
_MOST_NAMED = 20


def start(node: Node, parameters: dict[str, Any]) -> Result:
    """The run's parameters, with the defaults of those that are not given; nothing is converted.

    Raises
    ------
    NodeError
        22500 with every violation.
    """
    declared = {output.name: output for output in node.outputs}
    wrong = [f"{name[:60]} is no parameter" for name in parameters if name not in declared]
    values = {}
    for name, output in declared.items():
        if name in parameters:
            values[name] = parameters[name]
            wrong += [
                f"{name}{misfit.pointer} {misfit.message}"
                for misfit in conforms(values[name], output.schema)[:3]
            ]
        elif output.required:
            wrong.append(f"{name} is required")
        else:
            values[name] = default_of(output.schema)
    if wrong:
        more = f"; and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise NodeError(PARAMETERS, "; ".join(wrong[:_MOST_NAMED]) + more, is_transient=False)
    return Result(values)


def body_start(_node: Node, given: dict[str, Any]) -> Result:
    """What the iteration or loop hands to this pass."""
    return Result(given)


def end(node: Node, inputs: dict[str, Any]) -> Result:
    """The inputs, as compact JSON or by a template."""
    if node.params.get("outputMode") == 1:
        return Result(inputs, content=_rendered(node, "template", inputs))
    return Result(inputs, content=_compact(inputs))


def body_end(_node: Node, inputs: dict[str, Any]) -> Result:
    """The inputs, which the iteration or loop takes."""
    return Result(inputs)


def message(node: Node, inputs: dict[str, Any]) -> Result:
    """A text for the run's content."""
    return Result(content=_rendered(node, "template", inputs))


def text_joiner(node: Node, inputs: dict[str, Any]) -> Result:
    """One text of many, or many of one."""
    (output,) = node.outputs
    value: Any
    if node.params["mode"] == 0:
        value = _converted(_rendered(node, "prompt", inputs), output.schema)
    else:
        first = next(iter(inputs.values()))
        value = (first if isinstance(first, str) else _compact(first)).split(node.params["separator"])
        if conforms(value, output.schema):
            raise NodeError(
                OUTPUT_MISFIT, f"{output.name} is not declared as a list of texts", is_transient=False
            )
    return Result({output.name: value})


def if_else(node: Node, inputs: dict[str, Any]) -> Result:
    """The first case that holds, else the default."""
    values = by_id(node, inputs)
    default = None
    for case in node.params["cases"]:
        if is_default("if-else", case):
            default = case
        elif holds(case, values):
            return Result(branch=plain_handle(case["id"]))
    if default is None:
        raise NodeError(BRANCH_FAILED, "no case holds, and there is no default", is_transient=False)
    return Result(branch=plain_handle(default["id"]))


PURE: Mapping[str, Compute] = {
    "node-start": start,
    "node-end": end,
    "iteration-node-start": body_start,
    "iteration-node-end": body_end,
    "loop-node-start": body_start,
    "loop-node-end": body_end,
    "message": message,
    "text-joiner": text_joiner,
    "if-else": if_else,
}


def _rendered(node: Node, name: str, inputs: dict[str, Any]) -> str:
    try:
        return Template.parse(node.params[name]).render(inputs)
    except TemplateError as error:
        raise NodeError(NODE_FAILED, f"{name} {error}", is_transient=False) from error


def _converted(text: str, schema: Mapping[str, Any]) -> Any:
    try:
        return convert_literal(text, schema)
    except LiteralError as error:
        raise NodeError(OUTPUT_MISFIT, f"the text {error}", is_transient=False) from error


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
