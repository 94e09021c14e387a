"""A zip writer that can lie: every field of every record can be set to something else than the truth."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FILE = 0o100644 << 16
FOLDER = 0o40755 << 16 | 0x10
UTF8 = 1 << 11


@dataclass
class Member:
    """An entry. `raw` replaces its compressed bytes; `both`, `local` and `central` replace header fields."""

    name: str | bytes
    data: bytes = b""
    method: int = 8
    raw: bytes | None = None
    external: int = FILE
    extra: bytes = b""
    before: bytes = b""
    offset: int | None = None
    both: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def packed(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return deflate(self.data) if self.method == 8 else self.data

    def fields(self, own: dict[str, Any]) -> dict[str, Any]:
        name = self.name.encode() if isinstance(self.name, str) else self.name
        utf8 = isinstance(self.name, str) and not self.name.isascii()
        truth = {
            "name": name,
            "flags": UTF8 if utf8 else 0,
            "method": self.method,
            "crc": zlib.crc32(self.data),
            "packed": len(self.packed()),
            "size": len(self.data),
            "extra": self.extra,
            "disk": 0,
        }
        return truth | self.both | own

    def local_header(self) -> bytes:
        own = self.fields(self.local)
        head = struct.pack(
            "<4s5H3L2H",
            b"PK\x03\x04",
            20,
            own["flags"],
            own["method"],
            0,
            0x21,
            own["crc"],
            own["packed"],
            own["size"],
            len(own["name"]),
            len(own["extra"]),
        )
        return head + own["name"] + own["extra"]

    def central_header(self, offset: int) -> bytes:
        own = self.fields(self.central)
        head = struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            3 << 8 | 20,
            20,
            own["flags"],
            own["method"],
            0,
            0x21,
            own["crc"],
            own["packed"],
            own["size"],
            len(own["name"]),
            len(own["extra"]),
            0,
            own["disk"],
            0,
            self.external,
            offset if self.offset is None else self.offset,
        )
        return head + own["name"] + own["extra"]


def build(
    members: Sequence[Member],
    *,
    prefix: bytes = b"",
    before_directory: bytes = b"",
    before_end: bytes = b"",
    comment: bytes = b"",
    suffix: bytes = b"",
    shift: int = 0,
    end: dict[str, int] | None = None,
) -> bytes:
    """The archive. `shift` is added to every offset; members with an `offset` have no local part."""
    body, directory = bytearray(prefix), bytearray()
    for member in members:
        body += member.before
        directory += member.central_header(len(body) + shift)
        if member.offset is None:
            body += member.local_header() + member.packed()
    body += before_directory
    fields = {
        "disk": 0,
        "start_disk": 0,
        "here": len(members),
        "entries": len(members),
        "length": len(directory),
        "start": len(body) + shift,
        "comment": len(comment),
    } | (end or {})
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", *fields.values())
    return bytes(body + directory) + before_end + record + comment + suffix


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def zeros(mebibytes: int) -> bytes:
    """A deflate stream of that many MiB of zeros, made without making the zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(1024 * 1024)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + packer.flush(zlib.Z_FINISH)


def extra_field(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data
