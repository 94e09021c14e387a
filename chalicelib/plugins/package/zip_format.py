"""The records of a zip file (APPNOTE.TXT 6.3), read as strictly as they can be.

A zip says everything twice (central directory and local headers) and may hold bytes that neither mentions.
Readers differ in which copy they believe, so a package could show one content to the checker and another to
whoever unpacks it. Here every copy must agree and every byte of the file must belong to exactly one record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from chalicelib.core.errors import Violation

STORED = 0
DEFLATED = 8

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_LOCATOR_SIGNATURE = b"PK\x06\x07"
_CENTRAL_SIGNATURE = b"PK\x01\x02"
_LOCAL_SIGNATURE = b"PK\x03\x04"
_MAX_COMMENT = 0xFFFF

_FLAG_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_FLAG_DATA_DESCRIPTOR = 1 << 3
_FLAG_DEFLATE_LEVEL = 1 << 1 | 1 << 2
FLAG_UTF8 = 1 << 11
_KNOWN_FLAGS = _FLAG_ENCRYPTED | _FLAG_DATA_DESCRIPTOR | _FLAG_DEFLATE_LEVEL | FLAG_UTF8

MAX_DIRECTORY = 4 * 1024 * 1024
"""Bytes of central directory: 2,000 entries with 1,024-byte names need half of it. It is held in memory."""

# Extra fields that give an entry a second name, size, mode or key, which some readers believe and others
# ignore.
_REFUSED_EXTRAS = {
    0x0001: ("zip.zip64", "has a zip64 field although nothing in it needs 64 bits"),
    0x7075: ("zip.unicode_extra", "has a second name in a unicode path field"),
    0x6375: ("zip.unicode_extra", "has a second comment in a unicode comment field"),
    0x9901: ("zip.encrypted", "is encrypted (AES)"),
    0x0017: ("zip.encrypted", "is encrypted (strong encryption)"),
    0x000D: ("zip.link", "has a PKWARE Unix field, which can hold the target of a link"),
    0x756E: ("zip.link", "has an ASi Unix field, which can hold the target of a link"),
}


@dataclass(frozen=True)
class Header:
    """One entry as the central directory describes it; sizes and offset in bytes."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    extra: bytes
    disk: int
    external: int
    offset: int

    @property
    def label(self) -> str:
        """The name as it can be shown: never a control character, never long."""
        text = self.raw_name.decode("utf-8", "backslashreplace")
        return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)[:200]

    @property
    def file_type(self) -> int:
        """The S_IFMT bits of a Unix mode, 0 where there are none."""
        return self.external >> 16 & 0o170000


def read_directory(file: BinaryIO, size: int, max_entries: int) -> tuple[list[Header], int, list[Violation]]:
    """The central directory of a file of `size` bytes.

    Returns
    -------
    tuple
        The headers, the offset at which the directory starts, and what is wrong; with violations the headers
        may be incomplete.
    """
    found: list[Violation] = []
    end = _find_end(file, size, found)
    if end is None:
        return [], 0, found
    file.seek(end)
    _, disk, start_disk, here, entries, length, start, _ = _END.unpack(file.read(_END.size))
    file.seek(max(end - 20, 0))
    if file.read(4) == _ZIP64_LOCATOR_SIGNATURE or _saturated(length, start) or entries == 0xFFFF:
        # Zip64 lets the 64-bit record name another directory than the 32-bit one; nothing here needs 64 bits.
        found.append(Violation("", "zip.zip64", "is a zip64 archive although nothing in it needs 64 bits"))
    elif disk or start_disk or here != entries:
        found.append(Violation("", "zip.multi_disk", "is one part of an archive on several disks"))
    elif entries > max_entries:
        # A bomb by count: each empty file costs the unpacker an inode and a system call or three.
        found.append(
            Violation("", "zip.too_many_entries", f"has {entries} entries; {max_entries} are allowed")
        )
    elif length > MAX_DIRECTORY:
        found.append(Violation("", "zip.directory", f"has a directory of {length} bytes"))
    elif start + length != end:
        found.append(_misplaced(file, end, start, length))
    if found:
        return [], 0, found
    file.seek(start)
    return _parse_directory(file.read(length), entries, found), start, found


def check_header(header: Header) -> Iterator[Violation]:
    """What the central directory alone says that must not be."""
    label = header.label
    if header.flags & _FLAG_ENCRYPTED:
        # What cannot be read cannot be checked.
        yield Violation(label, "zip.encrypted", "is encrypted")
    if header.flags & _FLAG_DATA_DESCRIPTOR:
        # A streaming reader takes the sizes behind the data, a seeking one those of the directory.
        yield Violation(label, "zip.data_descriptor", "has its sizes behind its data (data descriptor)")
    if header.flags & ~_KNOWN_FLAGS:
        yield Violation(label, "zip.flags", f"has flags {header.flags:#06x} with an unknown meaning")
    if header.method not in (STORED, DEFLATED):
        yield Violation(
            label, "zip.method", f"uses compression method {header.method}; only 0 and 8 are allowed"
        )
    if header.method == STORED and header.packed != header.size:
        # Readers of one size would see another file than readers of the other.
        yield Violation(label, "zip.size_mismatch", "is stored, but its two sizes differ")
    if header.disk:
        yield Violation(label, "zip.multi_disk", "lies on another disk")
    if _saturated(header.packed, header.size, header.offset):
        yield Violation(label, "zip.zip64", "has a saturated size or offset, as in zip64")
    yield from _check_extra(header.extra, label)


def check_local(file: BinaryIO, header: Header, directory: int) -> tuple[int, list[Violation]]:
    """Compare an entry's local header with the central directory.

    Returns
    -------
    tuple
        The offset of the entry's data, and what is wrong.
    """
    label = header.label
    file.seek(header.offset)
    raw = file.read(_LOCAL.size)
    if header.offset + _LOCAL.size > directory or not raw.startswith(_LOCAL_SIGNATURE):
        return 0, [Violation(label, "zip.local_header", "has no local header where the directory says")]
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
    name, extra = file.read(name_length), file.read(extra_length)
    found = []
    if flags & _FLAG_DATA_DESCRIPTOR and not header.flags & _FLAG_DATA_DESCRIPTOR:
        found.append(Violation(label, "zip.data_descriptor", "has a data descriptor by its local header"))
    pairs: dict[str, tuple[object, object]] = {
        "name": (name, header.raw_name),
        "flags": (flags, header.flags),
        "method": (method, header.method),
    }
    if not flags & header.flags & _FLAG_DATA_DESCRIPTOR:
        pairs |= {
            "CRC": (crc, header.crc),
            "compressed size": (packed, header.packed),
            "size": (size, header.size),
        }
    differing = [what for what, (local, central) in pairs.items() if local != central]
    if differing:
        # The checker would judge one copy and an unpacker use the other.
        message = f"differs between its local header and the directory: {', '.join(differing)}"
        found.append(Violation(label, "zip.header_mismatch", message))
    found.extend(_check_extra(extra, label))
    return header.offset + _LOCAL.size + name_length + extra_length, found


def check_layout(spans: Sequence[tuple[int, int, str]], directory: int) -> Iterator[Violation]:
    """Require that entries follow each other without gap or overlap, from the first byte to the directory.

    Parameters
    ----------
    spans
        Start and end offset of each entry (header and data), and its label.
    directory
        Where the central directory starts.
    """
    position = 0
    for start, end, label in sorted(spans):
        if start > position and position == 0:
            # A script or executable in front: the same file means something else to another program.
            yield Violation("", "zip.prefix_data", f"has {start} bytes before its first entry")
        elif start > position:
            # Bytes that no record mentions: hidden files for readers that scan instead of seek.
            yield Violation(label, "zip.gap", f"has {start - position} unaccounted bytes before it")
        elif start < position:
            # Many entries over one piece of data: a bomb whose every ratio looks harmless.
            yield Violation(label, "zip.overlap", "overlaps another entry")
        position = max(position, end)
    if position > directory:
        yield Violation("", "zip.overlap", "has entries that run into the central directory")
    elif position < directory:
        rule = "zip.gap" if spans else "zip.prefix_data"
        yield Violation(
            "", rule, f"has {directory - position} unaccounted bytes before the central directory"
        )


def _saturated(*fields: int) -> bool:
    """Whether a 32-bit field says "look into the zip64 record"."""
    return 0xFFFFFFFF in fields


def _find_end(file: BinaryIO, size: int, found: list[Violation]) -> int | None:
    """Offset of the one end-of-directory record, which with its comment must end the file."""
    tail_start = max(0, size - _END.size - _MAX_COMMENT)
    file.seek(tail_start)
    tail = file.read(_END.size + _MAX_COMMENT)
    places = list(_places(tail))
    if not places:
        found.append(Violation("", "zip.not_a_zip", "has no end-of-directory record"))
        return None
    closing = [place for place in places if _end_of(tail, place) == len(tail)]
    if not closing:
        # Data behind the archive belongs to nobody; a later archive appended there would win in some readers.
        cut = _end_of(tail, places[-1]) > len(tail)
        rule, message = (
            ("zip.truncated", "ends too early") if cut else ("zip.suffix_data", "goes on after its end")
        )
        found.append(Violation("", rule, message))
        return None
    if closing[0] != places[-1]:
        # A second record in the comment: readers that search from the back and from the front see two
        # archives.
        found.append(
            Violation("", "zip.ambiguous_end", "has a second end-of-directory record in its comment")
        )
        return None
    return tail_start + closing[0]


def _places(tail: bytes) -> Iterator[int]:
    place = tail.find(_END_SIGNATURE)
    while place >= 0:
        yield place
        place = tail.find(_END_SIGNATURE, place + 1)


def _end_of(tail: bytes, place: int) -> int:
    """Where the record at `place` and its comment end; beyond the tail if it is cut off."""
    if place + _END.size > len(tail):
        return len(tail) + 1
    return place + _END.size + int(_END.unpack_from(tail, place)[-1])


def _misplaced(file: BinaryIO, end: int, start: int, length: int) -> Violation:
    """Why the directory does not end where the end record begins."""
    if start + length > end:
        return Violation("", "zip.directory", "has a directory that reaches beyond its end record")
    file.seek(end - length)
    if length and file.read(4) == _CENTRAL_SIGNATURE:
        # Offsets count from behind a prefix, as in a self-extracting archive: the file is two things at once.
        return Violation("", "zip.prefix_data", f"has {end - start - length} bytes before the archive")
    return Violation("", "zip.gap", "has unaccounted bytes between its directory and the end record")


def _parse_directory(raw: bytes, entries: int, found: list[Violation]) -> list[Header]:
    headers: list[Header] = []
    position = 0
    for _ in range(entries):
        if len(raw) - position < _CENTRAL.size or raw[position : position + 4] != _CENTRAL_SIGNATURE:
            found.append(Violation("", "zip.directory", f"has {len(headers)} readable entries of {entries}"))
            return headers
        record = _CENTRAL.unpack_from(raw, position)
        (
            _,
            _,
            _,
            flags,
            method,
            _,
            _,
            crc,
            packed,
            size,
            names,
            extras,
            comments,
            disk,
            _,
            external,
            offset,
        ) = record
        position += _CENTRAL.size
        name, extra = raw[position : position + names], raw[position + names : position + names + extras]
        position += names + extras + comments
        headers.append(Header(name, flags, method, crc, packed, size, extra, disk, external, offset))
    if position != len(raw):
        # More (or less) directory than counted entries: some readers go by the count, some by the size.
        found.append(Violation("", "zip.directory", "has a directory whose size and entry count disagree"))
    return headers


def _check_extra(extra: bytes, label: str) -> Iterator[Violation]:
    position = 0
    while position < len(extra):
        kind, length = (
            struct.unpack_from("<HH", extra, position) if len(extra) - position >= 4 else (0, 0xFFFF)
        )
        position += 4 + length
        if position > len(extra):
            # Readers differ in what they make of a broken field: skip it, or read beyond it.
            yield Violation(label, "zip.extra", "has a malformed extra field")
            return
        if kind in _REFUSED_EXTRAS:
            yield Violation(label, *_REFUSED_EXTRAS[kind])
