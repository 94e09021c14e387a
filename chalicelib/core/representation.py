"""How values leave the service: RFC 3339 times, ids as strings, strong entity tags."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from chalicelib.core.errors import PreconditionFailed


def timestamp(value: datetime | None) -> str | None:
    """Return an aware datetime as RFC 3339 UTC with microseconds, None for None.

    Raises
    ------
    ValueError
        For a naive datetime: Python would take it for the machine's local time.
    """
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("a naive datetime is no moment")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and no white space: equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def entity_tag(resource: Any) -> str:
    """Return the strong ETag of a representation: a digest of it, so it changes exactly when the resource
    does."""
    return f'"{hashlib.sha256(canonical(resource)).hexdigest()[:32]}"'


def check_if_match(if_match: str | None, resource: Any) -> None:
    """Refuse a write whose author saw another state.

    Parameters
    ----------
    if_match
        The request's If-Match header, None where it sent none.
    resource
        The current representation, rendered **after** the row lock was taken; None where there is none yet.

    Raises
    ------
    errors.PreconditionFailed
        With the current ETag, so that the client can show what it would overwrite.
    """
    if if_match is None:
        return
    # RFC 9110 §13.1.1: `*` and tags alike name a representation that is there; a weak tag never matches.
    if resource is None:
        raise PreconditionFailed("There is no such resource yet.")
    current = entity_tag(resource)
    if if_match.strip() != "*" and current not in [tag.strip() for tag in if_match.split(",")]:
        raise PreconditionFailed("The resource has changed since it was read.", extensions={"etag": current})


def matches_if_none_match(if_none_match: str | None, tag: str) -> bool:
    """True where a GET may be answered 304 (weak comparison, RFC 9110 §13.1.2)."""
    if if_none_match is None:
        return False
    tags = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return "*" in tags or tag in tags
