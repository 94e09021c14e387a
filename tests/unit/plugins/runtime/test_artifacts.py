from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from chalicelib.plugins.runtime.artifacts import ArtifactFolder, read_entry, unpack
from chalicelib.plugins.runtime.faults import Deadline, PluginFault
from chalicelib.plugins.runtime.request import Source
from tests.unit.plugins.runtime.support import ObjectServer, package


def soon() -> Deadline:
    return Deadline.after(60_000)


def source(server: ObjectServer, content: bytes, name: str = "a.zip", **changes: object) -> Source:
    values = {
        "url": server.put(name, content),
        "size_bytes": len(content),
        "checksum": hashlib.sha256(content).hexdigest(),
    }
    return Source(**{**values, **changes})  # type: ignore[arg-type]


def test_fetched_once_then_read_from_the_folder(server: ObjectServer, tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path / "cache")
    wanted = source(server, b"bytes")

    first = folder.fetch("p_1.zip", wanted, soon())
    second = folder.fetch("p_1.zip", wanted, soon())

    assert first == second == tmp_path / "cache" / "p_1.zip"
    assert first.read_bytes() == b"bytes"
    assert server.requests == ["a.zip"]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_file_that_changed_on_disk_is_fetched_again(server: ObjectServer, tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    wanted = source(server, b"bytes")
    folder.fetch("p_1.zip", wanted, soon()).write_bytes(b"evil!")

    assert folder.fetch("p_1.zip", wanted, soon()).read_bytes() == b"bytes"
    assert server.requests == ["a.zip", "a.zip"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"checksum": "0" * 64}, "plugin.checksum_mismatch"),
        ({"size_bytes": 3}, "plugin.checksum_mismatch"),
        ({"url": "http://127.0.0.1:1/a"}, "plugin.artifact_unavailable"),
    ],
)
def test_what_cannot_be_verified_is_not_kept(
    server: ObjectServer, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(PluginFault) as caught:
        ArtifactFolder(tmp_path).fetch("p_1.zip", source(server, b"bytes", **changes), soon())

    assert (caught.value.kind, caught.value.code) == ("load", code)
    assert "secret" not in caught.value.detail
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [301, 302, 403, 404, 500, 503])
def test_any_answer_but_200_is_unavailable(server: ObjectServer, tmp_path: Path, status: int) -> None:
    server.status = status

    with pytest.raises(PluginFault, match=f"HTTP {status}"):
        ArtifactFolder(tmp_path).fetch("p_1.zip", source(server, b"bytes"), soon())


def test_no_download_begins_after_the_deadline(server: ObjectServer, tmp_path: Path) -> None:
    with pytest.raises(PluginFault) as caught:
        ArtifactFolder(tmp_path).fetch("p_1.zip", source(server, b"bytes"), Deadline.after(0))

    assert caught.value.code == "plugin.load_timeout"
    assert server.requests == []


def test_the_least_recently_used_goes_first(server: ObjectServer, tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path, budget_bytes=25)
    for number in (1, 2):
        path = folder.fetch(f"p_{number}.zip", source(server, bytes([number] * 10), f"{number}"), soon())
        os.utime(path, (number, number))
    folder.fetch("p_1.zip", source(server, bytes([1] * 10), "1"), soon())  # used again

    folder.fetch("p_3.zip", source(server, bytes([3] * 10), "3"), soon())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["p_1.zip", "p_3.zip"]


def test_an_entry_is_read_up_to_its_limit(tmp_path: Path) -> None:
    archive = tmp_path / "p.zip"
    archive.write_bytes(package({"main.wasm": b"12345"}))

    assert read_entry(archive, "main.wasm", 5) == b"12345"
    with pytest.raises(PluginFault, match="larger than 4 bytes"):
        read_entry(archive, "main.wasm", 4)
    with pytest.raises(PluginFault, match="no file 'other'"):
        read_entry(archive, "other", 4)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil"])
def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    (tmp_path / "p.zip").write_bytes(buffer.getvalue())
    target = tmp_path / "target"
    target.mkdir()

    with pytest.raises(PluginFault) as caught:
        unpack(tmp_path / "p.zip", target)

    assert caught.value.code == "plugin.archive_invalid"
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.zip", "target"]


def test_unpacked_files_are_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(package({"lib/mod.py": "x = 1"}))
    target = tmp_path / "target"
    target.mkdir()

    unpack(tmp_path / "p.zip", target)

    assert (target / "lib/mod.py").read_text() == "x = 1"
    assert (target / "lib/mod.py").stat().st_mode & 0o777 == 0o640
    assert (target / "lib").stat().st_mode & 0o777 == 0o750
    assert target.stat().st_mode & 0o777 == 0o750
