from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Table, select

from chalicelib.core import cache_log, guards, secret_box
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.errors import HotplugError, TooLarge, Unavailable
from chalicelib.core.secret_box import DataKey, FileMaster, KmsMaster, Masters, SecretBox, WrappedKey

AAD = ("plugin_x_1", "17", "/apiKey")
KEY = b"k" * 32
BOX = SecretBox(7, {1: KEY})


class FakeKms:
    """KMS in memory: what it wraps opens only under the same key and encryption context."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: Exception | None = None
        self._wrapped: dict[bytes, tuple[str, dict[str, str], bytes]] = {}

    def generate_data_key(self, *, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> Any:
        assert KeySpec == "AES_256"
        plain = os.urandom(32)
        blob = self.encrypt(KeyId=KeyId, Plaintext=plain, EncryptionContext=EncryptionContext)
        self.calls[-1] = "generate_data_key"
        return {"Plaintext": plain, **blob}

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: dict[str, str]) -> Any:
        self._called("encrypt")
        blob = os.urandom(48)
        self._wrapped[blob] = (KeyId, EncryptionContext, Plaintext)
        return {"CiphertextBlob": blob}

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: dict[str, str]) -> Any:
        self._called("decrypt")
        key_id, context, plain = self._wrapped.get(CiphertextBlob, ("", {}, b""))
        if (key_id, context) != (KeyId, EncryptionContext):
            raise client_error(400, "InvalidCiphertextException")
        return {"Plaintext": plain}

    def _called(self, operation: str) -> None:
        self.calls.append(operation)
        if self.fails is not None:
            raise self.fails


def client_error(status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "key/internal-arn"}}
    answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    return ClientError(answer, "Decrypt")


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    fake = FakeKms()
    secret_box.use(Masters(KmsMaster("alias/hotplug", fake)))
    yield fake
    secret_box.use(None)


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


def key_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


# -- the box --


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=4).map(tuple))
def test_what_was_encrypted_comes_back(plaintext: str, aad: tuple[str, ...]) -> None:
    token = BOX.encrypt(plaintext, aad)
    assert BOX.decrypt(token, aad) == plaintext
    assert token.startswith("v1.1.") and token.isascii()


def test_the_same_secret_twice_gives_two_tokens() -> None:
    assert BOX.encrypt("hunter2", AAD) != BOX.encrypt("hunter2", AAD)


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("plugin_y_2", "17", "/apiKey"),
        ("plugin_x_1", "18", "/apiKey"),
        ("plugin_x_1", "17", "/shown"),
        ("plugin_x_1", "17/apiKey"),
        ("plugin_x_11", "7", "/apiKey"),
        ("plugin_x_1", "17", "/apiKey", ""),
    ],
)
def test_a_token_opens_only_in_its_place(place: tuple[str, ...]) -> None:
    with pytest.raises(HotplugError) as refused:
        BOX.decrypt(BOX.encrypt("hunter2", AAD), place)
    assert refused.value.code == "secrets.cannot_decrypt"


def test_another_apps_box_opens_nothing_even_with_the_same_key() -> None:
    with pytest.raises(HotplugError):
        SecretBox(8, {1: KEY}).decrypt(BOX.encrypt("hunter2", AAD), AAD)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "v1",
        "v1.1",
        "v1.1.",
        "v1.1.AAAA",
        "v1.1.!!!!",
        "v1.x.AAAA",
        "v1.01.AAAA",
        "v1.².AAAA",
        "v2.1.AAAA",
        "***",
    ],
)
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(HotplugError) as refused:
        BOX.decrypt(token, AAD)
    assert refused.value.code == "secrets.cannot_decrypt"


def test_every_changed_character_is_noticed() -> None:
    token = BOX.encrypt("hunter2", AAD)
    box = SecretBox(7, {1: KEY, 2: KEY, 11: KEY})
    for at in range(len(token)):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(HotplugError):
            box.decrypt(changed, AAD)
    # The version is bound as well, although all three versions have the same key here.
    with pytest.raises(HotplugError):
        box.decrypt(token.replace("v1.1.", "v1.2.", 1), AAD)


def test_a_secret_has_a_limit() -> None:
    at_the_limit = "ä" * (secret_box.MAX_PLAINTEXT_BYTES // 2)
    assert BOX.decrypt(BOX.encrypt(at_the_limit, AAD), AAD) == at_the_limit
    with pytest.raises(TooLarge):
        BOX.encrypt(at_the_limit + "a", AAD)


def test_the_newest_key_encrypts_and_every_key_decrypts() -> None:
    old = BOX.encrypt("old", AAD)
    box = SecretBox(7, {1: KEY, 2: b"n" * 32})
    new = box.encrypt("new", AAD)
    assert new.startswith("v1.2.")
    assert (box.decrypt(old, AAD), box.decrypt(new, AAD)) == ("old", "new")
    with pytest.raises(HotplugError):
        BOX.decrypt(new, AAD)


# -- data keys --


def test_the_first_use_makes_a_key_and_the_next_finds_it(database: DatabaseService, kms: FakeKms) -> None:
    token = secret_box.open_box(database, 7).encrypt("hunter2", AAD)
    assert secret_box.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    # THEN KMS was asked once to make the key and once to open it
    assert kms.calls == ["generate_data_key", "decrypt"]


def test_a_cold_process_opens_what_another_sealed(database: DatabaseService, kms: FakeKms) -> None:
    token = secret_box.open_box(database, 7).encrypt("hunter2", AAD)
    secret_box._plain_keys.clear()
    assert secret_box.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    assert kms.calls[1:] == ["decrypt", "decrypt"]


def test_a_stored_key_is_wrapped_and_bumps_the_apps_cache(database: DatabaseService, kms: FakeKms) -> None:
    secret_box.open_box(database, 7)
    with database.reads() as session:
        (key,) = secret_box.stored_keys(session, 7)
        assert secret_box._plain_keys.plain(key).hex() not in key.wrapped
        assert key.wrapped_by == "kms:alias/hotplug"
        change = session.scalars(select(cache_log.CacheChange)).one()
    assert (change.scope, change.item_key) == ("apps", "7")


def test_one_apps_wrapped_key_does_not_open_as_anothers(database: DatabaseService, kms: FakeKms) -> None:
    (key,) = secret_box.load_or_create_data_key(database, 7)
    moved = WrappedKey(8, key.key_version, key.wrapped, key.wrapped_by)
    with pytest.raises(HotplugError) as refused:
        secret_box.box_of(8, (moved,))
    assert refused.value.code == "secrets.cannot_decrypt"


def test_rotation_adds_a_key_for_new_writes(database: DatabaseService, kms: FakeKms) -> None:
    old = secret_box.open_box(database, 7).encrypt("old", AAD)
    assert [key.key_version for key in secret_box.rotate(database, 7)] == [1, 2]
    box = secret_box.open_box(database, 7)
    assert box.encrypt("new", AAD).startswith("v1.2.")
    assert box.decrypt(old, AAD) == "old"
    assert [key.key_version for key in secret_box.rotate(database, 8)] == [1]


def test_rewrap_moves_every_key_to_the_current_master(
    database: DatabaseService, kms: FakeKms, tmp_path: Path
) -> None:
    # GIVEN an app whose two keys a local file wrapped
    file = FileMaster(key_file(tmp_path / "key", os.urandom(32)))
    secret_box.use(Masters(file, file))
    tokens = [secret_box.open_box(database, 7).encrypt("one", AAD)]
    secret_box.rotate(database, 7)
    tokens.append(secret_box.open_box(database, 7).encrypt("two", AAD))
    # WHEN the deployment moves to KMS, with the file still there
    both = Masters(KmsMaster("alias/hotplug", kms), file)
    secret_box.use(both)
    assert secret_box.open_box(database, 7).decrypt(tokens[0], AAD) == "one"
    assert secret_box.rewrap(database, 7) == 2
    assert secret_box.rewrap(database, 7) == 0
    # THEN the file may go, and no token has changed
    secret_box.use(Masters(both.current))
    box = secret_box.open_box(database, 7)
    assert [box.decrypt(token, AAD) for token in tokens] == ["one", "two"]


def test_rewrap_does_not_overwrite_what_another_rewrap_wrote(database: DatabaseService, kms: FakeKms) -> None:
    (key,) = secret_box.load_or_create_data_key(database, 7)
    stale = WrappedKey(7, 1, "another", key.wrapped_by)
    assert database.run(lambda unit: secret_box._replace(unit, stale, "mine", "kms:x")) == 0
    assert secret_box.load_or_create_data_key(database, 7) == (key,)


def test_the_master_is_never_asked_inside_a_unit(database: DatabaseService, kms: FakeKms) -> None:
    (key,) = secret_box.load_or_create_data_key(database, 7)
    with guards.unit():
        with pytest.raises(guards.NetworkInsideUnit):
            secret_box.box_of(7, (key,))
        with pytest.raises(guards.NetworkInsideUnit):
            secret_box.open_box(database, 8)
    # A key that this process has unwrapped before needs no call.
    token = secret_box.box_of(7, (key,)).encrypt("hunter2", AAD)
    with guards.unit():
        assert secret_box.box_of(7, (key,)).decrypt(token, AAD) == "hunter2"


def test_plain_keys_are_bounded_in_number_and_time(kms: FakeKms) -> None:
    now = [0.0]
    kept = secret_box.PlainKeys(clock=lambda: now[0])
    master = secret_box.masters().current
    keys = [
        WrappedKey(n, 1, master.generate(n)[1], master.name) for n in range(secret_box.MAX_CACHED_KEYS + 1)
    ]
    kms.calls.clear()
    for key in keys:
        kept.plain(key)
    assert len(kms.calls) == len(keys)
    kept.plain(keys[-1])
    assert len(kms.calls) == len(keys)
    kept.plain(keys[0])  # the least used had to go
    assert len(kms.calls) == len(keys) + 1
    now[0] = secret_box.CACHED_KEY_LIFE_S
    kept.plain(keys[-1])
    assert len(kms.calls) == len(keys) + 2
    assert len(kept._kept) == secret_box.MAX_CACHED_KEYS


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
        secret_box.open_box(database, 7)
    assert type(refused.value) is raised
    assert refused.value.code == code
    assert "internal" not in refused.value.detail
    with database.reads() as session:
        assert secret_box.stored_keys(session, 7) == ()


# -- master keys --


def test_without_a_master_nothing_is_stored_in_the_clear() -> None:
    with pytest.raises(Unavailable) as refused:
        secret_box.configured(None, None)
    assert refused.value.code == "secrets.no_key"


def test_kms_wraps_where_both_are_configured(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", os.urandom(32))
    masters = secret_box.configured("alias/hotplug", path)
    assert masters.current.name == "kms:alias/hotplug"
    assert masters.named(FileMaster(path).name) is masters.file
    assert masters.named("kms:older").name == "kms:older"
    assert secret_box.configured(None, path).current.name.startswith("file:")


@pytest.mark.parametrize("content", [b"", b"short", b"k" * 33, b"k" * 32 * 9])
def test_a_key_file_holds_whole_keys(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Unavailable) as refused:
        FileMaster(key_file(tmp_path / "key", content))
    assert refused.value.code == "secrets.no_key"


def test_a_missing_key_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        FileMaster(str(tmp_path / "none"))
    assert refused.value.code == "secrets.no_key"
    assert str(tmp_path) not in refused.value.detail


def test_a_key_file_in_rotation_wraps_with_the_first_and_unwraps_with_all(tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    before = FileMaster(key_file(tmp_path / "key", old))
    plain, wrapped = before.generate(7)
    key = WrappedKey(7, 1, wrapped, before.name)
    during = FileMaster(key_file(tmp_path / "key", new + old))
    assert during.name != before.name
    assert during.unwrap(key) == plain
    with pytest.raises(Unavailable) as refused:
        FileMaster(key_file(tmp_path / "key", new)).unwrap(key)
    assert refused.value.code == "secrets.no_key"


def test_a_key_of_a_file_that_is_gone_is_a_clear_error(kms: FakeKms) -> None:
    with pytest.raises(Unavailable) as refused:
        secret_box.masters().named("file:0123456789abcdef")
    assert refused.value.code == "secrets.no_key"


def test_a_file_wrapped_key_is_bound_to_its_app(tmp_path: Path) -> None:
    master = FileMaster(key_file(tmp_path / "key", os.urandom(32)))
    _, wrapped = master.generate(7)
    with pytest.raises(HotplugError) as refused:
        master.unwrap(WrappedKey(8, 1, wrapped, master.name))
    assert refused.value.code == "secrets.cannot_decrypt"
