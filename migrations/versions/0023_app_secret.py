"""Table app_secret."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    schema.create_table(
        "app_secret",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["app.id"], name="fk_app_secret_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_app_secret"),
        sa.UniqueConstraint("app_id", "name", name="uq_app_secret_app_id_name"),
    )
