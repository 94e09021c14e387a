"""The database load that a process reports."""

from __future__ import annotations

from sqlalchemy import text

from chalicelib.core.database import DatabaseService


def test_statements_and_connections_are_counted_until_they_are_taken(sqlite_url: str) -> None:
    database = DatabaseService(sqlite_url)
    with database.reads() as session:
        for _ in range(3):
            session.execute(text("SELECT 1"))
    load = database.load.take()
    assert (load.connections, load.statements) == (1, 3)
    assert load.busy_ms > 0
    again = database.load.take()
    assert (again.connections, again.statements, again.busy_ms) == (0, 0, 0.0)
    database.close()
