"""Table lease."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    schema.create_table(
        "lease",
        sa.Column("name", sa.String(128), nullable=False, autoincrement=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("expires_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("fencing", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    schema.create_index("ix_lease_expires_at", "lease", ["expires_at"])
