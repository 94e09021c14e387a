"""A plugin package: a zip that holds to every rule, with a manifest that holds to every rule."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from chalicelib.core import errors
from chalicelib.core.errors import Violation
from chalicelib.plugins.package import archive, entry_names, manifest
from chalicelib.plugins.package.archive import Archive, ArchiveLimits
from chalicelib.plugins.package.manifest import Manifest

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """A checked package on disk; sizes in bytes."""

    manifest: Manifest
    manifest_bytes: bytes
    files: dict[str, int]
    unpacked_bytes: int
    archive: Archive


def read_package(path: Path, *, platform_version: str, limits: ArchiveLimits | None = None) -> Package:
    """Check the zip at `path` and its manifest.

    Raises
    ------
    errors.Invalid
        With all violations of both, as far as the zip lets the manifest be read: `plugin.package_invalid` if
        the zip breaks a rule (`zip.…`, the pointer is an entry), else `plugin.manifest_invalid`.
    """
    checked, found = archive.inspect_archive(path, limits or ArchiveLimits())
    if checked is None or archive.MANIFEST not in checked.files:
        raise _refusal(found)
    if checked.files[archive.MANIFEST] > manifest.MAX_BYTES:
        found.append(
            Violation("", "json.size", f"is larger than the {manifest.MAX_BYTES} bytes of a manifest")
        )
        raise _refusal(found)
    # An entry that is refused is there all the same: a bad main.py is not also a missing one.
    present = {violation.pointer: 0 for violation in found} | checked.files
    try:
        raw = checked.read(archive.MANIFEST, manifest.MAX_BYTES)
        parsed = manifest.parse_manifest(raw, files=present, platform_version=platform_version)
    except errors.Invalid as error:
        raise _refusal(list(dict.fromkeys([*found, *error.errors]))) from None
    if found:
        raise _refusal(found)
    return Package(parsed, raw, checked.files, checked.unpacked_bytes, checked)


def pack_entry_point(filename: str, data: bytes, manifest_bytes: bytes) -> bytes:
    """A package of one program file and its manifest; the same input gives the same bytes on every machine.

    Stored, not deflated: the output of deflate depends on the version of zlib, and an upload that is repeated
    must have the digest of the first.

    Raises
    ------
    errors.Invalid
        `plugin.package_invalid`: the filename is none that a package may hold at its root.
    """
    found = list(entry_names.check_name(filename, filename[:200]))
    if "/" in filename or filename.casefold() in (archive.MANIFEST, "signature.json"):
        found.append(
            Violation(filename[:200], "zip.entry_point", "is no name for a program file at the root")
        )
    if found:
        raise _refusal(found)
    import zipfile  # 25 ms that only this way of installing needs

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as package:
        for name, content in ((archive.MANIFEST, manifest_bytes), (filename, data)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            package.writestr(entry, content)
    return packed.getvalue()


def _refusal(found: list[Violation]) -> errors.Invalid:
    is_zip = any(violation.rule.startswith("zip.") for violation in found)
    code = "plugin.package_invalid" if is_zip else "plugin.manifest_invalid"
    return errors.Invalid("The package is refused.", code=code, errors=found)
