"""The second and third tier: a folder of this execution environment, and behind it the bucket by presigned
URL.

A file of the folder is never trusted: its SHA-256 is taken each time something is loaded from it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from chalicelib.plugins.runtime.faults import ONE_MIB, Deadline, PluginFault, load_timeout
from chalicelib.plugins.runtime.request import Source

DEFAULT_BUDGET_BYTES = 400 * ONE_MIB
"""Of the folder: Lambda's /tmp has 512 MB by default, and unpacked plugins live there too."""

MAX_UNPACKED_BYTES = 250 * ONE_MIB
MAX_ENTRIES = 2_000
CHUNK = 256 * 1024


class ArtifactFolder:
    """Verified files by name, the least recently used dropped when their total size passes the budget.

    Parameters
    ----------
    folder
        Created on first use, readable by this user only: a plugin's child that runs as another user must not
        read what its neighbours consist of.
    budget_bytes
        Total size of all files.
    """

    def __init__(self, folder: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._folder = folder
        self._budget = budget_bytes

    def fetch(self, name: str, source: Source, deadline: Deadline) -> Path:
        """Return a file whose bytes have the checksum of `source`, downloading it where the folder has none.

        Raises
        ------
        PluginFault
            Of kind `load`: `plugin.artifact_unavailable`, `plugin.checksum_mismatch`, `plugin.load_timeout`.
        """
        path = self._folder / name
        if path.is_file():
            if _digest(path, deadline) == source.checksum:
                os.utime(path)
                return path
            path.unlink()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(source.size_bytes)
        part = self._folder / f"{name}.{secrets.token_hex(4)}.part"
        try:
            if _download(source, part, deadline) != source.checksum:
                raise PluginFault(
                    "load", "plugin.checksum_mismatch", "The stored plugin is not what was registered."
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _make_room(self, size: int) -> None:
        files = sorted(
            (path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.iterdir()
        )
        total = sum(entry[1] for entry in files) + size
        for _, freed, path in files:
            if total <= self._budget:
                return
            path.unlink(missing_ok=True)
            total -= freed


def read_entry(archive: Path, name: str, limit: int) -> bytes:
    """Return one entry of a zip, at most `limit` bytes long.

    Raises
    ------
    PluginFault
        Of kind `load`: `plugin.entry_missing`, `plugin.entry_too_large`, `plugin.archive_invalid`.
    """
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(name) as entry:
            content = entry.read(limit + 1)
    except KeyError:
        raise PluginFault("load", "plugin.entry_missing", f"The package has no file {name!r}.") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise _bad_archive(str(error)) from error
    if len(content) > limit:
        raise PluginFault("load", "plugin.entry_too_large", f"{name!r} is larger than {limit} bytes.")
    return content


def unpack(archive: Path, folder: Path, *, group: int | None = None) -> None:
    """Unpack a zip into an existing empty folder, for its owner and one group to read.

    Registration checked every name; here is only what keeps a file inside `folder` whatever registered it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            budget = MAX_UNPACKED_BYTES
            if len(opened.infolist()) > MAX_ENTRIES:
                raise _bad_archive("too many entries")
            for info in opened.infolist():
                path = folder / _safe_name(info.filename)
                if info.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as entry, path.open("xb") as target:
                    while chunk := entry.read(CHUNK):
                        budget -= len(chunk)
                        if budget < 0:
                            raise _bad_archive("it unpacks to too much")
                        target.write(chunk)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise _bad_archive(str(error)) from error
    for root, _folders, files in os.walk(folder):
        _restrict(root, 0o750, group)
        for name in files:
            _restrict(os.path.join(root, name), 0o640, group)


def _restrict(path: str, mode: int, group: int | None) -> None:
    os.chmod(path, mode)
    if group is not None:
        os.chown(path, -1, group)


def _safe_name(name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or not parts:
        raise _bad_archive(f"the name {name!r} leaves the folder")
    return name


def _bad_archive(why: str) -> PluginFault:
    return PluginFault("load", "plugin.archive_invalid", f"The package cannot be unpacked: {why}.")


def _digest(path: Path, deadline: Deadline) -> str:
    # One buffer for the whole file: fresh memory for each piece costs as much as hashing it.
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            _check(deadline)
            digest.update(buffer[:size])
    return digest.hexdigest()


def _download(source: Source, target: Path, deadline: Deadline) -> str:
    """Write the object to `target` and return its SHA-256; never more than it is known to have."""
    digest, size = hashlib.sha256(), 0
    try:
        with target.open("xb") as file:
            for chunk in _body(source.url, deadline):
                size += len(chunk)
                if size > source.size_bytes:
                    raise PluginFault(
                        "load", "plugin.checksum_mismatch", "The stored plugin is larger than registered."
                    )
                digest.update(chunk)
                file.write(chunk)
    except TimeoutError as error:
        raise load_timeout() from error
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(type(error).__name__) from error
    return digest.hexdigest()


def _body(url: str, deadline: Deadline) -> Iterator[bytes]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    _check(deadline)
    connection = kind(parts.hostname or "", parts.port, timeout=deadline.left())
    try:
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", path, headers={"Accept-Encoding": "identity"})
        response = connection.getresponse()
        if response.status != 200:  # a redirect too: a presigned URL names its object itself
            raise _unavailable(f"HTTP {response.status}")
        while True:
            _check(deadline)
            if isinstance(connection.sock, socket.socket):
                connection.sock.settimeout(deadline.left())
            chunk = response.read1(CHUNK)
            if not chunk:
                return
            yield chunk
    finally:
        connection.close()


def _check(deadline: Deadline) -> None:
    if deadline.passed:
        raise load_timeout()


def _unavailable(why: str) -> PluginFault:
    # Never the URL: its signature is a credential.
    return PluginFault("load", "plugin.artifact_unavailable", f"The stored plugin cannot be fetched: {why}.")
