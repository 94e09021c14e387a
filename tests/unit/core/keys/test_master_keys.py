from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.keys import master_keys
from chalicelib.core.keys.master_keys import FileMaster, WrappedKey
from tests.fakes.kms import FakeKms


def key_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_without_a_master_nothing_is_stored_in_the_clear() -> None:
    with pytest.raises(Unavailable) as refused:
        master_keys.configured(None, None)
    assert refused.value.code == "secrets.no_key"


def test_kms_wraps_where_both_are_configured(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", os.urandom(32))
    masters = master_keys.configured("alias/hotplug", path)
    assert masters.current.name == "kms:alias/hotplug"
    assert masters.named(FileMaster(path).name) is masters.file
    assert masters.named("kms:older").name == "kms:older"
    assert master_keys.configured(None, path).current.name.startswith("file:")


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
        master_keys.masters().named("file:0123456789abcdef")
    assert refused.value.code == "secrets.no_key"


def test_a_file_wrapped_key_is_bound_to_its_app(tmp_path: Path) -> None:
    master = FileMaster(key_file(tmp_path / "key", os.urandom(32)))
    _, wrapped = master.generate(7)
    with pytest.raises(HotplugError) as refused:
        master.unwrap(WrappedKey(8, 1, wrapped, master.name))
    assert refused.value.code == "secrets.cannot_decrypt"


@pytest.mark.parametrize("wrapped", ["", "a2V5?", "a2V5", base64.b64encode(b"k" * 6145).decode()])
def test_what_kms_never_wrapped_does_not_open(kms: FakeKms, wrapped: str) -> None:
    with pytest.raises(HotplugError) as refused:
        master_keys.masters().current.unwrap(WrappedKey(7, 1, wrapped, "kms:alias/hotplug"))
    assert refused.value.code == "secrets.cannot_decrypt"
    # THEN what KMS would refuse for its form is not sent
    assert kms.calls == (["decrypt"] if wrapped == "a2V5" else [])


def test_a_former_kms_key_is_reached_by_one_client(kms: FakeKms) -> None:
    masters = master_keys.masters()
    assert masters.named("kms:former") is masters.named("kms:former")
    assert masters.named("kms:former").name == "kms:former"


def test_plain_keys_are_bounded_in_number_and_time(kms: FakeKms) -> None:
    now = [0.0]
    kept = master_keys.PlainKeys(clock=lambda: now[0])
    master = master_keys.masters().current
    keys = [
        WrappedKey(n, 1, master.generate(n)[1], master.name) for n in range(master_keys.MAX_CACHED_KEYS + 1)
    ]
    kms.calls.clear()
    for key in keys:
        kept.plain(key)
    assert len(kms.calls) == len(keys)
    kept.plain(keys[-1])
    assert len(kms.calls) == len(keys)
    kept.plain(keys[0])  # the least used had to go
    assert len(kms.calls) == len(keys) + 1
    now[0] = master_keys.CACHED_KEY_LIFE_S
    kept.plain(keys[-1])
    assert len(kms.calls) == len(keys) + 2
    assert len(kept._kept) == master_keys.MAX_CACHED_KEYS
