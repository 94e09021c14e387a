from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.folder import FolderInUse, StateFolder


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.open()
    key, credentials = folder.master_key.read_bytes(), folder.storage_credentials()
    assert len(key) == 32
    assert folder.admin_credential() is None
    folder.keep_admin_credential("key:secret")
    folder.close()

    again = StateFolder(tmp_path / "state")
    again.open()
    assert again.master_key.read_bytes() == key
    assert again.storage_credentials() == credentials
    assert again.admin_credential() == "key:secret"
    again.close()
    for name in ("master.key", "storage.json", "admin.json"):
        assert (tmp_path / "state" / name).stat().st_mode & 0o777 == 0o600
    # The database, the bucket and the logs lie in it.
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    folder = StateFolder(tmp_path / "state")
    folder.open()
    folder.close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_two_folders_have_different_secrets(tmp_path: Path) -> None:
    folders = [StateFolder(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        folder.open()
    assert folders[0].master_key.read_bytes() != folders[1].master_key.read_bytes()
    assert folders[0].storage_credentials() != folders[1].storage_credentials()
    for folder in folders:
        folder.close()


def test_a_folder_serves_one_stack_at_a_time(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    first.open()
    with pytest.raises(FolderInUse, match="another folder"):
        second.open()
    first.close()
    second.open()
    second.close()
