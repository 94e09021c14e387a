"""The open frames of a run: which of their nodes are ready to begin, and what each frame was opened for."""

from __future__ import annotations

import heapq
from typing import Any

from chalicelib.flows.engine.call import Scope
from chalicelib.flows.engine.frame import Frame
from chalicelib.flows.engine.owners import Owner
from chalicelib.flows.engine.plan import Body, Plan


class Frames:
    """Numbers frames as they are opened, and gives their ready nodes in that order and in the order of their flow."""

    def __init__(self) -> None:
        self._opened = 0
        # No two entries have the same two numbers, so frames are never compared.
        self._ready: list[tuple[int, int, Frame]] = []
        self._owners: dict[int, tuple[Owner, int]] = {}

    def open(self, plan: Plan, body: Body, scope: Scope, **more: Any) -> Frame:
        """Open a frame, and let the nodes of it that wait for nothing be ready; `more` is for `Frame`."""
        frame = Frame(plan, body, scope, number=self._opened, **more)
        self._opened += 1
        self.push(frame, frame.begin())
        return frame

    def push(self, frame: Frame, numbers: list[int]) -> None:
        """Let nodes of a frame be ready."""
        for number in numbers:
            heapq.heappush(self._ready, (frame.number, number, frame))

    def next(self) -> tuple[Frame, int] | None:
        """Return the node that begins next; None where none is ready. What a closed frame left is passed over."""
        while self._ready:
            _, number, frame = heapq.heappop(self._ready)
            if frame.is_open:
                return frame, number
        return None

    def own(self, owner: Owner, frame: Frame, item: int) -> None:
        """Note what a frame was opened for: a pass of its owner, by its number."""
        owner.open[frame.number] = frame
        self._owners[frame.number] = (owner, item)

    def owner_of(self, frame: Frame) -> Owner | None:
        """Return what a frame was opened for; None for the run's own flow, and for a frame that was closed."""
        owned = self._owners.get(frame.number)
        return None if owned is None else owned[0]

    def end(self, frame: Frame) -> tuple[Owner, int] | None:
        """Take notice that a frame has ended; return its owner and the number of the pass, as `owner_of` does."""
        owned = self._owners.pop(frame.number, None)
        if owned is not None:
            del owned[0].open[frame.number]
        return owned

    def close(self, owner: Owner) -> None:
        """Close all frames of an owner: nothing within them has any effect from now on."""
        for frame in owner.open.values():
            frame.close()
            del self._owners[frame.number]
