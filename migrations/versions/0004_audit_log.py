"""Table audit_log."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    schema.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("credential_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object_type", sa.String(32), nullable=False),
        sa.Column("object_id", sa.String(128), nullable=False),
        sa.Column("before_digest", sa.String(64), nullable=True),
        sa.Column("after_digest", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    schema.create_index("ix_audit_log_action", "audit_log", ["action", "id"])
    schema.create_index("ix_audit_log_app", "audit_log", ["app_id", "id"])
    schema.create_index("ix_audit_log_object", "audit_log", ["object_id", "id"])
    schema.create_index("ix_audit_log_type", "audit_log", ["object_type", "id"])
