"""Table instance."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    schema.create_table(
        "instance",
        sa.Column("instance_id", sa.String(36), nullable=False, autoincrement=False),
        sa.Column("function", sa.String(128), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("versions", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("loaded", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("load_error", sa.String(500), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("seen_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pk_instance"),
    )
    schema.create_index("ix_instance_seen_at", "instance", ["seen_at"])
