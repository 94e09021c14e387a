"""Table license."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    schema.create_table(
        "license",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("status", schema.FLAG, nullable=False),
        sa.Column("create_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_at", schema.UTC_DATETIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["app.id"], name="fk_license_app_id"),
        sa.ForeignKeyConstraint(["group_id"], ["flow.id"], name="fk_license_group_id"),
        sa.PrimaryKeyConstraint("id", name="pk_license"),
        sa.UniqueConstraint("app_id", "group_id", name="uq_license_app_id_group_id"),
    )
    schema.create_index("ix_license_group", "license", ["group_id", "id"])
