"""What a database error means: run the unit again, a duplicate, or a server that is away."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError

from chalicelib.core.errors import Unavailable

_DUPLICATE_CODE = 1062
_DEADLOCK_CODES = frozenset({1205, 1213})
# 1040, 1203: no connection left; 1053, 1927, 3169: shutdown, killed; 1290, 1836: the writer became a reader
# in a failover; 2002..2055 and 4031: the connection is lost; 0: PyMySQL's word for a closed one.
GONE_CODES = frozenset(
    {0, 1040, 1043, 1053, 1152, 1158, 1159, 1160, 1161, 1203, 1290, 1836, 1927}
    | {2002, 2003, 2006, 2013, 2014, 2045, 2055, 3169, 4031}
)


def server_code(error: BaseException) -> int | None:
    """Return the server's error number, None where the error carries none (SQLite)."""
    arguments = getattr(error, "orig", error).args
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def is_lock_failure(error: DBAPIError) -> bool:
    """True for a deadlock (1213), a lock timeout (1205) or a busy SQLite: the whole unit may run again."""
    return server_code(error) in _DEADLOCK_CODES or "database is locked" in str(error.orig)


def is_duplicate(error: DBAPIError) -> bool:
    """True where a unique key refused a row that another writer inserted first; not for other constraints."""
    return server_code(error) == _DUPLICATE_CODE or "UNIQUE constraint failed" in str(error.orig)


def is_disconnect(error: BaseException) -> bool:
    """True where the server is away rather than the statement wrong."""
    if isinstance(error, DisconnectionError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # SQLAlchemy does not wrap what the driver raises while an isolation level is set.
    from_driver = isinstance(error, DBAPIError) or type(error).__module__.startswith("pymysql.")
    if from_driver and server_code(error) in GONE_CODES:
        return True
    return isinstance(error, OperationalError) and "unable to open database file" in str(error.orig)


def away(error: BaseException) -> Unavailable:
    """Return the 503 for a database that cannot be reached; its text never shows the server's."""
    return Unavailable("The database cannot be reached.", code="database.away", retry_after=2)
