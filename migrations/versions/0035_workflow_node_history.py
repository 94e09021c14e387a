"""Table workflow_node_history."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    schema.create_table(
        "workflow_node_history",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("flow_id", schema.ascii_text(64), nullable=False),
        sa.Column("node_id", schema.ascii_text(255), nullable=False),
        sa.Column("uid", sa.String(255), nullable=False),
        sa.Column("chat_id", sa.String(255), nullable=False),
        sa.Column("raw_question", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("raw_answer", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("create_time", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workflow_node_history"),
    )
    schema.create_index(
        "ix_workflow_node_history_chat",
        "workflow_node_history",
        ["app_id", "flow_id", "uid", "chat_id", "node_id", "id"],
        lengths={"uid": 64, "chat_id": 64},
    )
    schema.create_index(
        "ix_workflow_node_history_chat_id", "workflow_node_history", ["chat_id"], lengths={"chat_id": 64}
    )
    schema.create_index(
        "ix_workflow_node_history_node_id", "workflow_node_history", ["node_id"], lengths={"node_id": 64}
    )
    schema.create_index("ix_workflow_node_history_uid", "workflow_node_history", ["uid"], lengths={"uid": 64})
