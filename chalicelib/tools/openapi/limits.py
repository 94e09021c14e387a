"""How large a document may be; each limit beside what public documents need."""

from __future__ import annotations

from chalicelib.core.errors import Violation
from chalicelib.core.settings import ONE_MIB

MAX_BYTES = 5 * ONE_MIB
"""UTF-8 of the text; also of what its aliases write out. The largest public documents have 4 MB minified."""

MAX_DEPTH = 64
"""Levels of nesting; public documents have 22. Consumers recurse by it."""

MAX_NODES = 500_000
"""Values, those that aliases repeat counted each time; the largest public documents have 260,000."""

MAX_PATHS = 50_000_000
"""Characters of the JSON pointers to all objects and lists together, which the checks hold in memory for a moment. The
largest public documents have 15 million."""

MAX_REPORTED = 100


def too_large(pointer: str, count: int) -> Violation:
    """The violation of a document that holds more than its text may."""
    if count > MAX_NODES:
        return Violation(pointer, "document.size", f"holds more than {MAX_NODES} values")
    return Violation(pointer, "document.size", f"holds more than {MAX_BYTES} characters, written out")
