"""Table flow_run."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    schema.create_table(
        "flow_run",
        sa.Column("run_id", sa.String(26), nullable=False),
        sa.Column("flow_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("credential_id", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("uid", sa.String(255), nullable=False),
        sa.Column("chat_id", sa.String(255), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("active", schema.FLAG, nullable=False),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("keeps_history", schema.FLAG, nullable=False),
        sa.Column("parameters", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("result", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("error", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("event", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("pending", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("usage", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("cancel", schema.FLAG, nullable=False),
        sa.Column("wake_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("execution", sa.String(512), nullable=True),
        sa.Column("callback_url", sa.String(2048), nullable=True),
        sa.Column("callback_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("callback_tries", sa.Integer(), nullable=False),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("finished_at", schema.UTC_DATETIME, nullable=True),
        sa.PrimaryKeyConstraint("run_id", name="pk_flow_run"),
        sa.UniqueConstraint("app_id", "slot", name="uq_flow_run_app_id_slot"),
    )
    schema.create_index("ix_flow_run_app", "flow_run", ["app_id", "flow_id", "run_id"])
    schema.create_index("ix_flow_run_callback", "flow_run", ["callback_at"])
    schema.create_index("ix_flow_run_wake", "flow_run", ["active", "wake_at"])
