"""What ids and texts of flows look like, and where flows may be published."""

from __future__ import annotations

import re

WORKBENCH, OPEN_PLATFORM, DEVICE = 1, 2, 4
PLATFORMS = (WORKBENCH, OPEN_PLATFORM, DEVICE)
EVERY_PLATFORM = WORKBENCH | OPEN_PLATFORM | DEVICE
_FLOW_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_MAX_FLOW_ID = 2**63 - 1


def flow_id_of(text: str) -> int | None:
    """Return the flow id that a text names, None for what cannot be one."""
    if not _FLOW_ID.fullmatch(text) or int(text) > _MAX_FLOW_ID:
        return None
    return int(text)
