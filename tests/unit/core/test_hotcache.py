from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core import cache_log
from chalicelib.core.cache_log import EVERYTHING, CacheChange, CacheVersion, touch
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.guards import NetworkInsideUnit
from chalicelib.core.hotcache import RECENT_CHANGES, Dependency, HotCache
from tests.conftest import create_schema

Read = Callable[[Session], tuple[Any, list[Dependency]]]


def name_of(number: int) -> Read:
    def read(session: Session) -> tuple[str | None, list[Dependency]]:
        row = session.get(App, number)
        return (row.name, [("apps", str(number))]) if row else (None, [("apps", EVERYTHING)])

    return read


def all_names(session: Session) -> tuple[tuple[str, ...], list[Dependency]]:
    return tuple(session.scalars(select(App.name).order_by(App.id))), [("apps", EVERYTHING)]


def rename(database: DatabaseService, number: int, name: str) -> None:
    with database.session_getter() as session:
        row = session.get(App, number)
        if row is None:
            session.add(App(id=number, name=name, alias_id=f"app-{number}"))
        else:
            row.name = name


@pytest.fixture
def apps(database: DatabaseService) -> DatabaseService:
    rename(database, 1, "one")
    rename(database, 2, "two")
    return database


@pytest.fixture
def cache(apps: DatabaseService) -> HotCache:
    """A cache that knows the current versions and holds both apps, the list of them, and something of the
    tools."""
    cache = HotCache(apps)
    cache.refresh()
    look(cache)
    return cache


def look(cache: HotCache) -> tuple[Any, ...]:
    return (
        cache.load("one", name_of(1)),
        cache.load("two", name_of(2)),
        cache.load("names", all_names),
        cache.load("tool", lambda _: ("a tool", [("tools", "t")])),
    )


def kept(cache: HotCache) -> set[str]:
    return {name for name in ("one", "two", "names", "tool", "three") if cache.get(name) is not None}


# -- following -----------------------------------------------------------------------------------------------


def test_what_is_kept_is_not_read_again(cache: HotCache) -> None:
    def unread(_: Session) -> tuple[str, list[Dependency]]:
        raise AssertionError("read again")

    cache.refresh()
    assert cache.load("one", unread) == "one"


def test_a_change_drops_what_derives_from_its_key_and_the_lists(
    apps: DatabaseService, cache: HotCache
) -> None:
    rename(apps, 1, "ONE")
    cache.refresh()
    assert kept(cache) == {"two", "tool"}
    assert look(cache) == ("ONE", "two", ("ONE", "two"), "a tool")


def test_many_changes_are_followed_in_one_step(apps: DatabaseService, cache: HotCache) -> None:
    for turn in range(5):
        rename(apps, 1, f"turn {turn}")
    with apps.session_getter() as session:
        touch(session, "tools", "t")
    cache.refresh()
    assert kept(cache) == {"two"}


def test_a_bulk_statement_drops_the_scope(apps: DatabaseService, cache: HotCache) -> None:
    with apps.session_getter() as session:
        session.execute(update(App).where(App.id == 1).values(name="ONE"))
    cache.refresh()
    assert kept(cache) == {"tool"}


def test_a_rolled_back_change_drops_nothing(apps: DatabaseService, cache: HotCache) -> None:
    with pytest.raises(KeyError), apps.session_getter() as session:
        session.get_one(App, 1).name = "never"
        session.flush()
        raise KeyError
    cache.refresh()
    assert kept(cache) == {"one", "two", "names", "tool"}


def test_reloads_count_the_scopes_that_moved(apps: DatabaseService, cache: HotCache) -> None:
    cache.refresh()
    assert cache.reloads == 0
    rename(apps, 1, "ONE")
    cache.refresh()
    assert cache.reloads == 1


# -- rule 1: only what was loaded under the known version is kept --------------------------------------------


def test_what_was_read_before_a_change_was_noticed_is_refused(apps: DatabaseService, cache: HotCache) -> None:
    # GIVEN a value that was read, then changed, and the change noticed before the value is put
    stamp = cache.stamp()
    with apps.reads() as session:
        value, depends = name_of(1)(session)
    rename(apps, 1, "ONE")
    cache.refresh()
    # WHEN it is put THEN it is refused: no later change would drop it
    assert cache.put("one", value, depends, stamp) is False
    assert cache.load("one", name_of(1)) == "ONE"


def test_what_was_read_before_the_first_refresh_is_refused(apps: DatabaseService) -> None:
    # GIVEN a cold cache, a value read under no version at all, and a change before the first version is known
    cache = HotCache(apps)
    stamp = cache.stamp()
    with apps.reads() as session:
        value, depends = name_of(1)(session)
    rename(apps, 1, "ONE")
    cache.refresh()
    # THEN the value, which is older than the version that is now known, is refused
    assert cache.put("one", value, depends, stamp) is False


def test_before_the_first_refresh_nothing_is_kept(apps: DatabaseService) -> None:
    cache = HotCache(apps)
    assert cache.load("one", name_of(1)) == "one"
    assert len(cache) == 0


def test_what_is_read_newer_than_known_is_dropped_in_time(apps: DatabaseService, cache: HotCache) -> None:
    # GIVEN an entry that was loaded after a change which the cache has not noticed yet
    rename(apps, 3, "three")
    cache.load("three", name_of(3))
    # WHEN it changes again THEN both changes are followed
    rename(apps, 3, "THREE")
    cache.refresh()
    assert cache.load("three", name_of(3)) == "THREE"


# -- rule 2: nothing is filled from inside a unit of work ----------------------------------------------------


def test_filling_inside_a_unit_is_refused(apps: DatabaseService, cache: HotCache) -> None:
    stamp = cache.stamp()
    with pytest.raises(KeyError), apps.session_getter() as session:
        session.get_one(App, 1).name = "never"
        session.flush()
        value, depends = name_of(1)(session)
        with pytest.raises(NetworkInsideUnit):
            cache.put("one", value, depends, stamp)
        with pytest.raises(NetworkInsideUnit):
            cache.load("three", name_of(3))
        with pytest.raises(NetworkInsideUnit):
            cache.load("one", name_of(1))
        raise KeyError
    assert look(cache)[0] == "one"


# -- rule 3: entries name what they derive from --------------------------------------------------------------


def test_absence_derives_from_everything(apps: DatabaseService, cache: HotCache) -> None:
    assert cache.load("three", name_of(3)) is None
    rename(apps, 3, "three")
    cache.refresh()
    assert cache.load("three", name_of(3)) == "three"


def test_absence_is_kept_until_then(apps: DatabaseService, cache: HotCache) -> None:
    reads = count()

    def read(session: Session) -> tuple[Any, list[Dependency]]:
        next(reads)
        return name_of(3)(session)

    assert [cache.load("three", read), cache.load("three", read)] == [None, None]
    assert next(reads) == 1


def test_an_entry_of_several_keys_falls_with_each(apps: DatabaseService, cache: HotCache) -> None:
    def both(session: Session) -> tuple[str, list[Dependency]]:
        return name_of(1)(session)[0] + name_of(2)(session)[0], [("apps", "1"), ("apps", "2"), ("tools", "t")]

    for change in (lambda: rename(apps, 1, "1"), lambda: rename(apps, 2, "2")):
        cache.load("both", both)
        change()
        cache.refresh()
        assert cache.get("both") is None
    assert cache.load("both", both) == "12"


def test_an_entry_that_derives_from_nothing_is_refused(cache: HotCache) -> None:
    with pytest.raises(ValueError, match="derives from nothing"):
        cache.load("eternal", lambda _: ("for ever", []))


# -- rule 4: where the log cannot tell, everything is dropped ------------------------------------------------


def test_a_gap_in_the_log_drops_the_scope(apps: DatabaseService, cache: HotCache) -> None:
    rename(apps, 1, "ONE")
    rename(apps, 3, "three")
    with apps.session_getter() as session:
        session.execute(delete(CacheChange).where(CacheChange.item_key == "1"))
    cache.refresh()
    assert kept(cache) == {"tool"}
    assert look(cache)[0] == "ONE"


def test_a_log_that_was_pruned_beyond_what_is_known_drops_the_scope(
    apps: DatabaseService, cache: HotCache
) -> None:
    known, _ = cache.version("apps")
    for turn in range(3):
        rename(apps, 1, f"turn {turn}")
    with apps.session_getter() as session:
        assert cache_log.prune(session, "apps", known + 1) > 0
    cache.refresh()
    assert kept(cache) == {"tool"}


def test_a_step_longer_than_the_log_drops_the_scope(apps: DatabaseService, cache: HotCache) -> None:
    with apps.session_getter() as session:
        moved = CacheVersion.version + cache_log.KEPT_VERSIONS + 1
        session.execute(update(CacheVersion).where(CacheVersion.scope == "apps").values(version=moved))
    cache.refresh()
    assert kept(cache) == {"tool"}


def test_numbers_that_go_back_drop_the_scope(apps: DatabaseService, cache: HotCache) -> None:
    with apps.session_getter() as session:
        session.execute(update(CacheVersion).where(CacheVersion.scope == "apps").values(version=1))
    cache.refresh()
    assert kept(cache) == {"tool"}
    assert cache.version("apps")[0] == 1


def test_another_epoch_drops_everything_even_at_the_same_number(
    apps: DatabaseService, cache: HotCache
) -> None:
    with apps.session_getter() as session:
        cache_log.renew_epoch(session)
    cache.refresh()
    assert kept(cache) == set()


def test_another_epoch_with_a_log_that_seems_to_fit_drops_everything(
    apps: DatabaseService, cache: HotCache
) -> None:
    # GIVEN a restore, after which the numbers went on as far as they were known, and one further
    rename(apps, 3, "three")
    with apps.session_getter() as session:
        cache_log.renew_epoch(session)
    cache.refresh()
    assert kept(cache) == set()


def test_a_scope_whose_row_is_gone_is_not_served(apps: DatabaseService, cache: HotCache) -> None:
    with apps.session_getter() as session:
        session.execute(delete(CacheVersion).where(CacheVersion.scope == "apps"))
    cache.refresh()
    assert kept(cache) == {"tool"}
    assert cache.version("apps") == (0, "")
    cache.load("one", name_of(1))
    assert cache.get("one") is None


# -- bounds --------------------------------------------------------------------------------------------------


def test_the_least_recently_used_entries_go_first(apps: DatabaseService) -> None:
    cache = HotCache(apps, capacity=2)
    cache.refresh()
    cache.load("one", name_of(1))
    cache.load("two", name_of(2))
    cache.load("one", name_of(1))
    cache.load("names", all_names)
    assert kept(cache) == {"one", "names"}
    assert len(cache) == 2


def test_what_is_heavy_makes_room_for_itself(apps: DatabaseService) -> None:
    cache = HotCache(apps, max_weight=100)
    cache.refresh()
    cache.load("three", name_of(1))
    cache.load("names", name_of(1), lambda _: 60)
    cache.load("two", name_of(2))
    # WHEN one comes that does not fit beside the others THEN the least recently used go until it does
    cache.load("tool", name_of(2), lambda _: 61)
    assert kept(cache) == {"two", "tool"}
    # AND the weight of what went, or was replaced, counts no longer
    cache.put("tool", "again", [("apps", "1")], cache.stamp(), weight=99)
    cache.load("one", name_of(1), lambda _: 1)
    assert kept(cache) == {"two", "tool", "one"}


def test_what_is_too_heavy_for_the_cache_is_not_kept_and_drives_nothing_out(apps: DatabaseService) -> None:
    cache = HotCache(apps, max_weight=100)
    cache.refresh()
    cache.load("one", name_of(1), lambda _: 100)
    assert cache.load("two", name_of(2), lambda _: 101) == "two"
    assert kept(cache) == {"one"}


def test_within_the_staleness_bound_the_versions_are_not_read(apps: DatabaseService) -> None:
    now = [100.0]
    cache = HotCache(apps, max_staleness_ms=500, clock=lambda: now[0])
    cache.refresh()
    look(cache)
    rename(apps, 1, "ONE")
    now[0] += 0.499
    cache.refresh()
    assert look(cache)[0] == "one"
    now[0] += 0.001
    cache.refresh()
    assert look(cache)[0] == "ONE"


@pytest.mark.parametrize(
    "url",
    ["sqlite:////no/such/folder/hotplug.db", "mysql+pymysql://root@127.0.0.1:1/hotplug"],
    ids=["sqlite", "mysql"],
)
def test_a_database_that_is_away_is_503(url: str) -> None:
    service = DatabaseService(url, connect_timeout=1)
    with pytest.raises(Unavailable) as caught:
        HotCache(service).refresh()
    assert (caught.value.code, caught.value.retry_after) == ("database.away", 2)
    assert "127.0.0.1" not in caught.value.detail and "folder" not in caught.value.detail


# -- what the runtime functions follow -----------------------------------------------------------------------


def test_recent_changes_are_those_that_were_followed(apps: DatabaseService, cache: HotCache) -> None:
    before, _ = cache.version("apps")
    assert cache.recent_changes("apps") == []
    rename(apps, 1, "ONE")
    with apps.session_getter() as session:
        touch(session, "apps", "7")
        touch(session, "apps", "8")
    cache.refresh()
    assert cache.recent_changes("apps") == [(before + 1, "1"), (before + 2, "7"), (before + 2, "8")]
    assert cache.version("apps")[0] == before + 2


def test_recent_changes_hold_whole_versions_only(apps: DatabaseService, cache: HotCache) -> None:
    # GIVEN a list whose oldest version lost one of its two keys to the bound
    with apps.session_getter() as session:
        touch(session, "tools", "lost")
        touch(session, "tools", "left")
    for number in range(RECENT_CHANGES - 1):
        with apps.session_getter() as session:
            touch(session, "tools", f"t{number}")
    cache.refresh()
    # THEN that version is not shown: who knew the one before it would keep the lost key
    assert [number for number, _ in cache.recent_changes("tools")] == list(range(2, RECENT_CHANGES + 1))


def test_recent_changes_begin_anew_where_the_log_could_not_tell(
    apps: DatabaseService, cache: HotCache
) -> None:
    rename(apps, 1, "ONE")
    cache.refresh()
    with apps.session_getter() as session:
        cache_log.renew_epoch(session)
    cache.refresh()
    assert cache.recent_changes("apps") == []


# -- random histories ----------------------------------------------------------------------------------------

KEYS = st.integers(1, 4)
CACHES = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("write"), KEYS, st.booleans()),
    st.tuples(st.just("delete"), KEYS, st.booleans()),
    st.tuples(st.just("bulk"), KEYS, st.booleans()),
    st.tuples(st.just("prune"), st.integers(1, 30), st.none()),
    st.tuples(st.just("restore"), st.none(), st.none()),
    st.tuples(st.just("request"), CACHES, KEYS),
    st.tuples(st.just("request"), CACHES, KEYS),
    st.tuples(st.just("begin load"), CACHES, KEYS),
    st.tuples(st.just("end load"), CACHES, KEYS),
)


class History:
    """Three warm functions and a writer on one database, and what a request must see."""

    def __init__(self, url: str) -> None:
        self.database = DatabaseService(url)
        self.caches = [HotCache(self.database, capacity=5) for _ in range(3)]
        self.names: dict[int, str] = {}
        self.loads: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.turn = count()

    def run(self, step: tuple[str, Any, Any]) -> None:
        getattr(self, step[0].replace(" ", "_"))(*step[1:])

    def write(self, key: int, commit: bool) -> None:
        self._unit(commit, key, f"name {next(self.turn)}")

    def delete(self, key: int, commit: bool) -> None:
        self._unit(commit, key, None)

    def _unit(self, commit: bool, key: int, name: str | None) -> None:
        with self.database.session_getter() as session:
            row = session.get(App, key)
            if row is not None and name is None:
                session.delete(row)
            elif row is not None and name is not None:
                row.name = name
            elif name is not None:
                session.add(App(id=key, name=name, alias_id=f"app-{key}"))
            if not commit:
                session.flush()
                session.rollback()
                return
        self.names = {**self.names, key: name} if name is not None else self._without(key)

    def _without(self, key: int) -> dict[int, str]:
        return {other: name for other, name in self.names.items() if other != key}

    def bulk(self, key: int, commit: bool) -> None:
        name = f"bulk {next(self.turn)}"
        with self.database.session_getter() as session:
            session.execute(update(App).where(App.id <= key).values(name=name))
            if not commit:
                session.rollback()
                return
        self.names = {other: name if other <= key else old for other, old in self.names.items()}

    def prune(self, through: int, _: None) -> None:
        with self.database.session_getter() as session:
            cache_log.prune(session, "apps", through)

    def restore(self, *_: None) -> None:
        with self.database.session_getter() as session:
            cache_log.renew_epoch(session)

    def request(self, index: int, key: int) -> None:
        cache = self.caches[index]
        cache.refresh()
        assert cache.load(key, name_of(key)) == self.names.get(key)
        assert cache.load("names", all_names) == tuple(self.names[key] for key in sorted(self.names))

    def begin_load(self, index: int, key: int) -> None:
        """A load whose answer arrives later: other steps happen between reading and keeping."""
        cache = self.caches[index]
        stamp = cache.stamp()
        with self.database.reads() as session:
            self.loads[index, key] = (*name_of(key)(session), stamp)

    def end_load(self, index: int, key: int) -> None:
        if (index, key) in self.loads:
            self.caches[index].put(key, *self.loads.pop((index, key)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "hotplug.db"
    create_schema(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Iterator[Callable[[], str]]:
    numbers = count()

    def copy() -> str:
        path = tmp_path / f"{next(numbers)}.db"
        path.write_bytes(template.read_bytes())
        return f"sqlite:///{path}"

    yield copy


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=10, max_size=40))
def test_no_request_sees_an_old_state(fresh: Callable[[], str], steps: list[tuple[str, Any, Any]]) -> None:
    history = History(fresh())
    try:
        for step in steps:
            history.run(step)
        for index in range(3):
            for key in range(1, 5):
                history.request(index, key)
    finally:
        history.database.close()
