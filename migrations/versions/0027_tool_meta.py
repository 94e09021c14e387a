"""Table tool_meta."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    schema.create_table(
        "tool_meta",
        sa.Column("tool_id", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("latest_id", sa.BigInteger(), nullable=True),
        sa.Column("is_deleted", sa.BigInteger(), nullable=False),
        sa.Column("transport", sa.String(32), nullable=True),
        sa.Column("protocol_version", sa.String(32), nullable=True),
        sa.Column("server_info", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("tool_id", name="pk_tool_meta"),
        sa.UniqueConstraint("id", name="uq_tool_meta_id"),
    )
    schema.create_index("ix_tool_meta_app", "tool_meta", ["app_id", "kind", "is_deleted", "id"])
    schema.create_index("ix_tool_meta_visibility", "tool_meta", ["visibility", "kind", "is_deleted", "id"])
