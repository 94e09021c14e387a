"""One attempt of a node: its work, and whether what it gave is what the flow declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.flows.dsl.model import IMPLIED_OUTPUTS, WITHOUT_OUTPUTS, Node
from chalicelib.flows.dsl.values import conforms
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.engine.errors import NODE_FAILED, OUTPUT_MISFIT, NodeError
from chalicelib.flows.engine.steps import Attempt, Work

UNCHECKED = frozenset({*WITHOUT_OUTPUTS, "flow"})
"""Types of which nothing comes back; and of a sub-flow its version, its outputs being checked when it ends."""


def attempts_of(kinds: Mapping[str, Execute]) -> Attempt:
    """Return what makes an attempt of any work.

    Parameters
    ----------
    kinds
        The work of each type.
    """

    def attempt(work: Work, number: int, deadline: float) -> Result:
        execute = kinds.get(work.node.type)
        if execute is None:
            message = f"nothing here runs nodes of type {work.node.type}"
            raise NodeError(NODE_FAILED, message, is_transient=False)
        result = execute(Call(work.scope, work.node, work.key, work.inputs, number, deadline))
        if work.node.type not in UNCHECKED:
            check_outputs(work.node, result.outputs)
        return result

    return attempt


def check_outputs(node: Node, outputs: Mapping[str, Any]) -> None:
    """Hold what a node gave against what it declares.

    Raises
    ------
    NodeError
        20601
    """
    implied = IMPLIED_OUTPUTS.get(node.type, {})
    for output in node.outputs:
        if output.name not in outputs:
            if output.required and output.name not in implied:
                raise NodeError(OUTPUT_MISFIT, f"the output {output.name} is missing")
            continue
        for misfit in conforms(outputs[output.name], output.schema)[:1]:
            raise NodeError(OUTPUT_MISFIT, f"the output {output.name}{misfit.pointer} {misfit.message}")
