"""From what a call gave to the declared outputs of its node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import escape
from chalicelib.flows.dsl.model import Node, Output
from chalicelib.flows.dsl.values import MISSING, conforms, default_of
from chalicelib.flows.engine.errors import OUTPUT_MISFIT, NodeError

MOST_TOLD = 5


def outputs_of(node: Node, value: Any, what: str) -> dict[str, Any]:
    """Return the declared outputs of a node, by name; what is not declared is left out.

    Each is the member of its name. One that is the only one, and no member, is the whole value. A member that is not
    there, or null, is the output's default, unless the output is `required`.

    Parameters
    ----------
    what
        What the value is, for the message: "The answer".

    Raises
    ------
    NodeError
        20601: it does not fit.
    """
    declared = node.outputs
    if len(declared) == 1 and not (isinstance(value, dict) and declared[0].name in value):
        return fitting({declared[0].name: value}, declared, what)
    if declared and not isinstance(value, dict):
        raise NodeError(OUTPUT_MISFIT, f"{what} is no object, and the node declares {len(declared)} outputs.")
    return fitting({one.name: value.get(one.name) for one in declared}, declared, what)


def fitting(values: Mapping[str, Any], declared: Sequence[Output], what: str) -> dict[str, Any]:
    """Return the values of the declared outputs, with defaults for None; see `outputs_of`."""
    found = {one.name: _or_default(values.get(one.name), one) for one in declared}
    misfits = [misfit for one in declared for misfit in _misfits(found[one.name], one)]
    if misfits:
        raise NodeError(OUTPUT_MISFIT, f"{what} does not fit the node's outputs: {told(misfits)}.")
    return found


def misfits_of(values: Mapping[str, Any], declared: Sequence[Output]) -> list[Violation]:
    """Return what is wrong with values that must all be there and be as declared."""
    return [misfit for one in declared for misfit in _misfits(values.get(one.name, MISSING), one)]


def told(violations: Sequence[Violation]) -> str:
    """Return the first violations as one text."""
    shown = "; ".join(f"{one.pointer} {one.message}".strip() for one in violations[:MOST_TOLD])
    rest = len(violations) - MOST_TOLD
    return f"{shown}; and {rest} more" if rest > 0 else shown


def _or_default(value: Any, output: Output) -> Any:
    if value is not None:
        return value
    return MISSING if output.required else default_of(output.schema)


def _misfits(value: Any, output: Output) -> Iterator[Violation]:
    place = f"/{escape(output.name)}"
    if value is MISSING:
        yield Violation(place, "schema.required", "is missing")
        return
    for one in conforms(value, output.schema):
        yield Violation(place + one.pointer, one.rule, one.message)
