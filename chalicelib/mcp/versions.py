"""The protocol revisions that are spoken, and what each of them knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Version:
    """One revision of the Model Context Protocol.

    Parameters
    ----------
    name
        As it stands on the wire.
    modern
        Every request carries its own version and capabilities; before, an `initialize` handshake settled them.
    batches
        A body may be an array of messages.
    annotations
        A tool has hints about what it does.
    structured
        Which results are also given as a JSON value, with a schema of it and a title for the tool.
    """

    name: str
    modern: bool = False
    batches: bool = False
    annotations: bool = True
    structured: Literal["none", "object", "any"] = "object"


VERSIONS = (
    Version("2024-11-05", annotations=False, structured="none"),
    Version("2025-03-26", batches=True, structured="none"),
    Version("2025-06-18"),
    Version("2025-11-25"),
    Version("2026-07-28", modern=True, structured="any"),
)
BY_NAME = {version.name: version for version in VERSIONS}
HANDSHAKE = tuple(version for version in VERSIONS if not version.modern)
MODERN = VERSIONS[-1]
# The newest first: what a client reads that asks for another one.
SUPPORTED = tuple(version.name for version in reversed(VERSIONS))
# A request without a header comes from a client older than the header (2025-06-18, "Protocol Version Header").
ASSUMED = BY_NAME["2025-03-26"]


def negotiate(requested: str) -> Version:
    """Return the revision that `initialize` answers with: the client's, else the newest that has a handshake
    (2025-11-25, "Version Negotiation"); a client that does not speak it disconnects."""
    version = BY_NAME.get(requested)
    return HANDSHAKE[-1] if version is None or version.modern else version
