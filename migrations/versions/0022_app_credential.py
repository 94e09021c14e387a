"""Table app_credential."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    schema.create_table(
        "app_credential",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("api_key", sa.String(50), nullable=False),
        sa.Column("secret_hash", schema.DIGEST, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("status", schema.FLAG, nullable=False),
        sa.Column("expires_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("last_used_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["app.id"], name="fk_app_credential_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_app_credential"),
        sa.UniqueConstraint("api_key", name="uq_app_credential_api_key"),
    )
    schema.create_index("ix_app_credential_app", "app_credential", ["app_id", "id"])
    schema.create_index("ix_app_credential_role", "app_credential", ["role", "id"])
