"""Databases with all tables in place, used by one test after another: a server takes a second to make them, and
milliseconds to empty them.

A test cannot tell a database that was used before from a new one: its tables are those of the models, letter by letter,
without a row and with their counters at 1. One that cannot be brought back to that is dropped.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy.engine import URL, make_url

from chalicelib.core.database import DatabaseService
from chalicelib.events.migration import MODELS
from tests import databases

# Deleting more takes longer than making new tables.
MOST_ROWS = 2_000
# Whoever still holds a lock after a test keeps the database to himself.
_LOCK_WAIT_S = 2
_IN_USE_S = 0.3
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")

# Names of databases, by the server's address, that are ready for the next test of this process.
_ready: dict[str, list[str]] = {}
# URLs of databases that a test has now, tables and all.
_lent: set[str] = set()
# What this process made: dropped when it ends, and the SQLite file that is copied.
_made = ExitStack()
_template: list[Path] = []


@contextmanager
def prepared_database() -> Iterator[str]:
    """Yield the URL of a database on the real server with the table of every model, and no row in them."""
    server = databases.server_url()
    key = server.render_as_string(hide_password=False)
    ready = _ready.setdefault(key, [])
    if not ready:
        ready.append(_new())
    name = ready.pop()
    url = server.set(database=name)
    shown = url.render_as_string(hide_password=False)
    _lent.add(shown)
    try:
        yield shown
    finally:
        _lent.discard(shown)
        if _as_new(url):
            ready.append(name)
        else:
            databases.drop_database(url)


def is_prepared(url: str) -> bool:
    """True while the URL is that of a database which `prepared_database` has lent."""
    return url in _lent


def copy_template(path: Path) -> None:
    """Make an SQLite file with the table of every model."""
    if not _template:
        folder = Path(_made.enter_context(tempfile.TemporaryDirectory(prefix="hotplug-template-")))
        _create_tables(f"sqlite:///{folder}/template.db")
        _template.append(folder / "template.db")
    shutil.copyfile(_template[0], path)


def end() -> None:
    """Drop what this process has made."""
    _ready.clear()
    _template.clear()
    _made.close()


def _new() -> str:
    with ExitStack() as stack:
        url = stack.enter_context(databases.new_database())
        _create_tables(url)
        name = str(make_url(url).database)
        _shapes.setdefault(_address(make_url(url)), _shape(make_url(url)))
        _made.push(stack.pop_all())
    return name


def _create_tables(url: str) -> None:
    service = DatabaseService(url)
    service.create_db_and_tables(list(MODELS))
    service.close()


# What SHOW CREATE TABLE says of each table that was just made, by the server's address.
_shapes: dict[str, dict[str, str]] = {}


def _address(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _shape(url: URL) -> dict[str, str]:
    with closing(_connect(url)) as connection, connection.cursor() as cursor:
        return _shape_seen(cursor)


def _shape_seen(cursor: pymysql.cursors.Cursor) -> dict[str, str]:
    cursor.execute("SHOW FULL TABLES")
    names = [f"{name}" if kind == "BASE TABLE" else f"{kind} {name}" for name, kind in cursor.fetchall()]
    seen = {name: "" for name in names if " " in name}
    for name in names:
        if name not in seen:
            cursor.execute(f"SHOW CREATE TABLE `{name}`")
            [(_, seen[name])] = cursor.fetchall()
    cursor.execute("SHOW TRIGGERS")
    seen |= {f"trigger {row[0]}": "" for row in cursor.fetchall()}
    cursor.execute("SELECT @@character_set_database, @@collation_database")
    seen["database defaults"] = str(cursor.fetchone())
    return seen


def _as_new(url: URL) -> bool:
    """Bring a database back to what it was when it was made; False where that cannot be."""
    try:
        with closing(_connect(url)) as connection, connection.cursor() as cursor:
            return not _in_use(cursor, str(url.database)) and _restore(cursor, _shapes[_address(url)])
    except pymysql.err.MySQLError:
        return False


def _in_use(cursor: pymysql.cursors.Cursor, name: str) -> bool:
    # A process that outlives its test could write into the next one's tables. A line that was just closed is seen for
    # some milliseconds more.
    end = time.monotonic() + _IN_USE_S
    while True:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = %s AND ID <> CONNECTION_ID()",
            (name,),
        )
        [(others,)] = cursor.fetchall()
        if not others:
            return False
        if time.monotonic() > end:
            return True
        time.sleep(0.01)


def _restore(cursor: pymysql.cursors.Cursor, shape: dict[str, str]) -> bool:
    cursor.execute(
        f"SET SESSION lock_wait_timeout = {_LOCK_WAIT_S}, innodb_lock_wait_timeout = {_LOCK_WAIT_S}"
    )
    cursor.execute("SET SESSION foreign_key_checks = 0")
    seen = _shape_seen(cursor)
    if {name for name in seen if " " in name} != {name for name in shape if " " in name}:
        return False
    # What a test has added, as an agent's tables, or altered.
    wrong = [name for name in seen if _COUNTER.sub("", seen[name]) != shape.get(name)]
    for name in wrong:
        cursor.execute(f"DROP TABLE `{name}`")
    for name in shape.keys() - (seen.keys() - set(wrong)):
        cursor.execute(shape[name])
    tables = [name for name in shape if " " not in name]
    counts = [
        f"(SELECT '{name}', COUNT(*) FROM (SELECT 1 FROM `{name}` LIMIT {MOST_ROWS}) AS some)"
        for name in tables
    ]
    cursor.execute(" UNION ALL ".join(counts))
    rows = {name: count for name, count in cursor.fetchall() if count}
    if sum(rows.values()) >= MOST_ROWS:
        return False
    statements = [f"DELETE FROM `{name}`" for name in rows]
    statements += [
        f"ALTER TABLE `{name}` AUTO_INCREMENT = 1" for name in tables if _COUNTER.search(seen.get(name, ""))
    ]
    if statements:
        cursor.execute("; ".join(statements))
        while cursor.nextset():
            pass
    return (not wrong and seen.keys() == shape.keys()) or _shape_seen(cursor) == shape


def _connect(url: URL) -> pymysql.connections.Connection:
    return pymysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username or "root",
        password=str(url.password or ""),
        database=url.database,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
        connect_timeout=3,
        read_timeout=30,
        ssl_disabled=True,
    )
