"""Paths into values, `a.b[1].c`: what references and templates have in common."""

from __future__ import annotations

import re

from chalicelib.flows.dsl.limits import MAX_STEPS

Path = tuple[str | int, ...]

NAME_CHARACTERS = r"""[^\s.\[\]{}|"':]"""
"""What a name may hold: anything but what ends one in a path or a template."""

# Possessive: a step once read is never given back, so reading is linear.
_STEP = re.compile(rf"(\.)?({NAME_CHARACTERS}++)|\[([0-9]{{1,9}}+)\]")


class PathError(ValueError):
    """A text that is no path."""


def parse_path(text: str) -> Path:
    """The steps of a path, names as texts and indices as numbers.

    Raises
    ------
    PathError
        It is empty, malformed, or has more than 64 steps.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None or not _fits(found, first=not steps):
            raise PathError(f"is no path such as a.b[1] at character {position + 1}")
        if len(steps) == MAX_STEPS:
            raise PathError(f"has more than {MAX_STEPS} steps")
        steps.append(int(found[3]) if found[3] is not None else found[2])
        position = found.end()
    if not steps:
        raise PathError("is empty")
    return tuple(steps)


def _fits(found: re.Match[str], *, first: bool) -> bool:
    """A path begins with a bare name; every further name has its dot."""
    if found[3] is not None:
        return not first
    return (found[1] is None) == first
