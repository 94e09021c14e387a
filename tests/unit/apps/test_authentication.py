from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from chalicelib.apps.authentication import NOTE_USE_EVERY_S, LastUse, authenticate, hash_secret
from chalicelib.apps.models import App, AppCredential
from chalicelib.core.caller import ROLES, Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unauthenticated
from chalicelib.core.hotcache import HotCache
from tests.conftest import create_schema

PAIR = "key:s3cret:with:colons"


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    service = create_schema(sqlite_url)
    with service.session_getter() as session:
        session.add(App(id=1, name="Acme", alias_id="acme", audit_policy=1))
        session.flush()
        session.add(
            AppCredential(
                id=2, app_id=1, api_key="key", secret_hash=hash_secret("s3cret:with:colons"), role="caller"
            )
        )
    yield service
    service.close()


@pytest.fixture
def cache(database: DatabaseService) -> HotCache:
    return HotCache(database)


def login(cache: HotCache, header: str | None) -> Caller:
    cache.refresh()
    return authenticate(cache, header, "r-1")


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {PAIR}",
        f"bearer {PAIR}",
        f"Bearer   {PAIR} ",
        f"Bearer {base64.b64encode(PAIR.encode()).decode()}",
    ],
)
def test_a_credential_is_known_by_its_key_and_secret(cache: HotCache, header: str) -> None:
    assert login(cache, header) == Caller(1, "acme", 2, "caller", "r-1", audits_reads=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer key",
        "Bearer key:",
        "Bearer :s3cret",
        "Bearer key:s3cret",
        "Bearer KEY:s3cret:with:colons",
        "Bearer key :s3cret:with:colons",
        f"Basic {PAIR}",
        f"Token {PAIR}",
        "Bearer a2V5",
        "Bearer !!!!",
        "Bearer //79",
        f"Bearer {'k' * 51}:s",
        f"Bearer key:{'s' * 600}",
        "Bearer kéy:s3cret",
        "Bearer nobody:s3cret",
    ],
)
def test_anything_else_gets_one_answer(cache: HotCache, header: str | None) -> None:
    with pytest.raises(Unauthenticated) as refused:
        login(cache, header)
    assert (refused.value.code, refused.value.errors) == ("auth.unauthenticated", ())
    assert "s3cret" not in refused.value.detail


@pytest.mark.parametrize("key", ["key ", " key", "k ey"])
def test_a_key_with_a_blank_is_not_looked_up(
    cache: HotCache, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """MySQL would find `key` for `key `: one credential under many names."""

    def load(*_: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(cache, "load", load)
    with pytest.raises(Unauthenticated):
        login(cache, "Bearer " + base64.b64encode(f"{key}:s3cret:with:colons".encode()).decode())


def test_the_hash_of_the_secret_is_no_secret(cache: HotCache) -> None:
    with pytest.raises(Unauthenticated):
        login(cache, f"Bearer key:{hash_secret('s3cret:with:colons').hex()}")


def test_made_up_keys_do_not_fill_the_cache(cache: HotCache) -> None:
    login(cache, f"Bearer {PAIR}")
    kept = len(cache)
    for number in range(10):
        with pytest.raises(Unauthenticated):
            login(cache, f"Bearer made-up-{number}:s")
    assert len(cache) == kept


def test_a_key_that_was_unknown_is_known_as_soon_as_it_exists(
    database: DatabaseService, cache: HotCache
) -> None:
    with pytest.raises(Unauthenticated):
        login(cache, "Bearer new:s")
    row = AppCredential(app_id=1, api_key="new", secret_hash=hash_secret("s"), role="viewer")
    database.run(lambda session: session.add(row))
    assert login(cache, "Bearer new:s").role == "viewer"


@pytest.mark.parametrize("change", ["app", "credential", "expiry", "removal"])
def test_what_is_withdrawn_is_refused_by_the_next_request(
    database: DatabaseService, cache: HotCache, change: str
) -> None:
    login(cache, f"Bearer {PAIR}")
    with database.session_getter() as session:
        app, credential = session.get_one(App, 1), session.get_one(AppCredential, 2)
        if change == "app":
            app.status = 0
        elif change == "credential":
            credential.status = 0
        elif change == "expiry":
            credential.expires_at = datetime.now(UTC) - timedelta(microseconds=1)
        else:
            session.delete(credential)
    with pytest.raises(Unauthenticated):
        login(cache, f"Bearer {PAIR}")


def test_a_kept_credential_expires_without_any_change(database: DatabaseService, cache: HotCache) -> None:
    with database.session_getter() as session:
        session.get_one(AppCredential, 2).expires_at = datetime.now(UTC) + timedelta(seconds=0.3)
    login(cache, f"Bearer {PAIR}")
    while datetime.now(UTC) < expiry(database):
        pass
    with pytest.raises(Unauthenticated):
        login(cache, f"Bearer {PAIR}")


def expiry(database: DatabaseService) -> datetime:
    with database.reads() as session:
        at = session.scalar(select(AppCredential.expires_at).where(AppCredential.id == 2))
    assert at is not None
    return at


def test_each_role_includes_those_before_it() -> None:
    for mine, role in enumerate(ROLES):
        caller = Caller(1, "acme", 2, role, "r")
        assert [caller.may(other) for other in ROLES] == [other <= mine for other in range(len(ROLES))]


def test_the_last_use_is_noted_every_few_minutes_without_a_reload(
    database: DatabaseService, cache: HotCache
) -> None:
    now = 1000.0
    last_use = LastUse(lambda: now)
    cache.refresh()
    before = cache.version("apps")
    assert last_use.note(database, 2)
    now += NOTE_USE_EVERY_S - 1
    assert not last_use.note(database, 2)
    now += 1
    assert last_use.note(database, 2)
    with database.reads() as session:
        assert session.scalar(select(AppCredential.last_used_at).where(AppCredential.id == 2)) is not None
    cache.refresh()
    assert cache.version("apps") == before


def test_a_last_use_that_cannot_be_written_is_tried_again() -> None:
    away = DatabaseService("mysql+pymysql://root@127.0.0.1:1/none")
    last_use = LastUse()
    assert [last_use.note(away, 2), last_use.note(away, 2)] == [False, False]
