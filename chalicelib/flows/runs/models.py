"""Runs of flows: how each stands, what its nodes did, what was told while it ran, and the data that it runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Float, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, JsonDocument, UtcDateTime, identifier
from chalicelib.flows.models import FLAG


class FlowRun(Base):
    """One run.

    Parameters
    ----------
    run_id
        ULID: in the order of time.
    flow_id, version
        What is run; the version is "" for a draft.
    app_id
        The app that started it; nobody else sees it.
    mode, state
        See `names`.
    active
        1 until the run has ended.
    slot
        Which of the app's places for runs it has, None while it needs none: the unique index keeps an app from having
        more than its share, without a lock.
    digest
        Of the data that is run, in `flow_run_data`.
    parameters, result, error, event, usage
        JSON; the event is the question that is waited for.
    pending
        The answer to it that the run has not taken yet.
    progress
        From 0 to 1.
    cancel
        1 once somebody asked for it to end.
    wake_at
        When the sweep has to look at it: an express run's lease, a durable run's next sending, a question's end; None
        for a run that has ended.
    execution
        The ARN of a durable run's execution, once it has begun.
    callback_url, callback_at, callback_tries
        Whom to tell of the end; when next, and how often it was tried. `callback_at` is None where nothing is to be
        sent.
    """

    __tablename__ = "flow_run"
    __table_args__ = (
        UniqueConstraint("app_id", "slot"),
        Index("ix_flow_run_app", "app_id", "flow_id", "run_id"),
        Index("ix_flow_run_wake", "active", "wake_at"),
        Index("ix_flow_run_callback", "callback_at"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    run_id: Mapped[str] = mapped_column(identifier(26), primary_key=True)
    flow_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(128))
    app_id: Mapped[int] = mapped_column(BigInteger)
    author_id: Mapped[int] = mapped_column(BigInteger)
    credential_id: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(String(64))
    uid: Mapped[str] = mapped_column(String(255))
    chat_id: Mapped[str] = mapped_column(String(255))
    mode: Mapped[str] = mapped_column(identifier(16))
    state: Mapped[str] = mapped_column(identifier(16))
    active: Mapped[int] = mapped_column(FLAG, default=1)
    slot: Mapped[int | None] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(identifier(64))
    keeps_history: Mapped[int] = mapped_column(FLAG, default=1)
    parameters: Mapped[Any] = mapped_column(JsonDocument(), deferred=True)
    result: Mapped[Any] = mapped_column(JsonDocument(), nullable=True, deferred=True)
    error: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    event: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    pending: Mapped[Any] = mapped_column(JsonDocument(), nullable=True, deferred=True)
    usage: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    cancel: Mapped[int] = mapped_column(FLAG, default=0)
    wake_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    execution: Mapped[str | None] = mapped_column(String(512))
    callback_url: Mapped[str | None] = mapped_column(String(2048))
    callback_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    callback_tries: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class FlowRunNode(Base):
    """A node of a run that has ended; `position` counts them in the order of their ends."""

    __tablename__ = "flow_run_node"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    run_id: Mapped[str] = mapped_column(identifier(26), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    node_key: Mapped[str] = mapped_column(MEDIUM_TEXT)
    node_id: Mapped[str] = mapped_column(identifier(255))
    node_type: Mapped[str] = mapped_column(identifier(64))
    alias_name: Mapped[str] = mapped_column(String(255))
    attempt: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(identifier(16))
    inputs: Mapped[Any] = mapped_column(JsonDocument())
    outputs: Mapped[Any] = mapped_column(JsonDocument())
    error: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    usage: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    duration_us: Mapped[int] = mapped_column(BigInteger)


class FlowRunEvent(Base):
    """One frame of what a run tells; `seq` counts them from 1, without a gap."""

    __tablename__ = "flow_run_event"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    run_id: Mapped[str] = mapped_column(identifier(26), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    frame: Mapped[Any] = mapped_column(JsonDocument())


class FlowRunData(Base):
    """The data that runs run, by its digest: a draft is edited and a version taken off while a run waits."""

    __tablename__ = "flow_run_data"
    __table_args__ = (Index("ix_flow_run_data_used_at", "used_at"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    digest: Mapped[str] = mapped_column(identifier(64), primary_key=True)
    data: Mapped[str] = mapped_column(MEDIUM_TEXT)
    used_at: Mapped[datetime] = mapped_column(UtcDateTime())
