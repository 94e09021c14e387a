"""Alembic's environment: revisions run on the connection that chalicelib/events/migration.py hands over."""

from __future__ import annotations

from alembic import context

# The connection is in AUTOCOMMIT: MySQL's DDL is not transactional, so each revision is recorded as it is
# done. Where the caller has opened a transaction (SQLite), everything happens in that.
context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
