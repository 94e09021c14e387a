"""Zips of which the same input gives the same bytes, and what their binaries ask of the target's C library."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

# The oldest time that a zip can hold. Bytecode is not compared with it: it is `unchecked-hash`.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAX_ZIPPED = 45 * 1024 * 1024
# Of the function and its layers together: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_UNZIPPED = 250 * 1024 * 1024
_VERSION = re.compile(r"GLIBC_(\d+)\.(\d+)")


def write_zip(path: Path, trees: Mapping[str, Path]) -> None:
    """Pack folders, each under a prefix, in the order of their names, all readable and none writable for others."""
    entries = {
        f"{prefix}{file.relative_to(folder).as_posix()}": file
        for prefix, folder in trees.items()
        for file in folder.rglob("*")
        if file.is_file()
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if entries[name].suffix == ".so" else 0o644) << 16
            info.create_system = 3
            archive.writestr(info, entries[name].read_bytes())


def unpacked_size(path: Path) -> int:
    """Return the bytes of a zip's files, unpacked."""
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


def digest(paths: Iterable[Path]) -> str:
    """Return a digest of some files' contents."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def is_binary(path: Path) -> bool:
    """Whether a file is an ELF binary, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def glibc_needed(path: Path) -> tuple[int, int]:
    """Return the newest version of glibc whose symbols a binary asks for, (0, 0) where it asks for none.

    Raises
    ------
    ValueError
        It is not for x86-64.
    """
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    with path.open("rb") as file:
        binary = ELFFile(file)
        if binary["e_machine"] != "EM_X86_64":
            raise ValueError(f"{path.name} is for {binary['e_machine']}")
        names = [
            auxiliary.name
            for section in binary.iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, versions in section.iter_versions()
            for auxiliary in versions
        ]
    found = [(int(match[1]), int(match[2])) for name in names if (match := _VERSION.fullmatch(name))]
    return max(found, default=(0, 0))
