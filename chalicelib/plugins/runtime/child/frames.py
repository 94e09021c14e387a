"""The pipe to the runtime: frames of JSON, and how a fault is told."""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, NoReturn

MAX_RESULT_BYTES = 5 * 1024 * 1024
MAX_MESSAGE = 2_000


class Pipe:
    """Length-prefixed JSON to and from the runtime."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def receive(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(4))
        frame = json.loads(self._exactly(length))
        return frame if isinstance(frame, dict) else {}

    def send(self, frame: bytes) -> None:
        rest = memoryview(struct.pack(">I", len(frame)) + frame)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]

    def _exactly(self, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.read(self._incoming, length)
            if not piece:
                os._exit(0)  # the runtime is gone, or done with us
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


def error(kind: str, code: str, message: str, data: Any = None, *, turn: str | None = None) -> bytes:
    """Return the frame of a fault; data that is no JSON is left out."""
    found = {"kind": kind, "code": code, "message": message[:MAX_MESSAGE], "data": data}
    try:
        return json.dumps({"turn": turn, "error": found}, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return json.dumps({"turn": turn, "error": {**found, "data": None}}).encode()


def fail(pipe: Pipe, kind: str, code: str, message: str) -> NoReturn:
    """Tell the runtime why there is no child to work with, and end."""
    flush()
    pipe.send(error(kind, code, message))
    os._exit(1)


def flush() -> None:
    """Let what was printed so far reach the log."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # The plugin closed or replaced it: its log ends here.
            continue
