"""What the clients of one run saw: writes, observations and faults, by plugin, with their intervals."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.e2e.history.checker import Observation, Violation, absent, check
from tests.e2e.history.model import Line, State, Write, timeline


@dataclass
class _Life:
    """All that was seen of one pluginId."""

    asked_hosts: tuple[str, ...] = ()
    writes: list[Write] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    lines: Sequence[Line] = ()


class Recorder:
    """Collects from many threads; `violations` judges it all once they have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lives: defaultdict[str, _Life] = defaultdict(_Life)
        self._listings: list[tuple[float, float, dict[str, Callable[[State], bool]]]] = []
        self.operations: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        # Writes that took effect, and answers that were judged, by what they were.
        self.done: Counter[str] = Counter()
        self.shown: Counter[str] = Counter()
        self.faults: list[str] = []

    def count(self, kind: str) -> None:
        """Count one operation."""
        with self._lock:
            self.operations[kind] += 1

    def refused(self, kind: str, code: str) -> None:
        """Count an answer that changed nothing."""
        with self._lock:
            self.refusals[f"{kind}: {code}"] += 1

    def fault(self, text: str) -> None:
        """Keep an answer that must not occur at all."""
        with self._lock:
            self.faults.append(text)

    def asks(self, plugin_id: str, hosts: tuple[str, ...]) -> None:
        """Note what a plugin's manifest asks for."""
        with self._lock:
            self._lives[plugin_id].asked_hosts = hosts

    def wrote(self, plugin_id: str, write: Write) -> None:
        """Record an acknowledged write."""
        with self._lock:
            self._lives[plugin_id].writes.append(write)
            self.done[write.action] += 1

    def saw(self, plugin_id: str, observation: Observation) -> None:
        """Record what an answer showed."""
        with self._lock:
            self._lives[plugin_id].observations.append(observation)
            self.shown[observation.what.partition(" →")[0]] += 1

    def listed(self, began: float, ended: float, items: dict[str, Callable[[State], bool]]) -> None:
        """Record a complete listing: what it does not name was absent."""
        with self._lock:
            self._listings.append((began, ended, items))
            self.shown["GET /plugins"] += 1

    def knows(self, plugin_id: str, lines: Sequence[Line]) -> None:
        """Record the history that the service keeps of a plugin, complete and oldest first."""
        with self._lock:
            self._lives[plugin_id].lines = lines

    @property
    def total(self) -> int:
        """How many operations there were."""
        return sum(self.operations.values())

    def violations(self) -> list[Violation]:
        """Return everything that no order of the acknowledged writes explains."""
        found: list[Violation] = []
        for plugin_id, life in self._lives.items():
            order = timeline(life.writes, life.lines, life.asked_hosts)
            listings = [
                Observation("GET /plugins", began, ended, items.get(plugin_id, absent))
                for began, ended, items in self._listings
            ]
            found += check(plugin_id, order, [*life.observations, *listings])
        return found
