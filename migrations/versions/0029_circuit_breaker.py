"""Table circuit_breaker."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    schema.create_table(
        "circuit_breaker",
        sa.Column("app_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("host", sa.String(260), nullable=False, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("probe_owner", sa.String(64), nullable=True),
        sa.Column("until_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("opened_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("app_id", "host", name="pk_circuit_breaker"),
    )
    schema.create_index("ix_circuit_breaker_updated_at", "circuit_breaker", ["updated_at"])
