"""${message}."""

from __future__ import annotations

from migrations import schema

revision = "${up_revision}"
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    raise NotImplementedError
