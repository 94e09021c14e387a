"""Zips that say two things at once: records that disagree, overlap, hide or are missing."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from tests.corpus.cases import (
    MAIN,
    MANIFEST,
    MIB,
    only,
    raw,
    write,
    zip_case,
)
from tests.corpus.raw_zip import Member, build, extra_field, zeros


def streamed(path: Path) -> None:
    """What Python's zipfile writes to a pipe: sizes behind the data."""

    class Pipe(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            Pipe.written += bytes(data)
            return len(data)

    with zipfile.ZipFile(Pipe(), "w") as package:  # type: ignore[arg-type]
        package.writestr("manifest.json", MANIFEST.data)
        package.writestr("main.py", MAIN.data)
    path.write_bytes(Pipe.written)


def forced_zip64(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("main.py", MAIN.data)
        with package.open("manifest.json", "w", force_zip64=True) as entry:
            entry.write(MANIFEST.data)


def zip64_end(path: Path) -> None:
    """A 64-bit end record that names another directory than the 32-bit one."""
    plain = build([MANIFEST, MAIN])
    start = plain.index(b"PK\x01\x02")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(plain) - 22 - start, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(plain) - 22, 1)
    path.write_bytes(build([MANIFEST, MAIN], before_end=record + locator))


def quoted_overlap(path: Path) -> None:
    """A stored file whose data is another entry, header and all: each byte counts twice."""
    inner = Member("inner.bin", b"x" * 1000)
    outer = Member("outer.bin", inner.local_header() + inner.packed(), method=0)
    head = MANIFEST.local_header() + MANIFEST.packed() + MAIN.local_header() + MAIN.packed()
    inner.offset = len(head) + len(outer.local_header())
    path.write_bytes(build([MANIFEST, MAIN, outer, inner]))


def overlap_bomb(path: Path) -> None:
    """1,000 names over one kernel of 200 MiB of zeros."""
    kernel = Member("0", raw=zeros(200), both={"size": 200 * MIB})
    start = len(MANIFEST.local_header() + MANIFEST.packed())
    others = [Member(str(i), raw=kernel.raw, both=kernel.both, offset=start) for i in range(1, 1000)]
    path.write_bytes(build([MANIFEST, kernel, *others]))


def file_over_directory(path: Path) -> None:
    """An entry that reaches into the central directory."""
    plain = Member("tail", b"", method=0)
    plain.both = {"packed": 60, "size": 60}
    path.write_bytes(build([MANIFEST, MAIN, plain]))


def second_end(path: Path) -> None:
    """Another whole archive in the comment: readers from front and back see different packages."""
    inner = build([MANIFEST, Member("main.py", b"evil")])
    path.write_bytes(build([MANIFEST, MAIN], comment=inner))


def comment_within_comment(path: Path) -> None:
    """The outer end record's comment is an end record that ends the file as well."""
    path.write_bytes(build([MANIFEST, MAIN], comment=b"PK\x05\x06" + bytes(18)))


def polyglot(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\necho evil\nexit\n" + build([MANIFEST, MAIN]))


def cut(path: Path) -> None:
    path.write_bytes(build([MANIFEST, MAIN])[:-5])


STRUCTURE = [
    zip_case("data descriptors by streaming", "data_descriptor", streamed),
    zip_case(
        "data descriptor in the local header only",
        "data_descriptor",
        raw(Member("a", b"x", local={"flags": 8})),
        "header_mismatch",
    ),
    zip_case(
        "data descriptor in the directory only",
        "data_descriptor",
        raw(Member("a", b"x", central={"flags": 8})),
        "header_mismatch",
    ),
    zip_case("zip64 without need", "zip64", forced_zip64, "header_mismatch"),
    zip_case("zip64 end record", "zip64", zip64_end),
    zip_case(
        "zip64 field in the directory only",
        "zip64",
        raw(Member("a", b"x", central={"extra": extra_field(1, bytes(16))})),
    ),
    zip_case(
        "saturated size",
        "zip64",
        raw(Member("a", b"x", central={"size": 0xFFFFFFFF})),
        "header_mismatch",
        "unpacked_size",
    ),
    zip_case("saturated count", "zip64", raw(end={"here": 0xFFFF, "entries": 0xFFFF})),
    zip_case("saturated start", "zip64", raw(end={"start": 0xFFFFFFFF})),
    zip_case("split over disks", "multi_disk", raw(end={"disk": 1, "start_disk": 1})),
    zip_case("fewer entries here than in all", "multi_disk", raw(end={"here": 1})),
    zip_case("entry on another disk", "multi_disk", raw(Member("a", b"x", central={"disk": 7}))),
    zip_case("script in front", "prefix_data", polyglot),
    zip_case("data in front, offsets adjusted", "prefix_data", raw(prefix=b"\x7fELF" + bytes(60))),
    zip_case("data behind", "suffix_data", raw(suffix=b"evil")),
    zip_case("64 KiB of data behind", "not_a_zip", raw(suffix=bytes(65558))),
    zip_case("data between entries", "gap", raw(Member("a", b"x", before=b"hidden"))),
    zip_case("deleted entry left in place", "gap", raw(Member("a", b"x", before=Member("b").local_header()))),
    zip_case("data before the directory", "gap", raw(before_directory=b"hidden")),
    zip_case("data behind the directory", "gap", raw(before_end=b"hidden")),
    zip_case("archive in the comment", "ambiguous_end", second_end),
    zip_case(
        "signature of an end record in the comment", "ambiguous_end", raw(comment=b"see PK\x05\x06 here")
    ),
    zip_case("end record in the comment", "ambiguous_end", comment_within_comment),
    zip_case("cut off", "truncated", cut),
    zip_case("overlap by quoting", "overlap", quoted_overlap),
    zip_case("overlap bomb", "overlap", overlap_bomb, "header_mismatch", "unpacked_size"),
    zip_case("entry over the directory", "overlap", file_over_directory),
    zip_case(
        "two names for one entry", "overlap", raw(Member("b.py", MANIFEST.data, offset=0)), "header_mismatch"
    ),
    zip_case("offset into nowhere", "local_header", raw(Member("a", b"x", offset=0x7FFFFFFF))),
    zip_case("offset into data", "local_header", raw(Member("a", b"x", offset=40))),
    zip_case("fewer entries counted", "directory", raw(end={"here": 1, "entries": 1})),
    zip_case("more entries counted", "directory", raw(end={"here": 3, "entries": 3})),
    zip_case("directory too long", "directory", raw(end={"length": 0x10000})),
    zip_case(
        "directory of five megabytes",
        "directory",
        raw(
            *(
                Member(f"{i}", method=0, central={"extra": extra_field(0x5455, bytes(50_000))})
                for i in range(100)
            )
        ),
    ),
    zip_case("directory of a gigabyte", "directory", raw(end={"length": 1 << 30})),
    zip_case("directory elsewhere", "prefix_data", raw(end={"start": 0})),
    *(
        zip_case(
            f"local header with another {what}",
            "header_mismatch",
            raw(Member("a.py", b"x", local={what: value})),
        )
        for what, value in (("name", b"b.py"), ("size", 2), ("crc", 1), ("method", 0), ("flags", 2))
    ),
    zip_case(
        "local header with another packed size",
        "header_mismatch",
        raw(Member("a.py", b"x", local={"packed": 2})),
    ),
    zip_case("empty file", "not_a_zip", lambda path: path.write_bytes(b"") and None),
    zip_case("a tar", "not_a_zip", lambda path: write(path, b"ustar" * 1000)),
    zip_case("a directory of nothing", "manifest_missing", only()),
    zip_case("one byte and an empty directory", "prefix_data", only(prefix=b"x"), "manifest_missing"),
]
