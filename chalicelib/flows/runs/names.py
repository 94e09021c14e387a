"""The modes and states of runs."""

from __future__ import annotations

EXPRESS, DURABLE, AUTO = "express", "durable", "auto"
QUEUED, RUNNING, WAITING, RESUMING = "queued", "running", "waiting", "resuming"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, WAITING, SUCCEEDED, FAILED, CANCELLED)
"""As they are shown: a run that resumes is running."""


def shown(state: str) -> str:
    """Return a state as the API shows it."""
    return RUNNING if state == RESUMING else state
