"""Table tool_document."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    schema.create_table(
        "tool_document",
        sa.Column("schema_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("tool_id", sa.String(32), nullable=False),
        sa.Column("operations", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("security_schemes", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("schema_id", name="pk_tool_document"),
    )
