"""Columns that the tables of agents have in common; a model that declares them itself is as good."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.names import MAX_AGENT_NAME
from chalicelib.core.ids import new_id


class OwnTable:
    """Mixin of an independent table: a time-ordered `id`, and `app_id`, which the scoped session sets."""

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)


class SharedTable(OwnTable):
    """Mixin of a shared table: `agent_name` as well, also set by the scoped session."""

    agent_name: Mapped[str] = mapped_column(String(MAX_AGENT_NAME))
