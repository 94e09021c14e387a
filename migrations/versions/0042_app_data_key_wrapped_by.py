"""Index app_data_key.wrapped_by."""

from __future__ import annotations

from migrations import schema

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    schema.create_index("ix_app_data_key_wrapped_by", "app_data_key", ["wrapped_by"])
