from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from sqlalchemy import Table, select

from chalicelib.core import cache_log, guards
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.keys import data_keys, master_keys
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.master_keys import WrappedKey
from tests.fakes.kms import FakeKms, client_error

AAD = ("plugin_x_1", "17", "/apiKey")


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[[], DatabaseService]]:
    """Make services on one SQLite file, each with an engine of its own."""
    opened: list[DatabaseService] = []

    def make() -> DatabaseService:
        opened.append(DatabaseService(f"sqlite:///{tmp_path}/keys.db"))
        return opened[-1]

    first = make()
    tables = [model.__table__ for model in (DataKey, cache_log.CacheVersion, cache_log.CacheChange)]
    Base.metadata.create_all(first.engine, tables=[table for table in tables if isinstance(table, Table)])
    with first.session_getter() as session:
        cache_log.seed(session)
    yield make
    for service in opened:
        service.close()


@pytest.fixture
def database(new_service: Callable[[], DatabaseService]) -> DatabaseService:
    return new_service()


def test_the_first_use_makes_a_key_and_the_next_finds_it(database: DatabaseService, kms: FakeKms) -> None:
    token = data_keys.open_box(database, 7).encrypt("hunter2", AAD)
    assert data_keys.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    # THEN KMS was asked once to make the key and once to open it
    assert kms.calls == ["generate_data_key", "decrypt"]


def test_a_cold_process_opens_what_another_sealed(database: DatabaseService, kms: FakeKms) -> None:
    token = data_keys.open_box(database, 7).encrypt("hunter2", AAD)
    master_keys.plain_keys.clear()
    assert data_keys.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    assert kms.calls[1:] == ["decrypt", "decrypt"]


def test_a_stored_key_is_wrapped_and_bumps_the_apps_cache(database: DatabaseService, kms: FakeKms) -> None:
    data_keys.open_box(database, 7)
    with database.reads() as session:
        (key,) = data_keys.stored_keys(session, 7)
        assert master_keys.plain_keys.plain(key).hex() not in key.wrapped
        assert key.wrapped_by == "kms:alias/hotplug"
        change = session.scalars(select(cache_log.CacheChange)).one()
    assert (change.scope, change.item_key) == ("apps", "7")


def test_one_apps_wrapped_key_does_not_open_as_anothers(database: DatabaseService, kms: FakeKms) -> None:
    (key,) = data_keys.load_or_create_data_key(database, 7)
    moved = WrappedKey(8, key.key_version, key.wrapped, key.wrapped_by)
    with pytest.raises(HotplugError) as refused:
        data_keys.box_of(8, (moved,))
    assert refused.value.code == "secrets.cannot_decrypt"


def test_the_newest_version_of_a_key_encrypts_and_every_one_decrypts(
    database: DatabaseService, kms: FakeKms
) -> None:
    old = data_keys.open_box(database, 7).encrypt("old", AAD)
    master = master_keys.masters().current
    wrapped = master.generate(7)[1]
    with database.session_getter() as session:
        session.add(DataKey(app_id=7, key_version=2, wrapped=wrapped, wrapped_by=master.name))
    box = data_keys.open_box(database, 7)
    assert box.encrypt("new", AAD).startswith("v1.2.")
    assert box.decrypt(old, AAD) == "old"


def test_the_master_is_never_asked_inside_a_unit(database: DatabaseService, kms: FakeKms) -> None:
    (key,) = data_keys.load_or_create_data_key(database, 7)
    with guards.unit():
        with pytest.raises(guards.NetworkInsideUnit):
            data_keys.box_of(7, (key,))
        with pytest.raises(guards.NetworkInsideUnit):
            data_keys.open_box(database, 8)
    # A key that this process has unwrapped before needs no call.
    token = data_keys.box_of(7, (key,)).encrypt("hunter2", AAD)
    with guards.unit():
        assert data_keys.box_of(7, (key,)).decrypt(token, AAD) == "hunter2"


@pytest.mark.parametrize(
    ("fails", "raised", "code"),
    [
        (client_error(400, "ThrottlingException"), Unavailable, "secrets.away"),
        (client_error(500, "KMSInternalException"), Unavailable, "secrets.away"),
        (EndpointConnectionError(endpoint_url="https://kms.internal"), Unavailable, "secrets.away"),
        (client_error(400, "AccessDeniedException"), HotplugError, "secrets.refused"),
    ],
)
def test_a_failing_kms_stores_nothing(
    database: DatabaseService, kms: FakeKms, fails: Exception, raised: type[HotplugError], code: str
) -> None:
    kms.fails = fails
    with pytest.raises(HotplugError) as refused:
        data_keys.open_box(database, 7)
    assert type(refused.value) is raised
    assert refused.value.code == code
    assert "internal" not in refused.value.detail
    with database.reads() as session:
        assert data_keys.stored_keys(session, 7) == ()
