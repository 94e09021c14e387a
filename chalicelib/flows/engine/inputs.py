"""The values that a node's inputs have when it begins."""

from __future__ import annotations

from typing import Any

from chalicelib.flows.dsl.model import Input, Literal, Node, Ref
from chalicelib.flows.dsl.values import MISSING, default_of, project
from chalicelib.flows.engine.frame import Frame


def inputs_of(node: Node, frame: Frame) -> dict[str, Any]:
    """Return the values of a node's inputs by name.

    What a reference does not find is the input's default: a node on a branch that did not run gave nothing.
    """
    return {given.name: value_of(given, frame) for given in node.inputs}


def value_of(given: Input, frame: Frame) -> Any:
    """Return the value of one input."""
    if isinstance(given.value, Literal):
        return given.value.value
    if isinstance(given.value, Ref):
        outputs = frame.found(given.value.node_id)
        if outputs is not None:
            value = project(outputs, given.value.path)
            if value is not MISSING:
                return value
    return default_of(given.schema)


def by_id(node: Node, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a node's inputs by the inputs' ids, which conditions call them by."""
    return {given.id: values[given.name] for given in node.inputs if given.id}
