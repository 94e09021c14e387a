from __future__ import annotations

from pathlib import Path

from bench.packages import write_package
from chalicelib.plugins.package.contents import read_package


def test_a_package_has_its_size_holds_and_never_repeats(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one.zip", "bench", 3_000_000)
    other = write_package(tmp_path / "other.zip", "bench", 3_000_000)
    assert read_package(one, platform_version="0.1.0").manifest.name == "bench"
    assert 3_000_000 < one.stat().st_size < 3_010_000
    assert one.read_bytes() != other.read_bytes()
