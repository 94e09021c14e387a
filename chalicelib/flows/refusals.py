"""The problems that more than one module of flows answers with."""

from __future__ import annotations

from chalicelib.core.errors import Conflict, NotFound


def not_found() -> NotFound:
    """Return the 404 for a flow, also for another tenant's."""
    return NotFound("There is no such flow.", code="flow.not_found")


def not_published() -> NotFound:
    """Return the 404 for a flow of which nothing, or not the version that is named, is published."""
    return NotFound("The flow is not published in that version, or not at all.", code="flow.not_published")


def version_not_found() -> NotFound:
    """Return the 404 for a version or a comparison."""
    return NotFound("The flow has no such version.", code="flow.version_not_found")


def version_exists(what: str) -> Conflict:
    """Return the 409 for a number that is taken: v1 and v1.0 are one."""
    return Conflict(f"The number is that of {what}.", code="flow.version_exists")
