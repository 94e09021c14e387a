"""Nodes that have a body: what each pass through it begins with, and what all passes give together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chalicelib.flows.dsl.model import ITERATION, LOOP, START_PARAMETERS, Node
from chalicelib.flows.engine.conditions import holds
from chalicelib.flows.engine.errors import ITERATION_FAILED, NodeError
from chalicelib.flows.engine.inputs import by_id

MAX_ITEMS = 10_000
DEFAULT_CONCURRENCY = 8


class Passes(Protocol):
    """The passes of one iteration or loop."""

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """Return the number of a pass that may begin now, and what it begins with; None while none may."""
        ...

    def ended(self, number: int, result: Mapping[str, Any] | None) -> None:
        """Take notice of what the end of a pass gave; None where it was not reached."""
        ...

    def outputs(self) -> dict[str, Any] | None:
        """Return the node's outputs; None while passes are missing."""
        ...


class Items:
    """One pass for each item of the iterated arrays, several at a time.

    Raises
    ------
    NodeError
        23200: an input that is declared as an array is none, or they differ in length, or there are more than 10,000
        items.
    """

    def __init__(self, node: Node, inputs: Mapping[str, Any]) -> None:
        self._node = node
        arrays = {given.name for given in node.inputs if given.schema["type"] == "array"}
        wrong = sorted(name for name in arrays if not isinstance(inputs[name], list))
        if wrong or not arrays:
            what = f"{', '.join(wrong)} is no array" if wrong else "no input is an array"
            raise NodeError(ITERATION_FAILED, what, is_transient=False)
        lengths = {len(inputs[name]) for name in arrays}
        if len(lengths) > 1:
            raise NodeError(ITERATION_FAILED, "the arrays differ in length", is_transient=False)
        self._count = lengths.pop()
        if self._count > MAX_ITEMS:
            message = f"{self._count} items are more than {MAX_ITEMS}"
            raise NodeError(ITERATION_FAILED, message, is_transient=False)
        self._inputs, self._arrays = inputs, arrays
        self._room = int(node.params.get("maxConcurrency", DEFAULT_CONCURRENCY))
        self._begun = self._done = 0
        self._results: list[Mapping[str, Any] | None] = [None] * self._count

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        if self._begun == self._count or self._begun - self._done >= self._room:
            return None
        item = self._begun
        self._begun += 1
        given = {name: value[item] if name in self._arrays else value for name, value in self._inputs.items()}
        return item, given

    def ended(self, number: int, result: Mapping[str, Any] | None) -> None:
        self._results[number] = result
        self._done += 1

    def outputs(self) -> dict[str, Any] | None:
        if self._done < self._count:
            return None
        return {
            output.name: [None if one is None else one.get(output.name) for one in self._results]
            for output in self._node.outputs
        }


class Rounds:
    """One pass after the other, each with the values of the one before, until a condition holds or the count is
    reached."""

    def __init__(self, node: Node, inputs: Mapping[str, Any]) -> None:
        self._node = node
        self._variables = dict(inputs)
        self._begun = self._done = 0
        self._is_over = False

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        if self._is_over or self._begun > self._done:
            return None
        self._begun += 1
        return self._done, dict(self._variables)

    def ended(self, number: int, result: Mapping[str, Any] | None) -> None:
        self._variables.update(result or {})
        self._done += 1
        until = self._node.params.get("until")
        met = until is not None and holds(until, by_id(self._node, self._variables))
        self._is_over = met or self._done >= self._node.params["maxCount"]

    def outputs(self) -> dict[str, Any] | None:
        if not self._is_over:
            return None
        return {output.name: self._variables.get(output.name) for output in self._node.outputs}


PASSES: Mapping[str, Callable[[Node, Mapping[str, Any]], Passes]] = {ITERATION: Items, LOOP: Rounds}


def start_of(node: Node) -> str:
    """Return the id of the node that begins a node's body."""
    return str(node.params[START_PARAMETERS[node.type]])
