"""Table tool_credential."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    schema.create_table(
        "tool_credential",
        sa.Column("app_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("tool_id", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("scheme", sa.String(64), nullable=False, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("app_id", "tool_id", "scheme", name="pk_tool_credential"),
    )
    schema.create_index("ix_tool_credential_tool", "tool_credential", ["tool_id"])
