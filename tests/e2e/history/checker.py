"""Whether what readers saw can be explained: linearizability of one plugin whose writes have a known order.

A read may show any state that was possibly current while it ran. It must not show one older than what was known
before it began: the answer to a write that was acknowledged before, or what an earlier read had already shown. Reads
are placed as early as they can be, in the order of their ends; where the writes' order is known this finds an
explanation whenever there is one (Gibbons and Korach, Testing Shared Memories, 1997).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.e2e.history.model import DISABLED, ENABLED, Configured, Registered, State, Timeline

STALE, FUTURE, NEVER, ORDER = "stale", "future", "never", "order"


@dataclass(frozen=True)
class Observation:
    """What one answer showed of one plugin.

    Parameters
    ----------
    what
        Says which request it was, for the report.
    began, ended
        When the request was sent and its answer was there.
    fits
        Whether a state explains the answer.
    """

    what: str
    began: float
    ended: float
    fits: Callable[[State], bool]


@dataclass(frozen=True)
class Violation:
    """An answer that no order explains. `kind`: `stale` (only states that were over before it began explain it),
    `future` (only states that nobody had asked for yet), `never` (no state at all), `order` (the writes themselves)."""

    kind: str
    plugin_id: str
    text: str


def shows(registered: Registered) -> Callable[[State], bool]:
    """Fit states with exactly this registration."""
    return lambda state: state.registered == registered


def lists(generation: int, version: str, status: str) -> Callable[[State], bool]:
    """Fit states that a listing shows like this."""

    def fits(state: State) -> bool:
        now = state.registered
        return now is not None and (now.generation, now.version, now.status) == (generation, version, status)

    return fits


def holds(configured: Configured) -> Callable[[State], bool]:
    """Fit states with exactly this config stored."""
    return lambda state: state.configured == configured


def no_config(state: State) -> bool:
    """Fit states without a stored config."""
    return state.configured is None


def executed(version: str, value: str) -> Callable[[State], bool]:
    """Fit states in which a run executes this version with this config value."""

    def fits(state: State) -> bool:
        now = state.registered
        return now is not None and (now.status, now.version, state.in_force) == (ENABLED, version, value)

    return fits


def refused(state: State) -> bool:
    """Fit states in which a run is refused because the plugin is disabled."""
    return state.registered is not None and state.registered.status == DISABLED


def absent(state: State) -> bool:
    """Fit states in which there is no such plugin."""
    return state.registered is None


def check(plugin_id: str, timeline: Timeline, observations: Iterable[Observation]) -> list[Violation]:
    """Return every observation of one plugin that its timeline does not explain."""
    found = [Violation(ORDER, plugin_id, problem) for problem in timeline.problems]
    possible_from = [moment.possible_from for moment in timeline.moments]
    pending = sorted(observations, key=lambda one: one.began)
    # (when, moment): the acknowledgements, and the first moment that explains what was seen so far. Whatever of it was
    # over before a read began bounds that read.
    running = [(moment.known_by, index) for index, moment in enumerate(timeline.moments)]
    floor = 0
    for one in pending:
        known = [item for item in running if item[0] < one.began]
        running = [item for item in running if item[0] >= one.began]
        floor = max([floor, *(index for _, index in known)])
        ceiling = bisect_right(possible_from, one.ended)
        fitting = [index for index, moment in enumerate(timeline.moments) if one.fits(moment.state)]
        first = next((index for index in fitting if floor <= index < ceiling), None)
        if first is None:
            found.append(_violation(plugin_id, timeline, one, fitting, floor, ceiling))
        else:
            running.append((one.ended, first))
    return found


def _violation(
    plugin_id: str, timeline: Timeline, one: Observation, fitting: list[int], floor: int, ceiling: int
) -> Violation:
    if not fitting:
        kind = NEVER
    elif fitting[0] >= ceiling:
        kind = FUTURE
    else:
        # Both an earlier and a later state fit: the earlier one is what a forgotten entry would show.
        kind = STALE
    states = [f"{index}: {timeline.moments[index].state}" for index in fitting[-2:]]
    last = timeline.moments[floor].state
    text = f"{one.what} in [{one.began:.4f}, {one.ended:.4f}]; fits {states}; known before it began {floor}: {last}"
    return Violation(kind, plugin_id, text)
