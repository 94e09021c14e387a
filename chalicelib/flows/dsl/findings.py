"""What is wrong with a flow, collected: all of it, but not more than a reader or the memory can take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import escape
from chalicelib.flows.dsl.limits import MAX_REPORTED
from chalicelib.flows.dsl.spelling import Steps, original

RULES = (
    "start.count", "end.missing", "end.unreachable", "node.id", "node.type", "node.duplicate", "edge.dangling",
    "edge.handle", "graph.cycle", "graph.unreachable", "ref.node", "ref.output", "template.name", "literal.type",
    "param.schema", "output.custom", "flow.recursion",
)  # fmt: skip


@dataclass(frozen=True)
class FlowViolation:
    """One broken rule of a flow.

    Parameters
    ----------
    node
        Id of the node, as it was given; '' where the flow as a whole is meant.
    field
        What of the node: `id`, `inputs.<name>`, `outputs.<name>`, `nodeParam.<…>`, `retryConfig.<…>`; of an edge
        that leaves it `sourceNodeId`, `targetNodeId` or `sourceHandle`; of the graph `edges`.
    rule
        One of `RULES`.
    message
        For people; it may change.
    pointer
        RFC 6901 pointer into the flow's data, in the spelling of the data.
    """

    node: str
    field: str
    rule: str
    message: str
    pointer: str

    def violation(self) -> Violation:
        """The same for a problem document, which has no place for node and field but its message."""
        where = " ".join(part for part in (self.node, self.field) if part)
        return Violation(self.pointer, self.rule, f"{where}: {self.message}" if where else self.message)


@dataclass
class Findings:
    """Collects violations of a flow's data; keeps the first 1,000 and counts the rest."""

    data: Any = None
    kept: list[FlowViolation] = field(default_factory=list)
    total: int = 0

    @property
    def full(self) -> bool:
        """Whether a further one would only be counted."""
        return len(self.kept) >= MAX_REPORTED

    def add(self, rule: str, node: str, place: str, message: str, steps: Steps = ()) -> None:
        """Take one violation.

        Parameters
        ----------
        place
            Its `field`.
        steps
            The pointer, unescaped and in our spelling.
        """
        self.total += 1
        if not self.full:
            pointer = pointer_to(original(self.data, steps))
            self.kept.append(FlowViolation(shown(node, 300), shown(place, 300), rule, message, pointer))


def pointer_to(steps: Iterable[str | int]) -> str:
    """RFC 6901 pointer."""
    return "".join(f"/{escape(step)}" for step in steps)


def shown(text: str, length: int = 80) -> str:
    """A stranger's text as a message may repeat it: cut, and without surrogates that no answer can carry."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")
