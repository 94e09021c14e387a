"""Zips whose entries have bad names, kinds or header fields."""

from __future__ import annotations

from tests.corpus.cases import (
    MAIN,
    MANIFEST,
    Case,
    raw,
    zip_case,
)
from tests.corpus.raw_zip import FOLDER, UTF8, Member, extra_field


def _name(label: str, name: str | bytes, rule: str, *also: str) -> Case:
    return zip_case(f"name: {label}", rule, raw(Member(name, b"x")), *also)


NAMES = [
    _name("parent", "../evil.py", "traversal"),
    _name("parent deep inside", "a/b/../../../evil.py", "traversal"),
    _name("parent at the end", "a/..", "traversal"),
    _name("parent alone", "..", "traversal"),
    zip_case("name: parent as a folder", "traversal", raw(Member("../", method=0, external=FOLDER))),
    _name("parent by backslash", "..\\evil.py", "traversal", "backslash"),
    _name(
        "parent by mixed separators", "a/..\\../evil.py", "traversal", "backslash", "trailing_dot_or_space"
    ),
    _name("absolute", "/etc/cron.d/evil", "absolute"),
    _name("two slashes", "//server/share/evil", "absolute", "empty_segment"),
    _name("drive", "C:/evil.py", "drive"),
    _name("drive and backslash", "C:\\evil.py", "drive", "backslash"),
    _name("alternate data stream", "main.py:evil", "drive"),
    _name("UNC", "\\\\server\\share\\evil", "backslash"),
    _name("dot segment", "./evil.py", "empty_segment"),
    _name("empty segment", "a//evil.py", "empty_segment"),
    _name("empty", "", "empty_segment"),
    _name("NUL", "evil.py\0.txt", "control_character"),
    _name("escape sequence", "\x1b[2Jevil.py", "control_character"),
    _name("line feed", "evil\n.py", "control_character"),
    _name("right-to-left override", "evil\u202eyp.txt", "control_character"),
    _name("trailing dot", "main.py.", "trailing_dot_or_space"),
    _name("trailing space", "lib /x.py", "trailing_dot_or_space"),
    _name("three dots", ".../x.py", "trailing_dot_or_space"),
    _name("device", "CON", "device_name"),
    _name("device with endings", "lib/aux.tar.gz", "device_name"),
    _name("device by superscript", "COM¹.txt", "device_name"),
    _name("long segment", "a" * 256, "name_length"),
    _name("long segment in bytes", "é" * 128, "name_length"),
    _name("long path", "/".join(["a" * 200] * 6), "name_length"),
    _name("decomposed", "cafe\u0301.py", "normal_form"),
    _name("UTF-8 without its flag", "café.py".encode(), "name_encoding"),
    _name("code page 437", b"caf\x82.py", "name_encoding"),
    zip_case("name: broken UTF-8", "name_encoding", raw(Member(b"caf\xe9.py", b"x", both={"flags": UTF8}))),
    zip_case(
        "name: second one in a unicode field",
        "unicode_extra",
        raw(Member("ok.py", b"x", extra=extra_field(0x7075, b"\1" + bytes(4) + b"../evil.py"))),
    ),
    zip_case(
        "name: unicode comment",
        "unicode_extra",
        raw(Member("ok.py", b"x", extra=extra_field(0x6375, b"\1" + bytes(4) + b"x"))),
    ),
    zip_case("twice the same name", "duplicate", raw(MAIN)),
    zip_case("twice the manifest", "duplicate", raw(MANIFEST)),
    zip_case(
        "folder twice",
        "duplicate",
        raw(Member("a/", method=0, external=FOLDER), Member("a/", method=0, external=FOLDER)),
    ),
    zip_case("other case", "case_duplicate", raw(Member("MAIN.py", b"x"))),
    zip_case("sharp s", "case_duplicate", raw(Member("straße", b"x"), Member("STRASSE", b"x"))),
    zip_case("folders in other case", "case_duplicate", raw(Member("Lib/a", b"x"), Member("lib/b", b"x"))),
    zip_case("file also a folder", "file_and_folder", raw(Member("main.py/x", b"x"))),
    zip_case("folder also a file", "file_and_folder", raw(Member("a/b/c", b"x"), Member("a/b", b"x"))),
]

KINDS = [
    zip_case("symbolic link", "link", raw(Member("evil", b"/etc/passwd", external=0o120777 << 16))),
    zip_case("link by ASi field", "link", raw(Member("evil", b"", extra=extra_field(0x756E, bytes(20))))),
    zip_case(
        "link by PKWARE Unix field", "link", raw(Member("evil", b"", extra=extra_field(0x000D, bytes(12))))
    ),
    zip_case("character device", "special_file", raw(Member("evil", b"", external=0o20666 << 16))),
    zip_case("named pipe", "special_file", raw(Member("evil", b"", external=0o10666 << 16))),
    zip_case("socket", "special_file", raw(Member("evil", b"", external=0o140666 << 16))),
    zip_case("folder by mode only", "special_file", raw(Member("evil", b"", external=0o40755 << 16))),
    zip_case("folder by DOS attribute only", "special_file", raw(Member("evil", b"", external=0x10))),
    zip_case("file by mode, folder by name", "special_file", raw(Member("evil/", b"", method=0))),
    zip_case("folder with content", "folder_data", raw(Member("a/", b"hidden", method=0, external=FOLDER))),
    zip_case("encrypted", "encrypted", raw(Member("a", b"x", both={"flags": 1}))),
    zip_case("strongly encrypted", "encrypted", raw(Member("a", b"x", both={"flags": 1 << 6}))),
    zip_case("masked headers", "encrypted", raw(Member("a", b"x", both={"flags": 1 << 13}))),
    zip_case(
        "AES", "encrypted", raw(Member("a", b"x", method=99, extra=extra_field(0x9901, bytes(7)))), "method"
    ),
    zip_case("patch data", "flags", raw(Member("a", b"x", both={"flags": 1 << 5}))),
    *(
        zip_case(f"method {method}", "method", raw(Member("a", b"x", method=method)))
        for method in (1, 6, 9, 12, 14, 93, 95, 97, 98, 0xFFFF)
    ),
    zip_case("extra field cut off", "extra", raw(Member("a", b"x", extra=b"\x55\x54\xff\x00\x01"))),
    zip_case("extra field of three bytes", "extra", raw(Member("a", b"x", extra=b"\0\0\0"))),
    zip_case(
        "extra field broken in the local header only",
        "extra",
        raw(Member("a", b"x", local={"extra": b"\x55\x54\x09\x00\x01"})),
    ),
]
