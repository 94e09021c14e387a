"""The schedules of app.py: which jobs a firing runs."""

from __future__ import annotations

from typing import Any

from chalicelib.core import telemetry
from chalicelib.maintenance import service


def run(*names: str) -> dict[str, Any]:
    """Run jobs one after the other, as `maintenance.service.run` says."""
    try:
        return service.run(*names)
    finally:
        telemetry.flush()
