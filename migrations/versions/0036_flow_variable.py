"""Table flow_variable."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    schema.create_table(
        "flow_variable",
        sa.Column("digest", schema.DIGEST, nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("flow_id", schema.ascii_text(64), nullable=False),
        sa.Column("uid", sa.String(255), nullable=False),
        sa.Column("chat_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("value", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_flow_variable"),
    )
    schema.create_index(
        "ix_flow_variable_chat",
        "flow_variable",
        ["app_id", "flow_id", "uid", "chat_id"],
        lengths={"uid": 64, "chat_id": 64},
    )
    schema.create_index("ix_flow_variable_updated_at", "flow_variable", ["updated_at"])
