"""Zips whose data is a bomb, broken or not what its headers say, and zips without a manifest."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from tests.corpus.cases import (
    MAIN,
    MANIFEST,
    MIB,
    Build,
    only,
    raw,
    zip_case,
)
from tests.corpus.raw_zip import FOLDER, Member, build, deflate, zeros


def many(path: Path) -> None:
    path.write_bytes(build([MANIFEST, MAIN, *(Member(f"f/{i}", method=0) for i in range(1999))]))


def flood(path: Path) -> None:
    """The record size of 60,000 entries in 3.4 MB."""
    path.write_bytes(build([Member(f"{i}", method=0) for i in range(60_000)]))


def nine_each(path: Path) -> None:
    """Every file below the floor of the ratio, all of them together far beyond."""
    nine = zeros(9)
    crc = zlib.crc32(bytes(9 * MIB))
    path.write_bytes(
        build(
            [
                MANIFEST,
                MAIN,
                *(Member(f"{i}", raw=nine, both={"size": 9 * MIB, "crc": crc}) for i in range(9)),
            ]
        )
    )


def inflated(size: int, real: int) -> Build:
    return raw(Member("bomb", raw=zeros(real), both={"size": size * MIB}))


def large_and_dense(path: Path) -> None:
    """A bomb beside much incompressible data, which makes the ratio of the whole look good."""
    noise = os.urandom(MIB)
    path.write_bytes(
        build(
            [
                MANIFEST,
                MAIN,
                Member("noise", noise, method=0),
                Member("bomb", raw=zeros(20), both={"size": 20 * MIB, "crc": zlib.crc32(bytes(20 * MIB))}),
            ]
        )
    )


CONTENTS = [
    zip_case("2,001 entries", "too_many_entries", many),
    zip_case("60,000 entries", "too_many_entries", flood),
    zip_case("bomb of a gigabyte, honestly declared", "unpacked_size", inflated(1024, 1024)),
    zip_case("bomb by ratio", "ratio", inflated(200, 200)),
    zip_case("bomb by ratio of many files", "ratio", nine_each),
    zip_case("bomb by ratio beside noise", "ratio", large_and_dense),
    zip_case("bomb by a lying size", "size_lies", raw(Member("bomb", raw=zeros(1024), both={"size": 100}))),
    zip_case("declared larger than it is", "size_lies", raw(Member("a", b"x", both={"size": 5000}))),
    zip_case("wrong checksum", "crc", raw(Member("a", b"x", both={"crc": 1}))),
    zip_case(
        "wrong checksum of the manifest",
        "crc",
        only(Member("manifest.json", MANIFEST.data, both={"crc": 1}), MAIN),
    ),
    zip_case("stored with two sizes", "size_mismatch", raw(Member("a", b"xyz", method=0, both={"size": 2}))),
    zip_case("deflate of garbage", "deflate", raw(Member("a", b"x", raw=b"\xff" * 50))),
    zip_case(
        "deflate without an end", "deflate", raw(Member("a", b"x" * 50, raw=deflate(os.urandom(50))[:-3]))
    ),
    zip_case("deflate of no bytes", "deflate", raw(Member("a", b"", raw=b""))),
    zip_case(
        "data behind the deflate stream", "deflate", raw(Member("a", b"x", raw=deflate(b"x") + b"hidden"))
    ),
    zip_case("manifest missing", "manifest_missing", only(MAIN)),
    zip_case(
        "manifest only deeper", "manifest_missing", only(Member("src/manifest.json", MANIFEST.data), MAIN)
    ),
    zip_case(
        "manifest in other case", "manifest_missing", only(Member("Manifest.json", MANIFEST.data), MAIN)
    ),
    zip_case(
        "manifest as a folder",
        "manifest_missing",
        only(Member("manifest.json/", method=0, external=FOLDER), MAIN),
    ),
    zip_case(
        "several at once",
        "traversal",
        raw(Member("../a", b"x"), Member("CON", b"x", both={"crc": 7}), Member("b", b"x", method=12)),
        "device_name",
        "crc",
        "method",
    ),
]
