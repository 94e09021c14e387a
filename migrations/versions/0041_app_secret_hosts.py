"""Column app_secret.hosts."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    schema.add_column("app_secret", sa.Column("hosts", schema.MEDIUM_TEXT, nullable=True))
