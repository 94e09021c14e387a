"""The sequential model of one plugin, and the one order in which its acknowledged writes took effect.

Every write to a plugin is made under the lock of its row. What the answers show witnesses the order: each change of
the registration raises `generation` by one, and each change of a config is stamped (`updateTime`) under the same lock.
A write whose answer shows no generation (an update by way of the queue) is placed by the plugin's own history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

ENABLED, DISABLED = "enabled", "disabled"
# Sorts after every RFC 3339 time: nothing happens to a plugin after its uninstall.
END_OF_TIME = "~"


@dataclass(frozen=True)
class Registered:
    """A plugin's registration."""

    generation: int
    version: str
    status: str
    grants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configured:
    """The app's one stored config of a plugin."""

    value: str
    is_default: bool


@dataclass(frozen=True)
class State:
    """A plugin at one moment; `registered` is None before its install and after its uninstall."""

    registered: Registered | None
    configured: Configured | None = None

    @property
    def in_force(self) -> str | None:
        """The config value that an execution gets."""
        if self.registered is None:
            return None
        if self.configured is not None and self.configured.is_default:
            return self.configured.value
        return default_value(self.registered.version)


def default_value(version: str) -> str:
    """Return the value in the defaultConfig of a version: it names the version, so that a mixture shows."""
    return f"default of {version}"


@dataclass(frozen=True)
class Write:
    """A write, and what its answer showed.

    Parameters
    ----------
    action
        install, update, rollback, enable, disable, grant, config or uninstall.
    began, ended
        When the request was sent and its answer was there, in seconds of one monotonic clock; an infinite end is a
        write that was not acknowledged, and may have happened or not.
    stamp
        The `updateTime` that the answer showed.
    registered
        The registration that the answer showed; None for a config, an uninstall, and an update by way of the queue.
    configured
        The config that the answer showed.
    version, hosts
        What was asked for: the version of an install, update or rollback, the hosts of a grant.
    """

    action: str
    began: float
    ended: float
    stamp: str = END_OF_TIME
    registered: Registered | None = None
    configured: Configured | None = None
    version: str = ""
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of the plugin's history that the service keeps, configs left out: the n-th made generation n."""

    action: str
    version: str
    at: str


@dataclass(frozen=True)
class Moment:
    """A state in the timeline, the earliest time at which it can have come about, and when it was acknowledged."""

    state: State
    possible_from: float
    known_by: float


@dataclass
class Timeline:
    """All states of one plugin in their order, the first being its absence; `problems` contradict any order."""

    moments: list[Moment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Step:
    """What made a state: its place in the order, when it was first asked for and first acknowledged."""

    stamp: str
    began: float
    ended: float
    write: Write


def timeline(writes: Iterable[Write], lines: Sequence[Line], asked_hosts: tuple[str, ...] = ()) -> Timeline:
    """Order a plugin's writes and run them through the sequential model.

    Parameters
    ----------
    lines
        The plugin's own history, oldest first.
    asked_hosts
        What its manifest asks for: a grant that takes one of them away disables it.
    """
    result = Timeline([Moment(State(None), float("-inf"), float("-inf"))])
    writes = list(writes)
    steps = _registrations(writes, lines, asked_hosts, result.problems)
    steps += [
        _Step(write.stamp, write.began, write.ended, write) for write in writes if write.action == "config"
    ]
    gone = [write for write in writes if write.action == "uninstall"]
    if len(gone) > 1:
        result.problems.append("it was uninstalled twice")
    steps += [_Step(END_OF_TIME, write.began, write.ended, write) for write in gone[:1]]
    state, possible_from = State(None), float("-inf")
    for step in sorted(steps, key=lambda step: step.stamp):
        write = step.write
        if write.action == "config":
            state = replace(state, configured=write.configured)
        elif write.action == "uninstall":
            state = State(None)
        else:
            state = replace(state, registered=write.registered)
        # It came after everything that stands before it.
        possible_from = max(possible_from, step.began)
        result.moments.append(Moment(state, possible_from, step.ended))
    return result


def _registrations(
    writes: list[Write], lines: Sequence[Line], asked: tuple[str, ...], problems: list[str]
) -> list[_Step]:
    """Return the step that made each generation, and note what does not fit."""
    shown: dict[int, list[Write]] = {}
    queued: dict[str, Write] = {}
    for write in writes:
        if write.registered is not None:
            shown.setdefault(write.registered.generation, []).append(write)
        elif write.action == "update":
            queued[write.version] = write
    steps: list[_Step] = []
    before: Registered | None = None
    for generation in range(1, max([len(lines), *shown, 0]) + 1):
        line = lines[generation - 1] if generation <= len(lines) else None
        group = shown.get(generation, [])
        if line is not None and line.action == "update" and line.version in queued:
            # The task told its publisher, but not which generation it made; answers that show it come from no-ops.
            write = queued.pop(line.version)
            after = group[0].registered if group else _expected(before, write, asked)
            stamp = group[0].stamp if group else line.at
            group = [replace(write, registered=after, stamp=stamp), *group]
        if not group:
            problems.append(f"nobody asked for generation {generation} ({line})")
            continue
        began, ended = min(write.began for write in group), min(write.ended for write in group)
        steps.append(_Step(group[0].stamp, began, ended, group[0]))
        problems += _contradictions(before, group, line, asked)
        before = group[0].registered
    problems += [
        f"the update to {version} was acknowledged and is in no history"
        for version, write in queued.items()
        if write.ended < inf
    ]
    if [step.stamp for step in steps] != sorted(step.stamp for step in steps):
        problems.append("update times do not rise with the generations")
    return steps


def _contradictions(
    before: Registered | None, group: list[Write], line: Line | None, asked: tuple[str, ...]
) -> list[str]:
    after = group[0].registered
    assert after is not None
    found = [
        f"generation {after.generation} was shown as {other.registered} and as {after}"
        for other in group
        if other.registered != after
    ]
    if not any(_expected(before, write, asked) == after for write in group):
        actions = ", ".join(write.action for write in group)
        found.append(f"{actions} made {after} of {before}")
    if line is not None and line.version != after.version:
        found.append(f"the history says {line} of what was shown as {after}")
    return found


def _expected(before: Registered | None, write: Write, asked: tuple[str, ...]) -> Registered | None:
    """Return what the sequential model makes of a write, None where it cannot happen."""
    if write.action == "install":
        return Registered(1, write.version, DISABLED) if before is None else None
    if before is None:
        return None
    after = replace(before, generation=before.generation + 1)
    if write.action in ("update", "rollback"):
        return replace(after, version=write.version)
    if write.action == "enable":
        return replace(after, status=ENABLED) if before.status != ENABLED else None
    if write.action == "disable":
        return replace(after, status=DISABLED) if before.status != DISABLED else None
    if write.action == "grant":
        lost = any(host not in write.hosts for host in asked)
        status = DISABLED if lost and before.status == ENABLED else before.status
        return replace(after, grants=tuple(sorted(write.hosts)), status=status)
    raise ValueError(write.action)
