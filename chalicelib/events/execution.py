"""The runtime functions: one invocation runs, or loads, one plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def handle(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runtime's answer to one invocation."""
    from chalicelib.plugins.runtime import service

    return service.handle(event)
