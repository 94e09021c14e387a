from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from chalicelib.core import errors
from chalicelib.plugins.package import contents
from chalicelib.plugins.package.archive import ArchiveLimits
from tests.corpus import packages
from tests.corpus.cases import MAIN, MANIFEST, Case, manifest
from tests.corpus.raw_zip import Member, build

VERSION = "0.2.0"
MANIFEST_CASES = packages.JSON + packages.RULES
MIB = 1024 * 1024


def refusal(path: Path) -> errors.Invalid:
    with pytest.raises(errors.Invalid) as caught:
        contents.read_package(path, platform_version=VERSION)
    return caught.value


@pytest.mark.parametrize("case", packages.HOSTILE, ids=lambda case: case.name)
def test_each_hostile_package_is_refused_for_its_own_reason_in_bounded_memory(
    case: Case, tmp_path: Path
) -> None:
    path = tmp_path / "package.zip"
    case.build(path)
    tracemalloc.start()
    try:
        refused = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {violation.rule for violation in refused.errors} == {case.rule} | case.also
    assert refused.code == f"plugin.{'package' if case.rule.startswith('zip.') else 'manifest'}_invalid"
    assert all(violation.message for violation in refused.errors)
    assert peak < 16 * MIB


@pytest.mark.parametrize("case", packages.GOOD, ids=lambda case: case.name)
def test_each_good_package_is_accepted(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    case.build(path)
    found = contents.read_package(path, platform_version=VERSION)
    assert found.manifest.document == json.loads(found.manifest_bytes)
    assert found.manifest.name == "notify-chat" and found.manifest.entry_point in found.files
    with zipfile.ZipFile(path) as reference:
        assert found.manifest_bytes == reference.read("manifest.json")
        assert found.files == {i.filename: i.file_size for i in reference.infolist() if not i.is_dir()}
    assert found.unpacked_bytes == sum(found.files.values())


def test_the_reasons_of_zip_and_manifest_come_together(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    bad = json.dumps(manifest(version="one", pluginType="virus")).encode()
    hostile = [Member("manifest.json", bad), Member("../x", b"x"), Member("main.py", b"x", both={"flags": 1})]
    path.write_bytes(build(hostile))
    refused = refusal(path)
    assert refused.code == "plugin.package_invalid"
    assert {(violation.pointer, violation.rule) for violation in refused.errors} == {
        ("../x", "zip.traversal"),
        ("main.py", "zip.encrypted"),
        ("/version", "manifest.version"),
        ("/pluginType", "schema.enum"),
    }


def test_limits_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(build([MANIFEST, MAIN]))
    with pytest.raises(errors.Invalid) as caught:
        contents.read_package(path, platform_version=VERSION, limits=ArchiveLimits(unpacked_bytes=100))
    assert [violation.rule for violation in caught.value.errors] == ["zip.unpacked_size"]


def test_a_manifest_of_exactly_256_kib_is_read(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    for size, rules in ((256 * 1024, []), (256 * 1024 + 1, ["json.size"])):
        path.write_bytes(build([Member("manifest.json", MANIFEST.data.ljust(size)), MAIN]))
        if rules:
            assert [violation.rule for violation in refusal(path).errors] == rules
        else:
            assert len(contents.read_package(path, platform_version=VERSION).manifest_bytes) == size


def test_a_bare_entry_point_is_packed_the_same_way_every_time(tmp_path: Path) -> None:
    packed = contents.pack_entry_point("main.py", MAIN.data, MANIFEST.data)
    assert packed == contents.pack_entry_point("main.py", MAIN.data, MANIFEST.data)
    # The very bytes, so that another zlib or Python that packs otherwise is noticed.
    fixed = contents.pack_entry_point("main.py", b"x = 1\n", b"{}")
    assert hashlib.sha256(fixed).hexdigest() == DIGEST
    path = tmp_path / "package.zip"
    path.write_bytes(packed)
    found = contents.read_package(path, platform_version=VERSION)
    assert found.files == {"manifest.json": len(MANIFEST.data), "main.py": len(MAIN.data)}
    with zipfile.ZipFile(io.BytesIO(packed)) as reference:
        assert reference.read("main.py") == MAIN.data


DIGEST = "742cccac9783388da5b09c260a1b18019bd4831f35e3afe2821d54f815c311ee"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../main.py",
        "a/b.py",
        "/main.py",
        "manifest.json",
        "Manifest.JSON",
        "signature.json",
        "a\\b",
        "CON",
    ],
)
def test_a_bare_entry_point_with_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        contents.pack_entry_point(name, b"x", b"{}")
    assert caught.value.code == "plugin.package_invalid" and caught.value.errors


def test_every_rule_of_the_manifest_has_a_hostile_case() -> None:
    source = (Path(contents.__file__).parent / "manifest.py").read_text()
    rules = {f"manifest.{part.split(chr(34))[0]}" for part in source.split('"manifest.')[1:]}
    assert rules - {"manifest.json"} == {
        case.rule for case in MANIFEST_CASES if case.rule.startswith("manifest.")
    }
