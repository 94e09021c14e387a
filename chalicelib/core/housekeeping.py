"""The jobs of the core: bounding the tables that every request adds to.

Rows go in batches of a few hundred, each batch a unit of its own, so that no lock is held for long.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from chalicelib.core import cache_log, leases
from chalicelib.core.cache_log import CacheChange
from chalicelib.core.database import Base, DatabaseService, Unit
from chalicelib.core.idempotency_record import IdempotencyRecord
from chalicelib.core.instances import KEPT, Instance
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.leases import LeaseRow
from chalicelib.core.outbound import circuit_record
from chalicelib.core.outbound.circuit_record import CircuitBreaker
from chalicelib.core.steps import declare, step

STEPS = declare("housekeeping", ("prune_log", "delete_rows", "prune_leases", "prune_breakers", "renew_epoch"))
HOUR_S, DAY_S = 3600, 86400
BATCH = 500
# A plan says how many rows are concerned without counting a table of any size.
COUNTED = 10_000
# Clocks of functions differ; a record that expired this long ago nobody believes in.
IDEMPOTENCY_MARGIN = timedelta(hours=1)
# No holder runs that long, so a number that starts again cannot be taken for an old one.
LEASES_KEPT = timedelta(days=1)
# Longer than any probe: its outcome must still find the row that it belongs to.
BREAKERS_KEPT = timedelta(days=1)
# Each row that goes names its app in the change log; more than `cache_log.MOST_KEYS` apps would drop them all.
BREAKER_BATCH = cache_log.MOST_KEYS


def housekeeping_jobs(database: DatabaseService, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs that know no domain."""
    return (
        Job(
            "prune_log",
            f"Keep the last {cache_log.KEPT_VERSIONS} versions of the cache's change log",
            HOUR_S,
            lambda _: _plan_log(database),
        ),
        Job(
            "prune_instances",
            "Forget warm environments that were not seen for an hour",
            HOUR_S,
            lambda _: _plan_instances(database, now),
        ),
        Job(
            "prune_idempotency",
            "Delete idempotency records past their 24 hours",
            HOUR_S,
            lambda _: _plan_idempotency(database, now),
        ),
        Job(
            "prune_leases",
            "Delete leases that ended more than a day ago",
            HOUR_S,
            lambda _: _plan_leases(database, now),
        ),
        Job(
            "prune_breakers",
            "Forget circuit breakers that did not change for a day",
            HOUR_S,
            lambda _: _plan_breakers(database, now),
        ),
        Job(
            "renew_epoch",
            "After a restore from backup: make every warm function drop all it has",
            None,
            lambda _: _plan_epoch(database),
        ),
    )


def delete_rows(
    database: DatabaseService, model: type[Base], key: InstrumentedAttribute[Any], old: Any, order: Any
) -> Callable[[], bool]:
    """Return an action's work that deletes the rows for which `old` holds, a batch at a time.

    Parameters
    ----------
    model
        Of rows that no function caches: a bulk statement would drop a whole scope.
    key
        The primary key, one column.
    old, order
        A condition and an order that one index serves.
    """

    def batch(session: Unit) -> bool:
        # By their keys: a range would also lock the gap into which others insert.
        keys = session.scalars(select(key).where(old).order_by(order).limit(BATCH)).all()
        if keys:
            gone = delete(model).where(key.in_(keys), old)
            session.execute(gone, execution_options={"synchronize_session": False})
        return len(keys) == BATCH

    def work() -> bool:
        step("housekeeping", "delete_rows")
        return database.run(batch)

    return work


def count_rows(session: Session, key: InstrumentedAttribute[Any], old: Any) -> int:
    """Return how many rows `old` holds for, at most `COUNTED`."""
    bounded = select(key).where(old).limit(COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(bounded)) or 0


def plan_rows(
    database: DatabaseService, model: type[Base], key: InstrumentedAttribute[Any], old: Any, order: Any
) -> Plan:
    """Return the plan of one action that deletes the rows for which `old` holds; of none where there are none."""
    with database.reads() as session:
        count = count_rows(session, key, old)
    if not count:
        return Plan()
    work = delete_rows(database, model, key, old, order)
    return Plan((Action("delete_rows", model.__tablename__, work, count),), more=count == COUNTED)


def _plan_log(database: DatabaseService) -> Plan:
    with database.reads() as session:
        ends = cache_log.plan_prune(session)
        counts = {
            scope: count_rows(
                session, CacheChange.version, (CacheChange.scope == scope) & (CacheChange.version <= through)
            )
            for scope, through in ends.items()
        }
    return Plan(
        tuple(
            Action(
                "prune_log", f"{scope} through {through}", _prune_log(database, scope, through), counts[scope]
            )
            for scope, through in sorted(ends.items())
        )
    )


def _prune_log(database: DatabaseService, scope: str, through: int) -> Callable[[], bool]:
    def work() -> bool:
        step("housekeeping", "prune_log")
        return database.run(lambda session: cache_log.prune(session, scope, through)) > 0

    return work


def _plan_instances(database: DatabaseService, now: Clock) -> Plan:
    old = Instance.seen_at < now() - KEPT
    return plan_rows(database, Instance, Instance.instance_id, old, Instance.seen_at)


def _plan_idempotency(database: DatabaseService, now: Clock) -> Plan:
    before = int((now() - IDEMPOTENCY_MARGIN).timestamp())
    old = IdempotencyRecord.expires_at < before
    return plan_rows(database, IdempotencyRecord, IdempotencyRecord.id, old, IdempotencyRecord.expires_at)


def _plan_leases(database: DatabaseService, now: Clock) -> Plan:
    before = now() - LEASES_KEPT
    with database.reads() as session:
        count = count_rows(session, LeaseRow.name, LeaseRow.expires_at < before)

    def work() -> bool:
        step("housekeeping", "prune_leases")
        return database.run(lambda session: leases.prune(session, before)) == leases.PRUNE_BATCH

    return Plan((Action("prune_leases", "lease", work, count),) if count else ())


def _plan_breakers(database: DatabaseService, now: Clock) -> Plan:
    before = now() - BREAKERS_KEPT
    with database.reads() as session:
        count = count_rows(session, CircuitBreaker.app_id, CircuitBreaker.updated_at < before)

    def work() -> bool:
        step("housekeeping", "prune_breakers")
        gone = database.run(lambda session: circuit_record.delete_old(session, before, BREAKER_BATCH))
        return gone == BREAKER_BATCH

    return Plan((Action("prune_breakers", "circuit_breaker", work, count),) if count else ())


def _plan_epoch(database: DatabaseService) -> Plan:
    def renew(session: Unit) -> None:
        cache_log.renew_epoch(session)

    def work() -> bool:
        step("housekeeping", "renew_epoch")
        database.run(renew)
        return False

    return Plan((Action("renew_epoch", "cache_version", work),))
