"""Versions by Semantic Versioning 2.0 and the ranges that npm made common.

The library does the arithmetic; its grammar is looser than the standard (it takes `1.2.3` followed by a line
feed, and digits of other scripts), so texts pass the standard's own grammar first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from chalicelib.core import errors
from chalicelib.core.errors import Violation

MAX_VERSION_LENGTH = 32
MAX_RANGE_LENGTH = 256

# semver.org's suggested expression, with \d spelled out: Python's \d also matches digits of other scripts.
_VERSION = re.compile(
    r"(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
_RANGE = re.compile(r"[0-9A-Za-z.*+<>=~^| -]*")


@dataclass(frozen=True, eq=False)
class Version:
    """A parsed version. Comparison is SemVer precedence: build metadata does not count (SemVer 2.0 §10, §11).

    So `1.0.0+a == 1.0.0+b`; whether two registered versions are the same one is asked of `text`.
    """

    text: str
    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...]
    build: tuple[str, ...]
    _parsed: Any

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._core == other._core

    def __hash__(self) -> int:
        return hash(self._core)

    @property
    def _core(self) -> tuple[int, int, int, tuple[str, ...]]:
        return self.major, self.minor, self.patch, self.prerelease

    def __lt__(self, other: Version) -> bool:
        return bool(self._parsed.precedence_key < other._parsed.precedence_key)

    def __le__(self, other: Version) -> bool:
        return self < other or self == other

    def __gt__(self, other: Version) -> bool:
        return other < self

    def __ge__(self, other: Version) -> bool:
        return other <= self


def parse_version(text: str) -> Version:
    """`text` as a version.

    Raises
    ------
    errors.Invalid
        `semver.version`: longer than 32 characters or not SemVer 2.0.
    """
    if len(text) > MAX_VERSION_LENGTH:
        raise _refusal("semver.version", f"is longer than {MAX_VERSION_LENGTH} characters")
    if not _VERSION.fullmatch(text):
        raise _refusal("semver.version", "is not a semantic version such as 1.2.3 or 1.2.3-rc.1")
    from semantic_version import Version as Parsed

    # Build metadata must not count, and in the library's order it does.
    plain, _, build = text.partition("+")
    parsed = Parsed(plain)
    return Version(
        text=text,
        major=parsed.major,
        minor=parsed.minor,
        patch=parsed.patch,
        prerelease=tuple(parsed.prerelease),
        build=tuple(build.split(".")) if build else (),
        _parsed=parsed,
    )


def check_range(text: str) -> None:
    """Refuse a range that `satisfies` could not read.

    Raises
    ------
    errors.Invalid
        `semver.range`: longer than 256 characters or not an npm range (`^1.2`, `>=1.0.0 <2.0.0 || 3.x`, `*`).
    """
    _parse_range(text)


def satisfies(version: Version, range_text: str) -> bool:
    """Whether `version` lies in an npm range.

    As in npm, a prerelease only matches an alternative that itself names a prerelease of the same x.y.z: who
    asks for `^1.2.3-beta` did not ask for 1.5.0-rc.1 (the library alone would say yes).

    Raises
    ------
    errors.Invalid
        `semver.range`.
    """
    core = f"{version.major}.{version.minor}.{version.patch}-"
    return any(
        block.match(version._parsed) and (not version.prerelease or _names(core, text))
        for text, block in _parse_range(range_text)
    )


def _names(core: str, block: str) -> bool:
    return re.search(rf"(?<![0-9.]){re.escape(core)}[0-9A-Za-z]", block) is not None


def _parse_range(text: str) -> list[tuple[str, Any]]:
    """The alternatives of a range, each as its text and its parsed form."""
    if len(text) > MAX_RANGE_LENGTH:
        raise _refusal("semver.range", f"is longer than {MAX_RANGE_LENGTH} characters")
    if not _RANGE.fullmatch(text):
        raise _refusal("semver.range", "has a character that no range has")
    from semantic_version import NpmSpec

    # npm allows `>= 1.0.0` and several blanks; the library does neither.
    tidy = re.sub(r" +", " ", re.sub(r"([<>=~^]) +", r"\1", text))
    blocks = [block.strip() for block in tidy.split("||")]
    try:
        return [(block, NpmSpec(block)) for block in blocks]
    except ValueError:
        raise _refusal("semver.range", "is not a range such as ^1.2, >=1.0.0 <2.0.0 or *") from None


def _refusal(rule: str, message: str) -> errors.Invalid:
    found = [Violation("", rule, message)]
    return errors.Invalid(f"The version {message}.", code="semver.invalid", errors=found)
