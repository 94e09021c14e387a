"""In which order agents are loaded: by name of their folders, and each after those that it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def in_order(dependencies: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the names in the order to load them, and those that depend on themselves.

    Parameters
    ----------
    dependencies
        What each depends on, in the order to keep where dependencies leave a choice; names that are no key do not
        count.

    Returns
    -------
    tuple
        Names that lie on a circle are only in the second list; those that depend on such a one come where they would
        without it.
    """
    circular = [name for name in dependencies if name in _reachable(dependencies, name)]
    waiting = [name for name in dependencies if name not in set(circular)]
    ordered: list[str] = []
    while waiting:
        # There is always one: what remains has no circle.
        following = next(name for name in waiting if not set(dependencies[name]) & set(waiting))
        waiting.remove(following)
        ordered.append(following)
    return ordered, circular


def _reachable(dependencies: Mapping[str, Sequence[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for name in dependencies.get(ahead.pop(), ()):
            if name not in found:
                found.add(name)
                ahead.append(name)
    return found
