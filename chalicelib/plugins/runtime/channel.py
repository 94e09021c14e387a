"""Frames to and from a child that may be hostile: no read or write waits longer than the deadline, no frame
or log is larger than its limit, and a child that floods one pipe cannot block another."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Callable
from typing import Any

from chalicelib.plugins.runtime.faults import (
    MAX_RESULT_BYTES,
    ONE_MIB,
    Deadline,
    read_object,
    result_too_large,
    timed_out,
)
from chalicelib.plugins.runtime.log import Log

MAX_FRAME_BYTES = MAX_RESULT_BYTES + ONE_MIB
CHUNK = 64 * 1024
MOST_READS = 16
WATCH_INTERVAL_S = 0.2


class ChildEnded(Exception):
    """The child closed its pipe."""


def _nothing() -> None:
    """No watch is set."""


class Channel:
    """The runtime's ends of a child's pipes.

    `watch` is called about every WATCH_INTERVAL_S; it ends what goes on by raising. `frame_bytes` is the length of
    the last frame that was received.

    Parameters
    ----------
    outgoing, incoming, log
        Descriptors: written to, read from, and what the child's stdout and stderr lead to. Owned by the
        channel.
    """

    def __init__(self, outgoing: int, incoming: int, log: int) -> None:
        self._outgoing, self._incoming, self._log = outgoing, incoming, log
        self._received = bytearray()
        self.frame_bytes = 0
        self._log_open = True
        self._watch_at = 0.0
        self.watch: Callable[[], None] = _nothing
        for descriptor in (outgoing, incoming, log):
            os.set_blocking(descriptor, False)

    def send(self, frame: dict[str, Any], deadline: Deadline, log: Log) -> None:
        """Send one frame.

        Raises
        ------
        PluginFault
            `plugin.timeout`.
        ChildEnded
            The child is gone.
        """
        body = json.dumps(frame, ensure_ascii=False).encode("utf-8")
        rest = memoryview(struct.pack(">I", len(body)) + body)
        while rest:
            self._wait(deadline, log, writing=True)
            try:
                rest = rest[os.write(self._outgoing, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise ChildEnded from error

    def receive(self, deadline: Deadline, log: Log) -> dict[str, Any]:
        """Return the next frame.

        Raises
        ------
        PluginFault
            `plugin.timeout`, `plugin.result_too_large`, `plugin.bad_output`.
        ChildEnded
            The child is gone.
        """
        self._look(deadline)
        frame = self._frame()
        while frame is None:
            self._wait(deadline, log, writing=False)
            self._fill()
            frame = self._frame()
        self.drain(log)
        self.frame_bytes = len(frame)
        return read_object(frame)

    def drain(self, log: Log) -> None:
        """Take what the child has written to its log so far."""
        # What it writes meanwhile could go on for ever; what it had written before is in the first of these.
        for _ in range(MOST_READS):
            if not self._log_open or not self._read_log(log):
                return
            if len(select.select([self._log], [], [], 0)[0]) == 0:
                return

    def close(self) -> None:
        for descriptor in (self._outgoing, self._incoming, self._log):
            os.close(descriptor)

    def _frame(self) -> bytes | None:
        if len(self._received) < 4:
            return None
        (length,) = struct.unpack_from(">I", self._received)
        if length > MAX_FRAME_BYTES:
            raise result_too_large()
        if len(self._received) < 4 + length:
            return None
        frame = bytes(self._received[4 : 4 + length])
        del self._received[: 4 + length]
        return frame

    def _fill(self) -> None:
        try:
            piece = os.read(self._incoming, CHUNK)
        except BlockingIOError:
            return  # it was the log that had something
        if not piece:
            raise ChildEnded
        self._received += piece

    def _wait(self, deadline: Deadline, log: Log, *, writing: bool) -> None:
        """Wait for the wanted pipe, taking the log meanwhile: a child that waits for room in its log would
        never get to read its pipe."""
        reads = [self._log] if self._log_open else []
        while True:
            self._look(deadline)
            ready, writable, _ = select.select(
                [*reads, *([] if writing else [self._incoming])],
                [self._outgoing] if writing else [],
                [],
                min(WATCH_INTERVAL_S, deadline.left()),
            )
            if self._log in ready and not self._read_log(log):
                reads = []
            if writable or self._incoming in ready:
                return

    def _look(self, deadline: Deadline) -> None:
        """Raise where the child's time is over: asked before each wait and each frame, because a child that sends byte
        after byte, or frame after frame, never lets a wait end for want of something to read."""
        if deadline.passed:
            raise timed_out()
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch_at = now + WATCH_INTERVAL_S
            self.watch()

    def _read_log(self, log: Log) -> bool:
        try:
            piece = os.read(self._log, CHUNK)
        except BlockingIOError:
            return True
        self._log_open = bool(piece)
        log.write(piece)
        return self._log_open
