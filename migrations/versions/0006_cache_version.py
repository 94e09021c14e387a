"""Table cache_version."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    schema.create_table(
        "cache_version",
        sa.Column("scope", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.String(36), nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_cache_version"),
    )
