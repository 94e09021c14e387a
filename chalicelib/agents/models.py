"""What is known of agents beside their files: whether they may run, which tables they have, where their history moves.

The tables of the agents themselves (`agentflow_*`) are declared by the agents, and made by `tables/`, not by revisions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.names import MAX_AGENT_NAME, MAX_TABLE_NAME
from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, TimestampMixin, UtcDateTime
from chalicelib.core.ids import new_ulid

# Of a table, and of where an agent keeps its history.
SHARED, INDEPENDENT = "shared", "independent"
MODES = (SHARED, INDEPENDENT)
# Of a move. The first two are still going on, and an agent has one such move at most.
COPYING, VERIFYING, DONE, CANCELLED, FAILED = "copying", "verifying", "done", "cancelled", "failed"
MOVE_STATES = (COPYING, VERIFYING, DONE, CANCELLED, FAILED)


class AgentRow(Base):
    """What admins decided about an agent; an agent without a row is as its files say.

    Whoever stores messages of an agent holds this row shared, whoever changes where they go holds it alone.

    Parameters
    ----------
    generation
        Grows with every reload: a process that made its instance under another number makes a new one.
    history_mode
        Which of its two history models the agent uses since its history was moved; NULL for the one that it names.
    moving_to
        While a move goes on: the mode it leads to. What is stored meanwhile is stored in both tables.
    """

    __tablename__ = "agent"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[str] = "agents"
    cache_key: ClassVar[str] = "name"
    name: Mapped[str] = mapped_column(String(MAX_AGENT_NAME), primary_key=True)
    # As last deployed.
    version: Mapped[str] = mapped_column(String(64))
    is_enabled: Mapped[int] = mapped_column(SmallInteger, default=1)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    history_mode: Mapped[str | None] = mapped_column(String(16))
    moving_to: Mapped[str | None] = mapped_column(String(16))
    # {code, detail} of the deployment's own attempt to load it; a process that fails says so itself.
    load_error: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime(), default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC)
    )


class AgentTable(Base, TimestampMixin):
    """A table of an agent, or one that all share.

    Parameters
    ----------
    owner
        The agent's name; `shared` for a shared table. The first agent that a table was made for owns it for good.
    schema_hash
        SHA-256 hex of the definition that the table was last brought to: a cold start compares it with its models.
    earlier_hashes
        Of the definitions before, the newest first: what was only added to still serves the functions of an earlier
        release, which go on while a new one is deployed.
    problems
        What `migrate` could not bring to the model, as texts; a revision written by hand has to.
    retain_days, retain_rows
        What the daily job keeps; NULL keeps all.
    """

    __tablename__ = "agent_table"
    __table_args__ = (Index("ix_agent_table_owner", "owner", "table_name"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = "agents"
    cache_key: ClassVar[str] = "table_name"
    table_name: Mapped[str] = mapped_column(String(MAX_TABLE_NAME), primary_key=True)
    owner: Mapped[str] = mapped_column(String(MAX_AGENT_NAME))
    mode: Mapped[str] = mapped_column(String(16))
    schema_hash: Mapped[str] = mapped_column(String(64))
    earlier_hashes: Mapped[Any] = mapped_column(JsonDocument(), default=list)
    problems: Mapped[Any] = mapped_column(JsonDocument(), default=list)
    retain_days: Mapped[int | None] = mapped_column(Integer)
    retain_rows: Mapped[int | None] = mapped_column(BigInteger)


class AgentMove(Base, TimestampMixin):
    """A move of an agent's history between the shared table and its own.

    Parameters
    ----------
    copied_through, verified_through
        Ids up to which all rows were copied, and compared.
    source_digest, target_digest
        Over what was compared so far, as far as `verified_through`.
    keep_until
        When a finished move's source rows go; NULL before it is finished and once they are gone.
    """

    __tablename__ = "agent_move"
    __table_args__ = (
        Index("ix_agent_move_agent", "agent_name", "id"),
        Index("ix_agent_move_state", "state", "id"),
        Index("ix_agent_move_keep_until", "keep_until"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[str] = mapped_column(String(26), primary_key=True, default=new_ulid)
    agent_name: Mapped[str] = mapped_column(String(MAX_AGENT_NAME))
    target: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default=COPYING)
    source_table: Mapped[str] = mapped_column(String(MAX_TABLE_NAME))
    target_table: Mapped[str] = mapped_column(String(MAX_TABLE_NAME))
    keep_days: Mapped[int] = mapped_column(Integer)
    # Rows of the source when the move began, for the progress.
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    copied: Mapped[int] = mapped_column(BigInteger, default=0)
    copied_through: Mapped[int] = mapped_column(BigInteger, default=-1)
    verified: Mapped[int] = mapped_column(BigInteger, default=0)
    verified_through: Mapped[int] = mapped_column(BigInteger, default=-1)
    source_digest: Mapped[str | None] = mapped_column(String(64))
    target_digest: Mapped[str | None] = mapped_column(String(64))
    keep_until: Mapped[datetime | None] = mapped_column(UtcDateTime())
    error_code: Mapped[str | None] = mapped_column(String(64))
    created_by: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
