"""A change of the master key: the data keys that a former master wrapped are wrapped by the current one.

No data key changes, and so no stored secret. A key that does not open stops no other; a master that does not answer
ends its own keys' turn.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from chalicelib.core import telemetry
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import HotplugError
from chalicelib.core.jobs import Action, Job, Plan
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.master_keys import WrappedKey, masters
from chalicelib.core.keys.secret_box import cannot_decrypt
from chalicelib.core.steps import declare, step

STEPS = declare("rewrapping", ("store",))
JOB = "rewrap_data_keys"
# Three calls of KMS each, between two looks at the clock; their rows are locked and their apps' cache bumped together.
BATCH = 20


def rewrapping_jobs(database: DatabaseService) -> tuple[Job, ...]:
    """Return the job that ends a change of the master key."""
    summary = "After a change of the master key: wrap every data key with the current one"
    return (Job(JOB, summary, None, lambda _: _plan(database)),)


def _plan(database: DatabaseService) -> Plan:
    """Plan one action for each former master that still wraps something.

    Raises
    ------
    errors.Unavailable
        `secrets.no_key` where no master key is configured.
    """
    current = masters().current.name
    with database.reads() as session:
        names = [name for name in session.scalars(select(DataKey.wrapped_by).distinct()) if name != current]
        counts = {name: _count(session, name) for name in sorted(names)}
    return Plan(
        tuple(Action(JOB, name, _Rewrapping(database, name).batch, count) for name, count in counts.items())
    )


def _count(session: Session, master: str) -> int:
    counted = select(func.count()).select_from(DataKey).where(DataKey.wrapped_by == master)
    return session.scalar(counted) or 0


class _Rewrapping:
    """The data keys of one former master. What is done is another's, so that a new run goes on where this one ended;
    what does not open is passed by."""

    def __init__(self, database: DatabaseService, master: str) -> None:
        self._database = database
        self._master = master
        self._after = (0, 0)
        self._shut = 0

    def batch(self) -> bool:
        """Rewrap the next keys, the master being asked outside the unit, and return whether there may be more.

        Raises
        ------
        errors.HotplugError
            `secrets.cannot_decrypt` at the end, if keys did not open; whatever a master answers else, at once.
        """
        keys = self._next()
        fresh = [(key, wrapped) for key in keys if (wrapped := self._wrapped(key)) is not None]
        if fresh:
            step("rewrapping", "store")
            self._database.run(partial(_store, fresh, masters().current.name))
        if len(keys) == BATCH:
            self._after = (keys[-1].app_id, keys[-1].key_version)
            return True
        if self._shut:
            raise cannot_decrypt()
        return False

    def _next(self) -> list[WrappedKey]:
        place = tuple_(DataKey.app_id, DataKey.key_version)
        with self._database.reads() as session:
            rows = session.scalars(
                select(DataKey)
                .where(DataKey.wrapped_by == self._master, place > self._after)
                .order_by(DataKey.app_id, DataKey.key_version)
                .limit(BATCH)
            )
            return [WrappedKey(row.app_id, row.key_version, row.wrapped, row.wrapped_by) for row in rows]

    def _wrapped(self, key: WrappedKey) -> str | None:
        """Return a key wrapped anew, None where it does not open.

        The process's own store of plain keys is for those that are used, and has no part in this.
        """
        known = masters()
        try:
            plain = known.named(self._master).unwrap(key)
        except HotplugError as error:
            # Anything else is said of the master, and holds for its other keys as well.
            if error.code != "secrets.cannot_decrypt":
                raise
            self._shut += 1
            telemetry.exception(
                "data_key.not_rewrapped", error, app_id=key.app_id, keyVersion=key.key_version
            )
            return None
        wrapped = known.current.wrap(key.app_id, plain)
        # It takes the place of the only one that opens: a master that wraps and does not unwrap, for want of a right,
        # must not get it.
        again = known.current.unwrap(WrappedKey(key.app_id, key.key_version, wrapped, known.current.name))
        if again != plain:
            raise cannot_decrypt()
        return wrapped


def _store(fresh: list[tuple[WrappedKey, str]], master: str, unit: Unit) -> None:
    for key, wrapped in fresh:
        row = unit.get(DataKey, (key.app_id, key.key_version), with_for_update=True)
        # Else the app is gone, or another run was first.
        if row is not None and row.wrapped == key.wrapped:
            row.wrapped, row.wrapped_by = wrapped, master
