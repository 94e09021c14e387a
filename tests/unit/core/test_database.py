from __future__ import annotations

import ssl
from typing import Any

import certifi
import pymysql
import pytest
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError

from chalicelib.core.connections import STATEMENT_TIMEOUT_S, mysql_connect_args
from chalicelib.core.database import (
    MEDIUM_TEXT,
    DatabaseService,
    JsonDocument,
    UtcDateTime,
    away,
    is_disconnect,
    is_duplicate,
    is_lock_failure,
)


def failed(*arguments: Any) -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception(*arguments))


@pytest.mark.parametrize(
    ("kind", "on_mysql", "on_sqlite"),
    [
        (UtcDateTime(), "DATETIME(6)", "DATETIME"),
        (JsonDocument(), "MEDIUMTEXT", "TEXT"),
        (MEDIUM_TEXT, "MEDIUMTEXT", "TEXT"),
    ],
)
def test_types_have_their_form_on_each_server(kind: Any, on_mysql: str, on_sqlite: str) -> None:
    for dialect, expected in ((mysql.dialect(), on_mysql), (sqlite.dialect(), on_sqlite)):
        assert kind.dialect_impl(dialect).compile(dialect=dialect) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_on_loopback_tls_is_off(host: str) -> None:
    arguments = mysql_connect_args(make_url(f"mysql+pymysql://me@{host}/x"), 3, None)
    assert arguments["ssl_disabled"] is True
    assert "ssl" not in arguments


def test_elsewhere_the_server_is_verified_by_one_context() -> None:
    url = make_url("mysql+pymysql://me@db.example/x")
    first, second = (mysql_connect_args(url, 3, None)["ssl"] for _ in range(2))
    assert first is second
    assert first.verify_mode is ssl.CERT_REQUIRED and first.check_hostname


def test_a_ca_file_turns_tls_on_everywhere() -> None:
    arguments = mysql_connect_args(make_url("mysql+pymysql://me@127.0.0.1/x"), 3, certifi.where())
    assert arguments["ssl"].verify_mode is ssl.CERT_REQUIRED


def test_every_wait_for_the_server_has_a_bound() -> None:
    arguments = mysql_connect_args(make_url("mysql+pymysql://me@127.0.0.1/x"), 3, None)
    assert arguments["connect_timeout"] == 3
    assert arguments["read_timeout"] == arguments["write_timeout"] == STATEMENT_TIMEOUT_S


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failed(1213, "Deadlock found"), True),
        (failed(1205, "Lock wait timeout"), True),
        (failed("database is locked"), True),
        (failed(1062, "Duplicate"), False),
        (failed("no such table: x"), False),
    ],
)
def test_what_a_unit_runs_again_for(error: OperationalError, expected: bool) -> None:
    assert is_lock_failure(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failed(2013, "Lost connection"), True),
        (failed(0, ""), True),
        (failed("unable to open database file"), True),
        (OperationalError("SELECT 1", {}, Exception("?"), connection_invalidated=True), True),
        (pymysql.err.OperationalError(2006, "gone away"), True),
        (pymysql.err.InterfaceError(0, ""), True),
        (failed(1064, "syntax"), False),
        (failed("no such table: x"), False),
        (pymysql.err.OperationalError(1045, "Access denied"), False),
        (KeyError(0), False),
    ],
)
def test_what_counts_as_the_server_being_away(error: BaseException, expected: bool) -> None:
    assert is_disconnect(error) is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1062, "Duplicate entry"), True),
        (("UNIQUE constraint failed: app.alias_id",), True),
        ((1452, "a foreign key constraint fails"), False),
        (("NOT NULL constraint failed: app.name",), False),
    ],
)
def test_what_counts_as_a_duplicate(arguments: tuple[Any, ...], expected: bool) -> None:
    assert is_duplicate(IntegrityError("INSERT", {}, Exception(*arguments))) is expected


def test_the_503_tells_nothing_of_the_server() -> None:
    error = away(failed(2003, "Can't connect to MySQL server on 'db.internal'"))
    assert (error.status, error.code, error.retry_after) == (503, "database.away", 2)
    assert "internal" not in error.detail


def test_a_service_connects_only_when_it_is_used() -> None:
    DatabaseService("mysql+pymysql://nobody@127.0.0.1:1/nothing").close()
