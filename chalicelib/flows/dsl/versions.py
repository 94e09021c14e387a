"""Version texts of flows: `v1.10.1`, compared segment by segment as numbers."""

from __future__ import annotations

import re

from chalicelib.core import errors
from chalicelib.core.errors import Violation

VERSION_PATTERN = r"^v?[0-9]{1,6}(\.[0-9]{1,6}){0,3}$"
SEGMENTS = 4
KEY_LENGTH = 24
"""Characters of a key: six digits a segment."""

# Not \d, which takes digits of other scripts, and matched to the very end: `$` also stands before a line feed.
_VERSION = re.compile(r"v?([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})")


def version_key(text: str) -> str:
    """The sortable form of a version: four segments of six digits, those that are missing being 0.

    The order of keys as texts is the order of versions as numbers, and equal versions (`1`, `v1.0`) have one key.

    Raises
    ------
    errors.Invalid
        `flow.version`.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        message = "is no version such as v1.2: one to four numbers of at most six digits"
        raise errors.Invalid(
            f"The version {message}.", code="flow.version", errors=[Violation("", "flow.version", message)]
        )
    segments = found[1].split(".")
    return "".join(segment.zfill(6) for segment in segments + ["0"] * (SEGMENTS - len(segments)))
