"""The database: one engine, units of work and reads; the column types are in core/columns.

MySQL 8 (Aurora), MariaDB 10.11 and SQLite. Reads run in AUTOCOMMIT (one round trip each); a unit of work runs
in READ COMMITTED, because under REPEATABLE READ a check that is made after taking a lock still sees the
snapshot from before it. On SQLite a unit begins with BEGIN IMMEDIATE: with the default, two units that read
and then write lose updates silently.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from sqlalchemy import TextClause, create_engine, event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import ORMExecuteState, Session

from chalicelib.core import guards
from chalicelib.core.columns import MEDIUM_TEXT as MEDIUM_TEXT
from chalicelib.core.columns import MYSQL_TABLE as MYSQL_TABLE
from chalicelib.core.columns import Base as Base
from chalicelib.core.columns import JsonDocument as JsonDocument
from chalicelib.core.columns import TimestampMixin as TimestampMixin
from chalicelib.core.columns import UtcDateTime as UtcDateTime
from chalicelib.core.columns import ascii_text as ascii_text
from chalicelib.core.columns import identifier as identifier
from chalicelib.core.connections import mysql_connect_args, tune
from chalicelib.core.errors import Unavailable
from chalicelib.core.query_load import QueryLoad
from chalicelib.core.server_errors import away as away
from chalicelib.core.server_errors import is_disconnect as is_disconnect
from chalicelib.core.server_errors import is_duplicate as is_duplicate
from chalicelib.core.server_errors import is_lock_failure as is_lock_failure

UNIT_ATTEMPTS = 6
# No attempt begins later than this: six lock timeouts in a row would outlast the request.
UNIT_ATTEMPTS_END_S = 15
_WRITING = re.compile(r"\s*(insert|update|delete|replace|truncate|load)\b", re.IGNORECASE)
T = TypeVar("T")
# Makes another engine of one, over the same pool.
Derive = Callable[[Engine], Engine]


class SecondConnection(RuntimeError):
    """A programming error: a connection was asked for while this thread holds one. With a pool of one it
    would wait for itself."""


class CommitUnknown(Unavailable):
    """The connection was lost during COMMIT: the unit may have happened or not. Whoever can read back,
    should."""


class Unit(Session):
    """The session of a unit of work. core/cache_log.py listens on this class to bump the cache versions, so
    whatever would write past its listeners is refused."""

    def connection(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: a statement on the bare connection bumps no cache version."""
        raise _past_the_cache("connection()")

    def bulk_save_objects(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it raises no flush event."""
        raise _past_the_cache("bulk_save_objects()")

    def bulk_insert_mappings(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it raises no flush event."""
        raise _past_the_cache("bulk_insert_mappings()")

    def bulk_update_mappings(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it raises no flush event."""
        raise _past_the_cache("bulk_update_mappings()")


def _past_the_cache(name: str) -> RuntimeError:
    return RuntimeError(
        f"{name} would change rows without bumping the cache versions; use add() or execute()"
    )


class Reads(Session):
    """A session that reads in AUTOCOMMIT; it refuses to write, because it has no transaction that could
    bump."""


def _refuse_flush(_session: Reads, _context: Any, _instances: Any) -> None:
    raise RuntimeError("a read session does not write; open a unit of work")


def _refuse_writing(state: ORMExecuteState) -> None:
    in_text = isinstance(state.statement, TextClause) and _WRITING.match(state.statement.text)
    if in_text or state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError("a read session does not write; open a unit of work")


event.listen(Reads, "before_flush", _refuse_flush)
event.listen(Reads, "do_orm_execute", _refuse_writing)


@dataclass(frozen=True)
class Result:
    """One line of `check_table`: what was looked at (`name`), as which kind (`table`, `column`, `index`), and
    whether the database agrees with the model."""

    name: str
    type: str
    success: bool


class DatabaseService:
    """One engine and the two ways to use it.

    Parameters
    ----------
    database_url
        `mysql+pymysql://user:password@host:port/name` or `sqlite:////absolute/path`.
    connect_timeout
        Seconds for one connection attempt.
    pool_size, max_overflow
        One and none: an environment serves one request at a time, and nothing checks out a second connection
        while one is open.
    pool_recycle
        Seconds after which an idle connection is replaced (RDS Proxy ends idle clients after 30 minutes).
    ca_file
        PEM bundle that verifies the server; TLS is off on loopback when it is None and on everywhere else.
    iam
        Sign in with tokens of the function's role instead of the URL's password.

    As a context manager it yields a session whose work is committed at the end.
    """

    def __init__(
        self,
        database_url: str,
        connect_timeout: int = 3,
        pool_size: int = 1,
        max_overflow: int = 0,
        pool_recycle: int = 1200,
        *,
        ca_file: str | None = None,
        iam: bool = False,
    ) -> None:
        # Its listeners bump the cache versions: no process may write without them.
        from chalicelib.core import cache_log  # noqa: F401

        self.database_url = database_url
        self.ca_file = ca_file
        self._url = make_url(database_url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": max_overflow, "pool_timeout": 5}
        if self.is_sqlite:
            options |= {"connect_args": {"timeout": 5, "check_same_thread": False}}
        else:
            options |= {
                "pool_recycle": pool_recycle,
                "skip_autocommit_rollback": True,
                "connect_args": mysql_connect_args(self._url, connect_timeout, ca_file),
            }
        self.engine: Engine = create_engine(self._url, isolation_level="AUTOCOMMIT", **options)
        tune(self.engine)
        if iam:
            from chalicelib.core.database_token import sign_in_with_tokens

            sign_in_with_tokens(self.engine)
        self.load = QueryLoad(self.engine)
        self._units = self.engine.execution_options(hotplug_unit=True)
        if self.is_sqlite:
            event.listen(self._units, "begin", _begin_immediate)
        # What others made of this engine, by who made it: it ends with the service.
        self.derived: dict[str, Any] = {}
        self._entered = threading.local()
        self._held = threading.local()

    # -- units of work ---------------------------------------------------------------------------------------

    @contextmanager
    def session_getter(self, kind: type[Unit] = Unit, over: Derive | None = None) -> Iterator[Unit]:
        """Yield the session of one unit of work: commit on leaving, rollback on an exception, closed in any
        case.

        Parameters
        ----------
        kind
            The session's class.
        over
            Makes, of the engine of units, the one to use: over the same pool.

        Raises
        ------
        errors.Unavailable
            When the server cannot be reached.
        CommitUnknown
            When it was lost during COMMIT.
        """
        with (
            self._holding("a unit of work"),
            guards.unit(),
            _translated(),
            self._open_unit(over(self._units) if over else self._units) as connection,
            kind(connection, expire_on_commit=False) as session,
        ):
            yield session
            try:
                session.commit()
            except DBAPIError as error:
                # An error without a statement is COMMIT's own; whatever failed before it was not committed.
                if is_disconnect(error) and error.statement is None:
                    raise CommitUnknown(
                        "The database was lost while it committed.",
                        code="database.commit_unknown",
                        retry_after=2,
                    ) from error
                raise

    def _open_unit(self, engine: Engine, *, again: bool = True) -> Connection:
        connection = engine.connect()
        if self.is_sqlite:
            return connection
        try:
            return connection.execution_options(isolation_level="READ COMMITTED")
        except self.engine.dialect.loaded_dbapi.Error as error:
            # The first round trip of a unit: a connection that died while this environment was frozen shows
            # here, as the driver's own error, and is replaced once.
            connection.invalidate(error)
            connection.close()
            if not is_disconnect(error):
                raise
            if not again:
                raise away(error) from error
        return self._open_unit(engine, again=False)

    def run(
        self,
        work: Callable[[Unit], T],
        *,
        attempts: int = UNIT_ATTEMPTS,
        opened: Callable[[], AbstractContextManager[Unit]] | None = None,
    ) -> T:
        """Run `work(session)` as one unit, again from its beginning after a deadlock or a lock timeout.

        Full jitter between attempts keeps two writers that collided from colliding again.

        Parameters
        ----------
        opened
            Opens the unit of an attempt; `session_getter` by default.

        Raises
        ------
        errors.Unavailable
            `database.contended` after the last attempt.
        """
        end = time.monotonic() + UNIT_ATTEMPTS_END_S
        for attempt in range(1, attempts + 1):
            try:
                with (opened or self.session_getter)() as session:
                    return work(session)
            except OperationalError as error:
                if not is_lock_failure(error):
                    raise
                if attempt == attempts or time.monotonic() > end:
                    raise Unavailable(
                        "Too many writers at the same time; try again.",
                        code="database.contended",
                        retry_after=1,
                    ) from error
                time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - spreading load, not a secret
        raise AssertionError("unreachable")

    def get_session(self) -> Iterator[Unit]:
        """Yield one session, for frameworks that want a generator; the same guarantees as
        `session_getter`."""
        with self.session_getter() as session:
            yield session

    def __enter__(self) -> Unit:
        self._entered.manager = self.session_getter()
        return self._entered.manager.__enter__()  # type: ignore[no-any-return]

    def __exit__(self, *exception: Any) -> None:
        self._entered.manager.__exit__(*exception)

    # -- reads -----------------------------------------------------------------------------------------------

    @contextmanager
    def reads(self, kind: type[Reads] = Reads, over: Derive | None = None) -> Iterator[Session]:
        """Yield a session that reads in AUTOCOMMIT: each statement one round trip and the newest committed
        state; of a class, and over an engine, as with `session_getter`."""
        with (
            self._holding("a read session"),
            _translated(),
            kind(
                over(self.engine) if over else self.engine, autoflush=False, expire_on_commit=False
            ) as session,
        ):
            yield session

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield the AUTOCOMMIT connection itself, for the version read and other single statements on tables
        that no function caches."""
        with self._holding("a connection"), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _holding(self, what: str) -> Iterator[None]:
        held = getattr(self._held, "by", None)
        if held is not None:
            raise SecondConnection(f"{what} was asked for while {held} is open")
        self._held.by = what
        try:
            yield
        finally:
            self._held.by = None

    # -- schema ----------------------------------------------------------------------------------------------

    def check_table(self, model: type[Base]) -> list[Result]:
        """Compare a table with its model: columns, types, nullability and indexes."""
        from chalicelib.core.table_check import check_table

        return check_table(self.engine, model)

    def create_db_and_tables(self, models: list[type[Base]] | None = None) -> None:
        """Create the database and whatever tables are missing in it; never alter one. Safe when run
        concurrently."""
        from chalicelib.core.table_check import create_missing

        create_missing(self, models)

    def close(self) -> None:
        """Return the connection to the server."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if is_disconnect(error):
            raise away(error) from error
        raise
    except PoolTimeout as error:
        raise away(error) from error


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
