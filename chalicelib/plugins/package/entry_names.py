"""Names of archive entries: one spelling, one place, on every file system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from chalicelib.core.errors import Violation

MAX_NAME = 1024
MAX_SEGMENT = 255
"""Bytes: what ext4, APFS and NTFS hold in one file name."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])", re.IGNORECASE)
# Controls, separators of lines, and the marks that make a name show as another one (`txt.exe` as `exe.txt`).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def check_name(name: str, label: str) -> Iterator[Violation]:
    """What is wrong with the name of a file or (with a trailing `/`) of a folder.

    Parameters
    ----------
    name
        As decoded.
    label
        As it can be shown in an answer.
    """
    path = name[:-1] if name.endswith("/") else name
    segments = path.split("/")
    if name.startswith("/"):
        yield Violation(label, "zip.absolute", "is absolute")  # overwrites /etc/…
        segments = segments[1:]
    if "\\" in name:
        yield Violation(label, "zip.backslash", "has a backslash")  # `..\x` climbs on Windows
    if ":" in name:
        yield Violation(label, "zip.drive", "has a colon")  # `C:x` is absolute, `x:y` an alternate stream
    if _CONTROL.search(name):
        yield Violation(label, "zip.control_character", "has a control character")  # NUL ends a name in C
    if any(part == ".." for part in re.split(r"[/\\]", name)):
        yield Violation(label, "zip.traversal", "climbs out by a .. segment")  # zip slip
    if any(segment in ("", ".") for segment in segments):
        # A second spelling of a path that is already there.
        yield Violation(label, "zip.empty_segment", "has an empty or . segment")
    if any(segment.rstrip(". ") != segment and segment not in (".", "..") for segment in segments):
        # Windows cuts them off: `a.` overwrites `a`.
        yield Violation(label, "zip.trailing_dot_or_space", "has a segment that ends in a dot or space")
    if any(_DEVICE.fullmatch(segment.split(".")[0].rstrip(" ")) for segment in segments):
        yield Violation(label, "zip.device_name", "has a segment that names a Windows device")
    if len(name.encode()) > MAX_NAME or any(len(segment.encode()) > MAX_SEGMENT for segment in segments):
        message = f"is longer than {MAX_NAME} bytes, or {MAX_SEGMENT} in a segment"
        yield Violation(label, "zip.name_length", message)
    if unicodedata.normalize("NFC", name) != name:
        yield Violation(label, "zip.normal_form", "is not in Unicode normal form C")  # é spelled in two ways


def check_collisions(names: Iterable[tuple[str, str]]) -> Iterator[Violation]:
    """Which names (name, label) would meet in one place when unpacked, on whatever file system.

    Folders count as well, also those that are only implied: `A/x` beside `a/y` is one folder on some systems.
    """
    kinds: dict[str, tuple[str, bool]] = {}
    seen: set[str] = set()
    for name, label in names:
        path, is_folder = name.rstrip("/"), name.endswith("/")
        if path in seen:
            # The checker reads the first, the unpacker writes the last.
            yield Violation(label, "zip.duplicate", "is in the archive twice")
            continue
        seen.add(path)
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            place = "/".join(parts[:depth])
            here_is_folder = is_folder or depth < len(parts)
            spelled, was_folder = kinds.setdefault(_fold(place), (place, here_is_folder))
            if spelled != place:
                yield Violation(label, "zip.case_duplicate", "differs from another name only in case")
                break
            if was_folder != here_is_folder:
                # A file where others expect a folder: the second write fails or goes elsewhere.
                yield Violation(
                    label, "zip.file_and_folder", f"needs {place[:200]!a} as a file and as a folder"
                )
                break


def _fold(place: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", place).casefold())
