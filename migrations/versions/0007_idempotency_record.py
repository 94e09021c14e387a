"""Table idempotency_record."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    schema.create_table(
        "idempotency_record",
        sa.Column("id", sa.String(128), nullable=False, autoincrement=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("in_progress_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("payload_hash", sa.String(64), nullable=False),
        sa.Column("response", schema.MEDIUM_TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency_record"),
    )
    schema.create_index("ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"])
