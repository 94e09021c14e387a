"""Tables of two agents for the tests of isolation, in a metadata of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from sqlalchemy import BigInteger, Column, MetaData, String, Table, create_engine, delete, insert
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from chalicelib.agents.scope.access import Scope
from chalicelib.core.database import MYSQL_TABLE, DatabaseService
from chalicelib.core.ids import new_id

APPS, AGENTS = (1, 2), ("a", "b")


class Root(DeclarativeBase):
    """Not core's Base: these tables belong to no deployment."""

    metadata = MetaData()
    cache_scope: ClassVar[str | None] = None


LINK = Table(
    "agentflow_shared_link",
    Root.metadata,
    Column("thread_id", BigInteger, primary_key=True, autoincrement=False),
    Column("app_id", BigInteger, nullable=False),
    Column("agent_name", String(100), nullable=False),
    Column("own_id", BigInteger, primary_key=True, autoincrement=False),
    mysql_charset="utf8mb4",
)


class SharedThread(Root):
    __tablename__ = "agentflow_shared_thread"
    __table_args__ = (MYSQL_TABLE,)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    # Under another name than in the database: the criteria go by the column.
    tenant: Mapped[int] = mapped_column("app_id", BigInteger)
    agent_name: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(50), default="t")
    notes: Mapped[list[SharedNote]] = relationship(
        back_populates="thread",
        primaryjoin="SharedThread.id == foreign(SharedNote.thread_id)",
        order_by="SharedNote.id",
    )
    tags: Mapped[list[AOwn]] = relationship(
        secondary=LINK,
        primaryjoin="SharedThread.id == foreign(agentflow_shared_link.c.thread_id)",
        secondaryjoin="AOwn.id == foreign(agentflow_shared_link.c.own_id)",
    )


class SharedNote(Root):
    __tablename__ = "agentflow_shared_note"
    __table_args__ = (MYSQL_TABLE,)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    agent_name: Mapped[str] = mapped_column(String(100))
    # No constraint in the database: a note may point at a thread of others.
    thread_id: Mapped[int | None] = mapped_column(BigInteger)
    title: Mapped[str] = mapped_column(String(50), default="n")
    thread: Mapped[SharedThread | None] = relationship(
        back_populates="notes", primaryjoin="SharedThread.id == foreign(SharedNote.thread_id)"
    )


class AOwn(Root):
    __tablename__ = "agentflow_a_own"
    __table_args__ = (MYSQL_TABLE,)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str] = mapped_column(String(50), default="o")


class BOwn(Root):
    __tablename__ = "agentflow_b_own"
    __table_args__ = (MYSQL_TABLE,)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str] = mapped_column(String(50), default="o")


OWN: dict[str, type[AOwn] | type[BOwn]] = {"a": AOwn, "b": BOwn}
MODELS = (SharedThread, SharedNote, AOwn, BOwn)
TABLES: tuple[Table, ...] = tuple(Root.metadata.sorted_tables)


def scope(app: int = 1, agent: str = "a", role: str = "viewer") -> Scope:
    return Scope(app, agent, frozenset({f"agentflow_{agent}_own"}), role)


def key(app: int, agent: str, number: int) -> int:
    """Return an id that says whose row it is."""
    return app * 1000 + AGENTS.index(agent) * 100 + number


def owner(row_id: int) -> tuple[int, str]:
    """Return (app, agent) of a seeded row."""
    return row_id // 1000, AGENTS[row_id // 100 % 10]


def seed(connection: Connection, whose: list[tuple[int, str]]) -> None:
    """Give each agent of each app two threads with two notes each, a note on a thread of another app, and two rows in
    its own table.

    Titles are the same everywhere: what joins by them meets the rows of others.
    """
    notes = []
    for app, agent in whose:
        mine = {"app_id": app, "agent_name": agent}
        threads = [{"id": key(app, agent, n), **mine, "title": f"t{n}"} for n in (1, 2)]
        connection.execute(insert(SharedThread.__table__), threads)
        notes += [
            {"id": key(app, agent, 10 * n + m), **mine, "thread_id": key(app, agent, n), "title": f"t{m}"}
            for n in (1, 2)
            for m in (1, 2)
        ]
        notes.append({"id": key(app, agent, 31), **mine, "thread_id": key(3 - app, agent, 1), "title": "t1"})
        own = [{"id": key(app, agent, n), "app_id": app, "title": f"t{n}"} for n in (1, 2)]
        connection.execute(insert(OWN[agent].__table__), own)
    connection.execute(insert(SharedNote.__table__), notes)


EVERYBODY = [(app, agent) for app in APPS for agent in AGENTS]


def seeded_again(service: DatabaseService) -> None:
    """Put a world's rows back as they were."""
    with service.engine.begin() as connection:
        for table in TABLES:
            connection.execute(delete(table))
        seed(connection, EVERYBODY)


@contextmanager
def world(url: str) -> Iterator[DatabaseService]:
    """Yield a service on a database that has these tables, and everybody's rows in them."""
    with _filled(url, EVERYBODY) as service:
        yield service


@contextmanager
def alone(url: str, app: int, agent: str) -> Iterator[DatabaseService]:
    """Yield a service on a database that has the rows of one agent of one app."""
    with _filled(url, [(app, agent)]) as service:
        yield service


@contextmanager
def _filled(url: str, whose: list[tuple[int, str]]) -> Iterator[DatabaseService]:
    plain = create_engine(url)
    with plain.begin() as connection:
        Root.metadata.create_all(connection)
        seed(connection, whose)
    plain.dispose()
    service = DatabaseService(url)
    try:
        yield service
    finally:
        service.close()
