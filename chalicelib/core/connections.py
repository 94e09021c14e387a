"""How connections are made and kept: bounded waits, TLS, SQLite's settings, and which are not used again."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext

from chalicelib.core.server_errors import GONE_CODES

# A waiter on a row lock gives up well before the gateway's 29 s end the request without an answer.
LOCK_WAIT_S = 5
# Longer than a lock is waited for; with a second attempt on a new connection an answer still comes in time where the
# server, or the way to it, just falls silent.
STATEMENT_TIMEOUT_S = 8
# RDS Proxy pins the session behind a longer statement (its limit is 16 KB) until the client connection ends.
PINNING_STATEMENT = 15_000


def tune(engine: Engine) -> None:
    """Give every connection of `engine` its settings, and let none return to the pool that is lost or pinned."""
    event.listen(engine, "handle_error", _mark_gone)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        return
    event.listen(engine, "do_connect", _bound_handshake)
    event.listen(engine, "connect", _bound_lock_waits)
    event.listen(engine, "connect", _bound_statements)
    event.listen(engine, "before_cursor_execute", _notice_pinning)
    event.listen(engine, "checkin", _give_back_pinned)
    event.listen(engine, "reset", _back_to_autocommit)


def mysql_connect_args(url: URL, connect_timeout: int, ca_file: str | None) -> dict[str, Any]:
    """Return PyMySQL's arguments: bounded waits, and TLS by one context instead of one per connection (20-35
    ms)."""
    arguments: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": connect_timeout,
        "read_timeout": STATEMENT_TIMEOUT_S,
        "write_timeout": STATEMENT_TIMEOUT_S,
    }
    if ca_file is None and url.host in ("127.0.0.1", "localhost", "::1"):
        arguments["ssl_disabled"] = True
    else:
        arguments["ssl"] = _tls_context(ca_file)
    return arguments


@lru_cache(maxsize=4)
def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    # busy_timeout first: the switch to WAL waits for other processes that make it at the same time.
    # WAL: readers are not blocked by the writer. FULL: an acknowledged commit survives a power cut.
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _bound_handshake(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    # connect_timeout ends with TCP's own handshake: a server that accepts and then says nothing is away too.
    options["read_timeout"] = options["connect_timeout"]


def _bound_statements(dbapi_connection: Any, _record: Any) -> None:
    # PyMySQL reads it before every wait, and has no public way to change it.
    dbapi_connection._read_timeout = STATEMENT_TIMEOUT_S


def _bound_lock_waits(dbapi_connection: Any, _record: Any) -> None:
    # Looked at before it is set: SET pins an RDS Proxy session, and there the parameter group sets the bound.
    with dbapi_connection.cursor() as cursor:
        cursor.execute("SELECT @@innodb_lock_wait_timeout")
        if cursor.fetchone()[0] > LOCK_WAIT_S:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout={LOCK_WAIT_S}")


def _notice_pinning(
    connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> None:
    # PyMySQL writes the parameters into the statement.
    if len(statement) + _length(parameters) > PINNING_STATEMENT:
        connection.info["pinned"] = True


def _length(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_length(item) for item in value.values())
    return sum(_length(item) for item in value) if isinstance(value, list | tuple) else 8


def _give_back_pinned(_dbapi_connection: Any, record: Any) -> None:
    if record.info.pop("pinned", False):
        record.invalidate()


def _back_to_autocommit(connection: Any, _record: Any, state: Any) -> None:
    # SQLAlchemy resets the isolation level while it returns the connection to the pool, and where the connection died
    # after the commit the error leaves a pool of one empty for ever. What fails here only ends the connection.
    if connection.get_autocommit():
        return
    if not state.transaction_was_reset:
        # Switching autocommit on would commit.
        connection.rollback()
    connection.autocommit(True)


def _mark_gone(context: ExceptionContext) -> None:
    # SQLAlchemy's own list lacks failovers and shutdowns; a connection that is marked is not returned to the
    # pool.
    arguments = context.original_exception.args
    if arguments and isinstance(arguments[0], int) and arguments[0] in GONE_CODES:
        context.is_disconnect = True
