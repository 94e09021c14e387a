"""A plugin package as a zip: checked whole before anything of it is used, then read and unpacked safely."""

from __future__ import annotations

import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chalicelib.core import errors
from chalicelib.core.errors import Violation
from chalicelib.plugins.package import entry_names, zip_format
from chalicelib.plugins.package.zip_format import Header

MIB = 1024 * 1024
MANIFEST = "manifest.json"
MAX_PER_RULE = 20
"""Entries named for one rule; a package of 2,000 bad names is not answered with 2,000 lines."""
_CHUNK = 64 * 1024

# With these the extent or content of an entry is in doubt, so its data is not looked at.
_UNREADABLE = frozenset(
    {"zip.encrypted", "zip.data_descriptor", "zip.flags", "zip.method", "zip.size_mismatch", "zip.multi_disk",
     "zip.zip64", "zip.local_header", "zip.header_mismatch"}
)  # fmt: skip
# With these nobody can say where an entry ends, so gaps and overlaps are not asked for.
_UNMEASURABLE = frozenset({"zip.local_header", "zip.data_descriptor"})
_UNSOUND = frozenset({"zip.gap", "zip.overlap", "zip.prefix_data", "zip.local_header", "zip.unpacked_size"})


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may cost; sizes in bytes.

    The ratio counts beyond `ratio_floor` only: small text files compress well. It holds for every file and
    for the archive as a whole, else a bomb is cut into files of 9 MB.
    """

    archive_bytes: int = 100 * MIB
    entries: int = 2_000
    unpacked_bytes: int = 250 * MIB
    ratio: int = 100
    ratio_floor: int = 10 * MIB


@dataclass(frozen=True)
class Entry:
    """A file or folder (name with trailing `/`) of a checked archive; sizes in bytes."""

    name: str
    size: int
    crc: int
    method: int
    packed: int
    data_offset: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


@dataclass(frozen=True)
class Archive:
    """A checked archive. The file at `path` must stay; what is read from it is verified again."""

    path: Path
    entries: tuple[Entry, ...]
    limits: ArchiveLimits

    @property
    def unpacked_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> dict[str, int]:
        """Size in bytes of every file by its name, folders left out."""
        return {entry.name: entry.size for entry in self.entries if not entry.is_folder}

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of one file.

        Raises
        ------
        errors.Invalid
            `zip.missing`, `zip.entry_size`, or the file changed since it was checked.
        """
        entry = next((entry for entry in self.entries if entry.name == name and not entry.is_folder), None)
        if entry is None:
            raise _refusal([Violation(name, "zip.missing", "is not in the package")])
        if entry.size > max_bytes:
            message = f"has {entry.size} bytes; at most {max_bytes} are allowed"
            raise _refusal([Violation(name, "zip.entry_size", message)])
        with self.path.open("rb") as file:
            return b"".join(_stream(file, entry, self.limits))

    def extract_all(self, folder: Path) -> None:
        """Write every file below `folder`, which must be absent or empty.

        Files are 0644, folders 0755, whatever the archive says: no set-user-id, no executable, no link. After
        an error the folder holds a part; the caller removes it.

        Raises
        ------
        FileExistsError
            The folder is not empty: a link waiting in it could lead a write elsewhere.
        errors.Invalid
            The file changed since it was checked.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        with self.path.open("rb") as file:
            for entry in self.entries:
                target = folder.joinpath(*entry.name.rstrip("/").split("/"))
                _make_folders(folder, target if entry.is_folder else target.parent)
                if not entry.is_folder:
                    _write(target, _stream(file, entry, self.limits))


def check_archive(path: Path, limits: ArchiveLimits | None = None) -> Archive:
    """Check the zip at `path` against every rule, its real bytes included, in bounded memory.

    Raises
    ------
    errors.Invalid
        `plugin.package_invalid` with every broken rule, each named `zip.<rule>`, the entry as its pointer.
    """
    archive, found = inspect_archive(path, limits or ArchiveLimits())
    if archive is None or found:
        raise _refusal(found)
    return archive


def inspect_archive(path: Path, limits: ArchiveLimits) -> tuple[Archive | None, list[Violation]]:
    """Like `check_archive`, but with the violations returned.

    Returns
    -------
    tuple
        The archive, None where its structure cannot be trusted at all, and the violations (20 a rule). An
        archive with violations serves to find more of them (`read` verifies what it reads), for nothing else.
    """
    size = path.stat().st_size
    if size > limits.archive_bytes:
        message = f"has {size} bytes; at most {limits.archive_bytes} are allowed"
        return None, [Violation("", "zip.archive_size", message)]
    with path.open("rb") as file:
        headers, directory, found = zip_format.read_directory(file, size, limits.entries)
        if found:
            return None, found
        entries, found = _check_entries(file, headers, directory, limits)
        if any(violation.rule in _UNSOUND for violation in found):
            return None, _bounded(found)
        readable = [entry for entry in entries if entry is not None]
        found.extend(_check_contents(file, readable, size, limits))
    return Archive(path, tuple(readable), limits), _bounded(found)


def _check_entries(
    file: BinaryIO, headers: list[Header], directory: int, limits: ArchiveLimits
) -> tuple[list[Entry | None], list[Violation]]:
    """The entries whose data may be looked at, and what headers, names and layout do wrong."""
    found: list[Violation] = []
    entries: list[Entry | None] = []
    spans = []
    for header in headers:
        name = _decode(header)
        data, here = zip_format.check_local(file, header, directory)
        here = [*zip_format.check_header(header), *here, *_check_kind(header)]
        here.extend(entry_names.check_name(name, header.label))
        spans.append((header.offset, data + header.packed, header.label))
        if any(violation.rule in _UNREADABLE for violation in here):
            entries.append(None)
        else:
            entries.append(Entry(name, header.size, header.crc, header.method, header.packed, data))
        found.extend(dict.fromkeys(here))
    labelled = [(_decode(header), header.label) for header in headers]
    found.extend(entry_names.check_collisions(labelled))
    if MANIFEST not in (name for name, _ in labelled):
        where = "is not at the root of the package: zip what is in the folder, not the folder"
        found.append(Violation(MANIFEST, "zip.manifest_missing", where))
    if not any(violation.rule in _UNMEASURABLE for violation in found):
        found.extend(zip_format.check_layout(spans, directory))
    if sum(header.size for header in headers) > limits.unpacked_bytes:
        # Declared sizes first, it costs nothing; `_stream` then stops at the first byte beyond a declared
        # size.
        message = f"unpacks to more than {limits.unpacked_bytes} bytes"
        found.append(Violation("", "zip.unpacked_size", message))
    return entries, found


def _decode(header: Header) -> str:
    return header.raw_name.decode("utf-8", "replace")


def _check_kind(header: Header) -> Iterator[Violation]:
    """Name encoding and kind of entry: regular files and folders only."""
    label = header.label
    try:
        header.raw_name.decode("utf-8" if header.flags & zip_format.FLAG_UTF8 else "ascii")
    except UnicodeDecodeError:
        # Without the flag a name is code page 437 to one reader and UTF-8 to the next.
        yield Violation(label, "zip.name_encoding", "is not ASCII, nor UTF-8 with the flag that says so")
    is_folder = header.raw_name.endswith(b"/")
    kind, dos_folder = header.file_type, header.external & 0x10
    if kind == stat.S_IFLNK:
        # A link to /, then a file through it: the classic escape.
        yield Violation(label, "zip.link", "is a symbolic link")
    elif kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG) or (dos_folder and not is_folder):
        # A device, a pipe that blocks its reader, or a folder by its mode and a file by its name.
        yield Violation(label, "zip.special_file", "is neither a regular file nor a folder")
    if is_folder and (header.size or header.packed):
        # Bytes that no unpacked file shows.
        yield Violation(label, "zip.folder_data", "is a folder with content")


def _check_contents(
    file: BinaryIO, entries: Iterable[Entry], size: int, limits: ArchiveLimits
) -> Iterator[Violation]:
    """Unpack everything to nowhere, counting real bytes."""
    total = 0
    for entry in entries:
        try:
            for chunk in _stream(file, entry, limits):
                total += len(chunk)
                if total > limits.ratio_floor and total > limits.ratio * size:
                    message = f"unpacks to more than {limits.ratio} times its size"
                    yield Violation("", "zip.ratio", message)
                    return
        except errors.Invalid as error:
            yield from error.errors


def _stream(file: BinaryIO, entry: Entry, limits: ArchiveLimits) -> Iterator[bytes]:
    """The verified bytes of an entry in chunks of at most 64 KiB; never more than its declared size."""
    produced, crc = 0, 0
    for chunk in _inflate(file, entry):
        produced += len(chunk)
        crc = zlib.crc32(chunk, crc)
        if produced > entry.size:
            # A bomb by a lying header: small in the directory, endless in the data.
            raise _entry_refusal(
                entry, "zip.size_lies", f"has more than the {entry.size} bytes that it declares"
            )
        if produced > limits.ratio_floor and produced > limits.ratio * entry.packed:
            raise _entry_refusal(entry, "zip.ratio", f"unpacks to more than {limits.ratio} times its size")
        yield chunk
    if produced != entry.size:
        raise _entry_refusal(entry, "zip.size_lies", f"has {produced} bytes and declares {entry.size}")
    if crc != entry.crc:
        raise _entry_refusal(entry, "zip.crc", "does not match its checksum")


def _inflate(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    file.seek(entry.data_offset)
    left = entry.packed
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == zip_format.DEFLATED else None
    while left:
        raw = file.read(min(_CHUNK, left))
        if not raw:
            raise _entry_refusal(entry, "zip.truncated", "ends too early")
        left -= len(raw)
        if inflater is None:
            yield raw
            continue
        try:
            # max_length bounds the memory: 64 KiB of input can hold 64 MB of output.
            while raw and not inflater.eof:
                yield inflater.decompress(raw, _CHUNK)
                raw = inflater.unconsumed_tail
        except zlib.error:
            raise _entry_refusal(entry, "zip.deflate", "is not a valid deflate stream") from None
        if inflater.eof and (left or inflater.unused_data):
            # Bytes behind the end of the stream: a hiding place within an entry.
            raise _entry_refusal(entry, "zip.deflate", "goes on after the end of its deflate stream")
    while inflater is not None and not inflater.eof:
        # All input is consumed, but the last call may have stopped at its output limit.
        chunk = inflater.decompress(b"", _CHUNK)
        if not chunk:
            raise _entry_refusal(entry, "zip.deflate", "has an unfinished deflate stream")
        yield chunk


def _make_folders(root: Path, folder: Path) -> None:
    missing = [folder, *folder.parents]
    for step in reversed(missing[: missing.index(root)]):
        if not step.is_dir():
            step.mkdir()
            step.chmod(0o755)


def _write(target: Path, chunks: Iterable[bytes]) -> None:
    # O_EXCL never follows or overwrites what is already there.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.writelines(chunks)


def _bounded(found: list[Violation]) -> list[Violation]:
    kept: list[Violation] = []
    counts: Counter[str] = Counter()
    for violation in found:
        counts[violation.rule] += 1
        if counts[violation.rule] <= MAX_PER_RULE:
            kept.append(violation)
    return kept


def _entry_refusal(entry: Entry, rule: str, message: str) -> errors.Invalid:
    return _refusal([Violation(entry.name[:200], rule, message)])


def _refusal(found: list[Violation]) -> errors.Invalid:
    return errors.Invalid("The package is refused.", code="plugin.package_invalid", errors=found)
