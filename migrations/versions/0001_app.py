"""Table app."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.create_table(
        "app",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("name", sa.String(30), nullable=False),
        sa.Column("alias_id", sa.String(64), nullable=False),
        sa.Column("api_key", sa.String(50), nullable=False),
        sa.Column("api_secret", sa.String(50), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("is_tenant", schema.FLAG, nullable=False),
        sa.Column("source", schema.FLAG, nullable=False),
        sa.Column("actual_source", schema.FLAG, nullable=False),
        sa.Column("plat_release_auth", schema.FLAG, nullable=False),
        sa.Column("status", schema.FLAG, nullable=False),
        sa.Column("audit_policy", schema.FLAG, nullable=False),
        sa.Column("create_by", sa.BigInteger(), nullable=True),
        sa.Column("update_by", sa.BigInteger(), nullable=True),
        sa.Column("create_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_app"),
        sa.UniqueConstraint("alias_id", name="uq_app_alias_id"),
    )
