"""Versions of tools: `V1.0`, `2`, `V1.10.3`. They compare as numbers, segment by segment, so V1.10 is above V1.9."""

from __future__ import annotations

import re

from chalicelib.core import errors
from chalicelib.core.errors import Violation

MAX_VERSION_LENGTH = 32
VERSION_PATTERN = r"^V?[0-9]+([.][0-9]+){0,3}$"
_VERSION = re.compile(VERSION_PATTERN[1:-1], re.ASCII)
_SEGMENTS = 4

# What two spellings of one version have in common: V1, 1 and V1.0.0 are the same number.
VersionKey = tuple[int, int, int, int]


def parse_version(text: str, pointer: str = "/version") -> VersionKey:
    """Return the number that a version stands for; what is not written counts as 0.

    Raises
    ------
    errors.Invalid
        `tool.invalid_version`
    """
    if len(text) > MAX_VERSION_LENGTH or not _VERSION.fullmatch(text):
        message = f"does not match {VERSION_PATTERN} or is longer than {MAX_VERSION_LENGTH} characters"
        raise errors.Invalid(
            "The version does not hold.",
            code="tool.invalid_version",
            errors=[Violation(pointer, "tool.version", message)],
        )
    numbers = [int(segment) for segment in text.removeprefix("V").split(".")]
    first, second, third, fourth = numbers + [0] * (_SEGMENTS - len(numbers))
    return first, second, third, fourth
