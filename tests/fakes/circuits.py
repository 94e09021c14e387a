"""Circuits in memory, as several processes share them; each process sees what it last refreshed."""

from __future__ import annotations

from datetime import datetime

from chalicelib.core.errors import Unavailable
from chalicelib.core.outbound.circuit import Circuit

Key = tuple[int, str]


class MemoryCircuits:
    """One process's view. `away` makes it fail as a database that is away, `read_only` only where
    it writes."""

    def __init__(self, stored: dict[Key, Circuit] | None = None) -> None:
        self.stored: dict[Key, Circuit] = {} if stored is None else stored
        self.away = False
        self.read_only = False
        self.swaps = 0
        self._known: dict[Key, Circuit] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take notice of what others changed, as a request does at its beginning."""
        self._known = dict(self.stored)

    def get(self, app_id: int, host: str) -> Circuit:
        self._check()
        return self._known.get((app_id, host), Circuit())

    def swap(
        self, app_id: int, host: str, seen: Circuit, changed: Circuit, now: datetime
    ) -> tuple[bool, Circuit]:
        self._check(self.read_only)
        self.swaps += 1
        key = (app_id, host)
        swapped = self.stored.get(key, Circuit()).is_same(seen)
        if swapped:
            self.stored[key] = changed
        self._known[key] = self.stored.get(key, Circuit())
        return swapped, self._known[key]

    def _check(self, refused: bool = False) -> None:
        if self.away or refused:
            raise Unavailable("The database cannot be reached.", code="database.away", retry_after=2)
