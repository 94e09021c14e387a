from __future__ import annotations

import itertools
import stat
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from chalicelib.core import errors
from chalicelib.plugins.package import archive
from tests.corpus import packages
from tests.corpus.cases import MANIFEST, Case
from tests.corpus.good_packages import by_zipfile
from tests.corpus.raw_zip import Member, build

MIB = 1024 * 1024
MEMORY = 8 * MIB
"""Far below the smallest bomb; the directory of 2,000 entries needs about 2 MiB."""


def refused(path: Path, limits: archive.ArchiveLimits | None = None) -> set[str]:
    with pytest.raises(errors.Invalid) as caught:
        archive.check_archive(path, limits)
    assert caught.value.code == "plugin.package_invalid"
    return {violation.rule for violation in caught.value.errors}


@pytest.mark.parametrize("case", packages.HOSTILE_ZIPS, ids=lambda case: case.name)
def test_each_hostile_zip_is_refused_for_its_own_reason_in_bounded_memory(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    case.build(path)
    tracemalloc.start()
    try:
        rules = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rules == {case.rule} | case.also
    assert peak < MEMORY


@pytest.mark.parametrize("case", packages.GOOD, ids=lambda case: case.name)
def test_each_good_zip_is_read_and_unpacked_whole(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    case.build(path)
    checked = archive.check_archive(path)
    with zipfile.ZipFile(path) as reference:
        expected = {name: reference.read(name) for name in reference.namelist() if not name.endswith("/")}
    assert checked.files == {name: len(data) for name, data in expected.items()}
    assert checked.unpacked_bytes == sum(map(len, expected.values()))
    assert {name: checked.read(name, 10 * MIB) for name in expected} == expected

    folder = tmp_path / "unpacked"
    checked.extract_all(folder)
    found = {str(file.relative_to(folder)): file for file in folder.rglob("*") if not file.is_dir()}
    assert {name: file.read_bytes() for name, file in found.items()} == expected
    assert {stat.filemode(file.lstat().st_mode) for file in found.values()} == {"-rw-r--r--"}
    folders = [entry for entry in folder.rglob("*") if entry.is_dir()]
    assert {stat.filemode(entry.lstat().st_mode) for entry in folders} <= {"drwxr-xr-x"}


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(packages.HOSTILE) >= 60
    assert len(packages.GOOD) >= 15
    names = [case.name for case in (*packages.HOSTILE, *packages.GOOD)]
    assert len(set(names)) == len(names)


def test_every_rule_of_the_checker_has_a_hostile_case() -> None:
    source = "".join(
        (Path(archive.__file__).parent / f"{name}.py").read_text()
        for name in ("archive", "zip_format", "entry_names")
    )
    rules = {f"zip.{part.split(chr(34))[0]}" for part in source.split('"zip.')[1:]}
    elsewhere = {"zip.archive_size", "zip.missing", "zip.entry_size"}
    assert rules - {case.rule for case in packages.HOSTILE_ZIPS} == elsewhere


def test_an_archive_over_its_size_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(b"x" * 101)
    assert refused(path, archive.ArchiveLimits(archive_bytes=100)) == {"zip.archive_size"}


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 128 * 1024, 300_001])
@pytest.mark.parametrize("unit", [b"\0", b"ab", bytes(range(256))])
def test_sizes_around_the_chunk_are_inflated_whole(size: int, unit: bytes, tmp_path: Path) -> None:
    data = (unit * (size // len(unit) + 1))[:size]
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, Member("data", data)]))
    assert archive.check_archive(path).read("data", size) == data


def test_no_change_of_a_single_byte_shows_another_content(tmp_path: Path) -> None:
    """Whatever bit flips, the package is refused or has the same files: no byte goes unchecked."""
    original = build(
        [Member("manifest.json", b"{}"), Member("a.py", b"print('hello hello hello')", method=0)]
    )
    path = tmp_path / "package.zip"
    path.write_bytes(original)
    good = archive.check_archive(path)
    contents = {name: good.read(name, 100) for name in good.files}
    accepted = 0
    for position, bit in itertools.product(range(len(original)), (0x01, 0x10, 0x80)):
        changed = bytearray(original)
        changed[position] ^= bit
        path.write_bytes(changed)
        try:
            checked = archive.check_archive(path)
        except errors.Invalid:
            continue
        assert {name: checked.read(name, 100) for name in checked.files} == contents
        accepted += 1
    # What may change: version, time, modes, internal attributes.
    assert 0 < accepted < len(original)


def test_many_bad_entries_are_answered_briefly(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, *(Member(f"../{i}", method=0) for i in range(1500)), Member("CON")]))
    with pytest.raises(errors.Invalid) as caught:
        archive.check_archive(path)
    rules = [violation.rule for violation in caught.value.errors]
    assert rules.count("zip.traversal") == archive.MAX_PER_RULE and "zip.device_name" in rules


def test_labels_never_carry_control_characters_or_long_names(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, Member("\x1b[31m" + "a" * 5000)]))
    with pytest.raises(errors.Invalid) as caught:
        archive.check_archive(path)
    for violation in caught.value.errors:
        assert violation.pointer.isprintable() and len(violation.pointer) <= 200


def test_reading_has_its_own_limit_and_knows_only_files(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    by_zipfile(zipfile.ZIP_DEFLATED, folders=True)(path)
    checked = archive.check_archive(path)
    for name, limit, rule in (
        ("lib/data.txt", 4999, "entry_size"),
        ("nope", 1, "missing"),
        ("lib/", 1, "missing"),
    ):
        with pytest.raises(errors.Invalid) as caught:
            checked.read(name, limit)
        assert [violation.rule for violation in caught.value.errors] == [f"zip.{rule}"]


def test_a_file_that_changed_after_its_check_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, Member("a", b"first", method=0)]))
    checked = archive.check_archive(path)
    path.write_bytes(path.read_bytes().replace(b"first", b"other"))
    with pytest.raises(errors.Invalid) as caught:
        checked.read("a", 100)
    assert [violation.rule for violation in caught.value.errors] == ["zip.crc"]
    with pytest.raises(errors.Invalid):
        checked.extract_all(tmp_path / "out")
    path.write_bytes(b"")
    with pytest.raises(errors.Invalid) as caught:
        checked.read("a", 100)
    assert [violation.rule for violation in caught.value.errors] == ["zip.truncated"]


def test_unpacking_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, Member("a/b", b"x")]))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        archive.check_archive(path).extract_all(folder)
    assert not (tmp_path / "b").exists()


def test_declared_sizes_are_bounded_before_anything_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    data = b"x" * 1000
    path.write_bytes(build([MANIFEST, Member("a", data), Member("b", data)]))
    total = 2000 + len(MANIFEST.data)
    assert archive.check_archive(path, archive.ArchiveLimits(unpacked_bytes=total)).unpacked_bytes == total
    assert refused(path, archive.ArchiveLimits(unpacked_bytes=total - 1)) == {"zip.unpacked_size"}


def test_the_ratio_counts_from_its_floor(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, Member("a", bytes(100_000))]))
    assert zlib.crc32(bytes(100_000)) == archive.check_archive(path).entries[1].crc
    assert refused(path, archive.ArchiveLimits(ratio_floor=99_999)) == {"zip.ratio"}
    archive.check_archive(path, archive.ArchiveLimits(ratio_floor=100_000 + len(MANIFEST.data)))
