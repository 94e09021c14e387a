"""An app's first data key, wanted by two functions at once on two kinds of database; and KMS on the wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError
from chalicelib.core.keys import data_keys, master_keys
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.master_keys import FileMaster, KmsMaster, Masters, WrappedKey
from tests.ministack import running_ministack

AAD = ("plugin_x_1", "17", "/apiKey")


class MeetingMaster(FileMaster):
    """Makes a key only when another writer has found none either."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.both_found_none = threading.Barrier(2)

    def generate(self, app_id: int) -> tuple[bytes, str]:
        self.both_found_none.wait(30)
        return super().generate(app_id)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[MeetingMaster]:
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    meeting = MeetingMaster(str(path))
    master_keys.use(Masters(meeting, meeting))
    yield meeting
    master_keys.use(None)


def race(url: str) -> list[str]:
    """Let two writers, each on its own engine, need a key; return what each then encrypted."""
    tokens: list[str] = []
    failed: list[Exception] = []

    def write() -> None:
        service = DatabaseService(url)
        try:
            tokens.append(data_keys.open_box(service, 7).encrypt("hunter2", AAD))
        except Exception as error:
            failed.append(error)
        finally:
            service.close()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failed == []
    return tokens


def test_of_two_writers_exactly_one_key_wins(database: DatabaseService, master: MeetingMaster) -> None:
    database.create_db_and_tables([DataKey])
    tokens = race(database.database_url)
    (key,) = data_keys.load_or_create_data_key(database, 7)
    assert key.key_version == 1
    # THEN what the loser encrypted opens as well, in a process that has seen neither
    master_keys.use(Masters(master, master))
    box = data_keys.open_box(database, 7)
    assert [box.decrypt(token, AAD) for token in tokens] == ["hunter2", "hunter2"]


def test_kms_opens_a_data_key_only_for_its_app(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_ministack() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        master = KmsMaster(server.client("kms").create_key()["KeyMetadata"]["KeyId"])
        plain, wrapped = master.generate(7)
        again = master.wrap(7, plain)
        for blob in (wrapped, again):
            assert master.unwrap(WrappedKey(7, 1, blob, master.name)) == plain
        with pytest.raises(HotplugError) as refused:
            master.unwrap(WrappedKey(8, 1, wrapped, master.name))
        assert refused.value.code == "secrets.cannot_decrypt"
        with pytest.raises(HotplugError) as refused:
            KmsMaster("00000000-0000-0000-0000-000000000000").generate(7)
        assert refused.value.code == "secrets.refused"
