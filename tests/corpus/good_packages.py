"""Packages that must be accepted, as the usual tools make them."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from tests.corpus.cases import (
    MAIN,
    MANIFEST,
    MIB,
    Build,
    Case,
    manifest,
    only,
    raw,
    with_manifest,
)
from tests.corpus.raw_zip import FOLDER, Member, build, extra_field, zeros


def by_zipfile(compression: int, folders: bool = False) -> Build:
    """What Python's zipfile and shutil.make_archive write to a file."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as package:
            if folders:
                package.mkdir("lib")
            package.writestr("main.py", MAIN.data)
            package.writestr("lib/data.txt", b"x" * 5000)
            package.writestr("manifest.json", MANIFEST.data)

    return make


def by_info_zip(path: Path) -> None:
    """What the `zip` command writes: folders, timestamps and owners in extra fields, longer ones locally."""
    local = extra_field(0x5455, b"\3" + bytes(8)) + extra_field(0x7875, b"\1\4" + bytes(4) + b"\4" + bytes(4))
    central = extra_field(0x5455, b"\3" + bytes(4)) + extra_field(
        0x7875, b"\1\4" + bytes(4) + b"\4" + bytes(4)
    )
    extras: dict[str, Any] = {"local": {"extra": local}, "central": {"extra": central}}
    path.write_bytes(
        build(
            [
                Member("manifest.json", MANIFEST.data, **extras),
                Member("lib/", method=0, external=FOLDER, **extras),
                Member("lib/x.py", b"x = 1", method=0, **extras),
                Member("main.py", MAIN.data, **extras),
            ]
        )
    )


def by_dos(path: Path) -> None:
    """No Unix modes; folders by their DOS attribute."""
    path.write_bytes(
        build(
            [
                Member("manifest.json", MANIFEST.data, external=0x20),
                Member("main.py", MAIN.data, external=0),
                Member("lib/", method=0, external=0x10),
                Member("lib/x.py", b"x = 1", external=0x20),
            ]
        )
    )


def nested_zip_last(path: Path) -> None:
    """A stored zip as the last file: its end record lies near the outer one."""
    inner = build([Member("x", b"x")])
    path.write_bytes(build([MANIFEST, MAIN, Member("vendor/inner.zip", inner, method=0)]))


def other_order(path: Path) -> None:
    """The directory lists the entries in another order than they lie in the file."""
    first = len(MAIN.local_header() + MAIN.packed())
    body = MAIN.local_header() + MAIN.packed() + MANIFEST.local_header() + MANIFEST.packed()
    directory = MANIFEST.central_header(first) + MAIN.central_header(0)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), len(body), 0)
    path.write_bytes(body + directory + end)


def compressible(path: Path) -> None:
    """Ratio 1,000, but below 10 MiB: a sparse table, not a bomb."""
    nine = Member("table.bin", raw=zeros(9), both={"size": 9 * MIB, "crc": zlib.crc32(bytes(9 * MIB))})
    path.write_bytes(build([MANIFEST, MAIN, nine]))


FULL = manifest(
    description="Sends messages to a chat.",
    author="Example Ltd <plugins@example.com>",
    homepage="https://example.com/notify",
    repository="https://example.com/notify.git",
    documentation="https://example.com/notify/docs",
    icon="icon.png",
    license="Apache-2.0 OR (MIT AND BSD-3-Clause)",
    tags=["chat", "notify"],
    dependencies=["text-format@^1.2", {"name": "markdown", "range": ">=1.0.0 <3.0.0", "optional": True}],
    configSchema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "token": {"type": "string", "writeOnly": True},
            "retries": {"$ref": "#/$defs/count"},
        },
        "required": ["url", "token"],
        "additionalProperties": False,
        "$defs": {"count": {"type": "integer", "minimum": 0, "maximum": 10}},
    },
    paramsSchema={"type": "object"},
    defaultConfig={"retries": 3},
    actions={
        "send": {
            "description": "Send one message.",
            "paramsSchema": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 4000}}},
            "returnsSchema": {"type": "object"},
        },
        "sendMany": {},
    },
    minVersion="0.1.0",
    maxVersion="1.0.0",
    resources={"cpu": "250m", "memory": "64Mi", "disk": "10Mi", "timeoutMs": 5000},
    permissions={"network": ["hooks.example.com", "api.example.com:8443"]},
    x_vendor={"kept": [1, 2.5, None]},
)

GOOD = [
    Case("smallest", only(MANIFEST, MAIN)),
    Case("stored by zipfile", by_zipfile(zipfile.ZIP_STORED)),
    Case("deflated by zipfile", by_zipfile(zipfile.ZIP_DEFLATED)),
    Case("folders by zipfile", by_zipfile(zipfile.ZIP_DEFLATED, folders=True)),
    Case("Info-ZIP", by_info_zip),
    Case("DOS attributes", by_dos),
    Case("comment at the end", raw(comment=b"built by PK 4.0")),
    Case("longest comment", raw(comment=b"c" * 0xFFFF)),
    Case("manifest.json deeper is an ordinary file", raw(Member("vendor/x/manifest.json", b"not { json"))),
    Case("nested zip last", nested_zip_last),
    Case("other order", other_order),
    Case("unicode names", raw(Member("文档/café — 😀.txt", b"x"), Member("straße", b"x"))),
    Case("harmless dots and blanks", raw(Member(".hidden", b""), Member("a..b/c d/..e", b"x"))),
    Case("executable bits", raw(Member("bin/tool", b"\x7fELF", external=0o104755 << 16))),
    Case("empty file, deflated", raw(Member("empty", b""))),
    Case("names at the limit", raw(Member("a" * 255, b"x"), Member("/".join(["b" * 255] * 4), b"x"))),
    Case("2,000 entries", raw(*(Member(f"f/{i}", method=0) for i in range(1998)))),
    Case("compressible below the floor", compressible),
    Case("8 MiB of noise", raw(Member("noise", os.urandom(8 * MIB), method=0))),
    Case("a name like a device", raw(Member("console.py", b"x"), Member("lib/com.txt", b"x"))),
    Case(
        "every field of a manifest",
        only(Member("manifest.json", json.dumps(FULL).encode()), MAIN, Member("icon.png", b"\x89PNG")),
    ),
    Case("manifest 64 deep", with_manifest(MANIFEST.data[:-1] + b', "x": ' + b"[" * 63 + b"]" * 63 + b"}")),
    Case(
        "wasm",
        only(
            Member("manifest.json", json.dumps(manifest(entryPoint="bin/plugin.wasm")).encode()),
            Member("bin/plugin.wasm", b"\0asm\1\0\0\0"),
        ),
    ),
    Case(
        "shared library",
        only(
            Member("manifest.json", json.dumps(manifest(entryPoint="plugin.so")).encode()),
            Member("plugin.so", b"\x7fELF"),
        ),
    ),
]
