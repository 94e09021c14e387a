"""The bits that say where a version is published. Pure.

| | workbench (1) | open platform (2) | device (4) |
|---|---|---|---|
| published | 1 | 4 | 32 |
| published as API | 8 | 8 | – |
| taken off | 2 | 16 | 64 |

Bit 8 is one for two platforms; which of them hold it, `Release.api` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.core.errors import Invalid, Violation
from chalicelib.flows.names import DEVICE, OPEN_PLATFORM, WORKBENCH

PUBLISHED = {WORKBENCH: 1, OPEN_PLATFORM: 4, DEVICE: 32}
API = 8
TAKEN_OFF = {WORKBENCH: 2, OPEN_PLATFORM: 16, DEVICE: 64}
LIVE = API | sum(PUBLISHED.values())


@dataclass(frozen=True)
class Release:
    """Where a version is published.

    Parameters
    ----------
    status
        The bits of the table above.
    api
        The platforms on which it is published as API, as bits.
    """

    status: int = 0
    api: int = 0

    def on(self, platform: int) -> bool:
        """True where the platform has it, in one way or the other."""
        return bool(self.status & PUBLISHED[platform] or self.api & platform)


def is_live(status: int) -> bool:
    """True where some platform has it."""
    return bool(status & LIVE)


def publish(before: Release, platform: int, *, api: bool) -> Release:
    """Return what holds once a platform has the version too.

    Parameters
    ----------
    api
        As API; it may be published plainly besides.

    Raises
    ------
    errors.Invalid
        `flow.no_api`: devices have none.
    """
    kept = before.status & ~TAKEN_OFF[platform]
    if not api:
        return Release(kept | PUBLISHED[platform], before.api)
    if platform == DEVICE:
        raise Invalid(
            "The device platform has no API.",
            code="flow.no_api",
            errors=[Violation("/api", "flow.no_api", "must be false for platform 4")],
        )
    return Release(kept | API, before.api | platform)


def take_off(before: Release, platform: int) -> Release:
    """Return what holds once a platform has the version no more."""
    api = before.api & ~platform
    status = before.status & ~(PUBLISHED[platform] | API) | TAKEN_OFF[platform]
    return Release(status | (API if api else 0), api)
