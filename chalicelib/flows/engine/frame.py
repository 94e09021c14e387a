"""One pass through one body: which nodes may run, which never will, and what those that ran gave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.flows.dsl.model import Edge
from chalicelib.flows.engine.call import Scope
from chalicelib.flows.engine.plan import Body, Plan

Rank = tuple[int, ...]
"""Sorts what happened in graph order, however deep."""
Takes = Callable[[Edge], bool]


class Frame:
    """Readiness and values of one pass.

    A node is ready once all its incoming edges are decided and at least one was taken; with none taken it is skipped,
    and its own edges are decided as not taken. Each edge is decided once, so a pass is linear in nodes and edges.

    Parameters
    ----------
    number
        Frames are numbered as they are opened; with a node's own number that is the order in which ready nodes begin.
    prefix
        What stands before the ids of its nodes in their keys: `` or `iteration::1[3]/`.
    rank
        Of the node that opened it, with the item: () for the run's own flow.
    parent, outer
        The frame of the node that opened it, None for the run's own; and the same where its values are seen inside,
        which those outside a sub-flow are not.
    begins_with
        What the start node of the body gives.
    """

    def __init__(
        self,
        plan: Plan,
        body: Body,
        scope: Scope,
        *,
        number: int = 0,
        prefix: str = "",
        rank: Rank = (),
        parent: Frame | None = None,
        outer: Frame | None = None,
        begins_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.body, self.scope = plan, body, scope
        self.number, self.prefix, self.rank = number, prefix, rank
        self.parent, self.outer = parent, outer
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.begins_with = begins_with or {}
        self.home: Frame = self if outer is None else outer.home
        self.values: dict[str, Mapping[str, Any]] = {}
        self.ends: list[tuple[int, Mapping[str, Any]]] = []
        """Of the end nodes that ran: number and inputs."""
        self.contents: list[tuple[Rank, str]] = []
        """Of a home frame: what messages and end nodes said, in the order of time."""
        self.is_closed = False
        self._waiting = list(body.incoming)
        self._taken = bytearray(len(body.nodes))
        self.undecided = len(body.nodes)

    def begin(self) -> list[int]:
        """Return the nodes that wait for nothing."""
        return [number for number, count in enumerate(self.body.incoming) if count == 0]

    def settle(self, number: int, takes: Takes) -> list[int]:
        """Take notice that a node has ended, follow those of its edges that `takes` says; return what became ready."""
        ready: list[int] = []
        ended = deque([(number, takes)])
        while ended:
            node, chosen = ended.popleft()
            self.undecided -= 1
            for edge, target in self.body.out[node]:
                self._taken[target] |= chosen(edge)
                self._waiting[target] -= 1
                if self._waiting[target]:
                    continue
                if self._taken[target]:
                    ready.append(target)
                else:
                    ended.append((target, _nothing))
        return ready

    def found(self, node_id: str) -> Mapping[str, Any] | None:
        """Return what a node gave, here or further out; None where it did not run."""
        frame: Frame | None = self
        while frame is not None:
            if node_id in frame.values:
                return frame.values[node_id]
            frame = frame.outer
        return None

    def key(self, number: int) -> str:
        """Return the key of a node in this run."""
        return self.prefix + self.body.nodes[number].id

    def close(self) -> None:
        """Let nothing that still runs in it, or further in, have any effect."""
        self.is_closed = True

    @property
    def is_open(self) -> bool:
        """Whether neither it nor a frame that it stands in was closed."""
        frame: Frame | None = self
        while frame is not None:
            if frame.is_closed:
                return False
            frame = frame.parent
        return True

    def result(self) -> Mapping[str, Any] | None:
        """Return the inputs of the end node that ran, of several the first in graph order; None where none did."""
        return min(self.ends, key=lambda end: end[0])[1] if self.ends else None


def _nothing(_edge: Edge) -> bool:
    return False
