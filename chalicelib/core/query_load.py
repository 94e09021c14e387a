"""How much a process asks of the database: connections made, statements sent, and the time they took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@dataclass(frozen=True)
class Load:
    """What happened since the last look; `busy_ms` in milliseconds."""

    connections: int
    statements: int
    busy_ms: float


class QueryLoad:
    """Counts on an engine's events, about two microseconds a statement."""

    def __init__(self, engine: Engine) -> None:
        self._connections = self._statements = 0
        self._busy_s = self._began = 0.0
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "before_cursor_execute", self._on_begin)
        event.listen(engine, "after_cursor_execute", self._on_end)

    def _on_connect(self, *_: Any) -> None:
        self._connections += 1

    def _on_begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _on_end(self, *_: Any) -> None:
        self._statements += 1
        self._busy_s += time.perf_counter() - self._began

    def take(self) -> Load:
        """Return what was counted since the last call."""
        load = Load(self._connections, self._statements, round(self._busy_s * 1000, 3))
        self._connections = self._statements = 0
        self._busy_s = 0.0
        return load
