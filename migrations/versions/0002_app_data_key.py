"""Table app_data_key."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    schema.create_table(
        "app_data_key",
        sa.Column("app_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("key_version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("wrapped", sa.Text(), nullable=False),
        sa.Column("wrapped_by", sa.String(255), nullable=False),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("app_id", "key_version", name="pk_app_data_key"),
    )
