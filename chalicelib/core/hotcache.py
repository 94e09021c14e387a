"""The reading half of the hot cache: what a warm function keeps in memory, and how it notices every change.

Once per invocation, before the request's other SQL, `refresh` reads all versions in one round trip. For a
scope that moved it reads which keys were touched, drops what derives from them, and only then takes the new
version as known.

Five rules make the promise "after a write is acknowledged no later request sees the old state" hold:

1. the version is read before data is loaded, and an entry is refused unless it was loaded under the version
   that is still known;
2. entries are filled only through the read engine, never from inside a unit of work, which may roll back;
3. an entry names every (scope, key) that it derives from, `*` for lists and for absence;
4. when the change log has a gap, is shorter than the step, goes backwards or belongs to another epoch: drop
   all;
5. the bump is part of the writer's transaction (core/cache_log.py).

Threads of one invocation may share it: what changes the entries is done under a lock, which is never held while an
entry is read from the database.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from chalicelib.core import guards
from chalicelib.core.cache_log import EVERYTHING, KEPT_VERSIONS
from chalicelib.core.database import DatabaseService, away, is_disconnect
from chalicelib.core.settings import ONE_MIB

T = TypeVar("T")
RECENT_CHANGES = 100
# A function of 512 MB has about 150 MB of code in memory.
MAX_WEIGHT = 96 * ONE_MIB
Dependency = tuple[str, str]

_VERSIONS = text("SELECT scope, version, epoch FROM cache_version")
_CHANGES = text(
    "SELECT version, item_key FROM cache_change WHERE scope = :scope"
    " AND version > :known AND version <= :current ORDER BY version, item_key LIMIT :most"
)


@dataclass(frozen=True)
class Stamp:
    """Under which state of the cache a load began."""

    generation: int


@dataclass
class _Entry:
    value: Any
    depends: tuple[Dependency, ...]
    weight: int


class HotCache:
    """What one warm function knows.

    Parameters
    ----------
    database
        Read through its AUTOCOMMIT engine.
    max_staleness_ms
        For how long a version read stays good; 0 reads the versions at every invocation.
    capacity
        Entries kept; the least recently used go first.
    max_weight
        Bytes that the weighed entries may take together; the least recently used go first, whatever they weigh.
    """

    def __init__(
        self,
        database: DatabaseService,
        *,
        max_staleness_ms: int = 0,
        capacity: int = 20_000,
        max_weight: int = MAX_WEIGHT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._max_staleness_s = max_staleness_ms / 1000
        self._capacity = capacity
        self._max_weight = max_weight
        self._weight = 0
        self._clock = clock
        self._lock = threading.RLock()
        self._known: dict[str, tuple[int, str]] = {}
        self._refreshed_at: float | None = None
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._index: defaultdict[Dependency, set[Hashable]] = defaultdict(set)
        # Moves with every version that is taken as known: an entry that was loaded before is refused after
        # (rule 1).
        self._generation = 0
        self._recent: defaultdict[str, deque[tuple[int, str]]] = defaultdict(
            lambda: deque(maxlen=RECENT_CHANGES)
        )
        self.reloads = 0

    # -- validating ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take notice of every change that was committed before this call.

        Raises
        ------
        errors.Unavailable
            The database is away and no staleness bound covers it.
        """
        now = self._clock()
        if self._refreshed_at is not None and now - self._refreshed_at < self._max_staleness_s:
            return
        try:
            self._read_versions()
        except DBAPIError as error:
            if not is_disconnect(error):
                raise
            raise away(error) from error
        except PoolTimeout as error:
            raise away(error) from error
        self._refreshed_at = now

    def _read_versions(self) -> None:
        with self._database.connection() as connection:
            try:
                rows = connection.execute(_VERSIONS).all()
            except DBAPIError as error:
                # The pool does not ping (that is a round trip): a connection that died while this environment
                # was frozen is replaced here, once.
                if not is_disconnect(error):
                    raise
                rows = None
            if rows is not None:
                self._follow(connection, rows)
                return
        with self._database.connection() as connection:
            self._follow(connection, connection.execute(_VERSIONS).all())

    def _follow(self, connection: Connection, rows: Iterable[Row[Any]]) -> None:
        with self._lock:
            self._take_notice(connection, rows)

    def _take_notice(self, connection: Connection, rows: Iterable[Row[Any]]) -> None:
        seen = set()
        for row in rows:
            scope, version, epoch = row.scope, row.version, row.epoch
            seen.add(scope)
            known = self._known.get(scope)
            if known == (version, epoch):
                continue
            if known is not None:
                self.reloads += 1
                self._drop(scope, self._changed(connection, scope, known, (version, epoch)))
            # Also the first time: what was loaded before this number was read may be older than it.
            self._generation += 1
            self._known[scope] = (version, epoch)
        for scope in self._known.keys() - seen:
            # The row is gone (another database, a restore under way): nothing vouches for what was kept.
            self._forget(scope)

    def _forget(self, scope: str) -> None:
        self.reloads += 1
        self._generation += 1
        self._recent[scope].clear()
        self._drop(scope, (EVERYTHING,))
        del self._known[scope]

    def _changed(
        self, connection: Connection, scope: str, known: tuple[int, str], current: tuple[int, str]
    ) -> Collection[str]:
        """Return the keys to drop between two versions; `*` alone where the log cannot tell."""
        step = current[0] - known[0]
        if known[1] != current[1] or step <= 0 or step > KEPT_VERSIONS:
            self._recent[scope].clear()
            return (EVERYTHING,)
        most = KEPT_VERSIONS + 1
        rows = connection.execute(
            _CHANGES, {"scope": scope, "known": known[0], "current": current[0], "most": most}
        ).all()
        if len(rows) == most or len({version for version, _ in rows}) != step:
            self._recent[scope].clear()
            return (EVERYTHING,)
        self._recent[scope].extend((version, key) for version, key in rows)
        return {key for _, key in rows}

    def _drop(self, scope: str, keys: Collection[str]) -> None:
        if EVERYTHING in keys:
            doomed = {name for dep, names in self._index.items() if dep[0] == scope for name in names}
        else:
            doomed = set(self._index.get((scope, EVERYTHING), ()))
            for key in keys:
                doomed |= self._index.get((scope, key), set())
        for name in doomed:
            self._remove(name)

    def _remove(self, name: Hashable) -> None:
        entry = self._entries.pop(name)
        self._weight -= entry.weight
        for dependency in entry.depends:
            names = self._index[dependency]
            names.discard(name)
            if not names:
                del self._index[dependency]

    # -- entries ---------------------------------------------------------------------------------------------

    def stamp(self) -> Stamp:
        """Return the mark that a later `put` must carry; taken before the data is read."""
        return Stamp(self._generation)

    def put(
        self, name: Hashable, value: Any, depends: Iterable[Dependency], stamp: Stamp, *, weight: int = 0
    ) -> bool:
        """Keep a value; False where it was loaded under a state that is no longer the known one, or is too heavy.

        Parameters
        ----------
        weight
            Bytes, for a value that is much larger than a row (a parsed document).

        Raises
        ------
        guards.NetworkInsideUnit
            Inside a unit of work: what it read may be rolled back, or older than what is known.
        """
        guards.forbid_in_unit("filling the hot cache")
        depends = tuple(depends)
        if not depends:
            raise ValueError(f"{name!r} derives from nothing: no change would ever drop it")
        with self._lock:
            return self._put(name, value, depends, stamp, weight)

    def _put(
        self, name: Hashable, value: Any, depends: tuple[Dependency, ...], stamp: Stamp, weight: int
    ) -> bool:
        if stamp.generation != self._generation or any(scope not in self._known for scope, _ in depends):
            return False
        if weight > self._max_weight:
            return False
        if name in self._entries:
            self._remove(name)
        self._entries[name] = _Entry(value, depends, weight)
        self._weight += weight
        for dependency in depends:
            self._index[dependency].add(name)
        while len(self._entries) > self._capacity or self._weight > self._max_weight:
            self._remove(next(iter(self._entries)))
        return True

    def get(self, name: Hashable) -> Any | None:
        """Return a kept value, or None."""
        entry = self._entry(name)
        return None if entry is None else entry.value

    def _entry(self, name: Hashable) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
            return entry

    def load(
        self,
        name: Hashable,
        read: Callable[[Session], tuple[T, Iterable[Dependency]]],
        weigh: Callable[[T], int] = lambda _: 0,
    ) -> T:
        """Return the kept value, or read, keep and return it.

        Parameters
        ----------
        read
            Gets a read session and returns the value with every (scope, key) that it derives from. The value
            is shared by later requests of this process, so it must be immutable.
        weigh
            Returns how many bytes the value takes; see `put`.

        Raises
        ------
        guards.NetworkInsideUnit
            Inside a unit of work, also where the value is kept: whether it is, is chance.
        """
        guards.forbid_in_unit("the hot cache")
        entry = self._entry(name)
        if entry is not None:
            return entry.value  # type: ignore[no-any-return]
        stamp = self.stamp()
        with self._database.reads() as session:
            value, depends = read(session)
        self.put(name, value, depends, stamp, weight=weigh(value))
        return value

    def version(self, scope: str) -> tuple[int, str]:
        """Return (version, epoch) of a scope as last seen; (0, "") before the first refresh."""
        return self._known.get(scope, (0, ""))

    def take_reloads(self) -> int:
        """Return how often a scope moved since the last call, for the metrics."""
        reloads, self.reloads = self.reloads, 0
        return reloads

    def recent_changes(self, scope: str) -> list[tuple[int, str]]:
        """Return the last changes of a scope that this process followed, oldest first: whole versions,
        without a gap, up to `version(scope)`; none before its first refresh."""
        changes = list(self._recent[scope])
        if len(changes) < RECENT_CHANGES:
            return changes
        # The oldest version may have lost some of its keys: whoever follows the list would keep them.
        return [change for change in changes if change[0] != changes[0][0]]

    def __len__(self) -> int:
        return len(self._entries)
