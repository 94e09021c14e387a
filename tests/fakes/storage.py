"""A bucket in memory that refuses what S3 refuses: a bad checksum, a version that is gone, another size."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from chalicelib.core import guards
from chalicelib.core.storage import (
    Download,
    ObjectInfo,
    ObjectVersion,
    PresignedPost,
    away,
    checksum_mismatch,
    missing,
    too_large,
)


@dataclass(frozen=True)
class _Stored:
    version_id: str
    content: bytes | None  # None: a delete marker
    last_modified: datetime
    has_checksum: bool


class MemoryStorage:
    """`chalicelib.core.storage.Storage` without a server.

    Set `is_away` to make every call fail as an unreachable S3 does; `calls` lists (method, key) in order.
    """

    def __init__(self) -> None:
        self.is_away = False
        self.calls: list[tuple[str, str]] = []
        self._versions: dict[str, list[_Stored]] = {}
        self._numbers = itertools.count(1)
        self._posts: dict[str, tuple[int, str]] = {}

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo | None:
        self._called("head", key)
        stored = self._find(key, version_id)
        if stored is None or stored.content is None:
            return None
        sha256 = hashlib.sha256(stored.content).hexdigest()
        return ObjectInfo(
            key=key,
            version_id=stored.version_id,
            size=len(stored.content),
            etag=sha256[:32],
            checksum_sha256=sha256 if stored.has_checksum else None,
            last_modified=stored.last_modified,
        )

    def download(self, key: str, version_id: str | None, file: BinaryIO, *, max_bytes: int) -> Download:
        self._called("download", key)
        stored = self._content(key, version_id)
        assert stored.content is not None
        if len(stored.content) > max_bytes:
            file.write(stored.content[: max_bytes + 1])
            raise too_large(max_bytes)
        file.write(stored.content)
        return Download(hashlib.sha256(stored.content).hexdigest(), len(stored.content), stored.version_id)

    def upload(self, key: str, content: BinaryIO | bytes, *, sha256: str) -> str:
        self._called("upload", key)
        data = content if isinstance(content, bytes) else content.read()
        if hashlib.sha256(data).digest() != bytes.fromhex(sha256):
            raise checksum_mismatch()
        return self._put(key, data, has_checksum=True)

    def copy(self, source_key: str, source_version_id: str, target_key: str) -> str:
        self._called("copy", source_key)
        stored = self._content(source_key, source_version_id)
        return self._put(target_key, stored.content, has_checksum=stored.has_checksum)

    def delete(self, key: str, version_id: str) -> None:
        self._called("delete", key)
        kept = [s for s in self._versions.get(key, []) if s.version_id != version_id]
        if kept:
            self._versions[key] = kept
        else:
            self._versions.pop(key, None)

    def list_versions(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectVersion]:
        self._called("list_versions", prefix)
        for key in sorted(self._versions, key=str.encode):
            if not key.startswith(prefix) or (
                start_after is not None and key.encode() <= start_after.encode()
            ):
                continue
            for stored in reversed(self._versions[key]):
                size = 0 if stored.content is None else len(stored.content)
                yield ObjectVersion(
                    key, stored.version_id, size, stored.last_modified, stored.content is None
                )

    def presign_get(
        self, key: str, version_id: str | None, seconds: int, *, filename: str | None = None
    ) -> str:
        return f"https://storage.test/{key}?versionId={version_id}&expires={seconds}&filename={filename}"

    def presign_post(self, key: str, *, size: int, sha256_hex: str, seconds: int) -> PresignedPost:
        self._posts[key] = (size, sha256_hex)
        checksum = base64.b64encode(bytes.fromhex(sha256_hex)).decode()
        fields = {"key": key, "x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": checksum}
        return PresignedPost("https://storage.test/", fields, datetime.now(UTC) + timedelta(seconds=seconds))

    def put(self, key: str, content: bytes) -> str:
        """Store without a checksum, as `aws s3 cp` into the drop folder may; return the version id."""
        return self._put(key, content, has_checksum=False)

    def post(self, form: PresignedPost, content: bytes) -> str:
        """Upload through a presigned form; S3's conditions are enforced. Returns the version id."""
        key = form.fields["key"]
        if key not in self._posts or len(content) != self._posts[key][0]:
            raise too_large(self._posts.get(key, (0, ""))[0])
        if hashlib.sha256(content).hexdigest() != self._posts[key][1]:
            raise checksum_mismatch()
        return self._put(key, content, has_checksum=True)

    def put_delete_marker(self, key: str) -> str:
        """What a delete without a version does; returns the marker's version id."""
        return self._put(key, None, has_checksum=False)

    def age(self, key: str, version_id: str, by: timedelta) -> None:
        """Make one version older, for sweeps that look at the age."""
        self._versions[key] = [
            replace(s, last_modified=s.last_modified - by) if s.version_id == version_id else s
            for s in self._versions[key]
        ]

    def keys(self) -> list[str]:
        """Every key that has a version."""
        return sorted(self._versions)

    def _called(self, method: str, key: str) -> None:
        guards.forbid_in_unit("s3")
        self.calls.append((method, key))
        if self.is_away:
            raise away()

    def _put(self, key: str, content: bytes | None, *, has_checksum: bool) -> str:
        version_id = f"v{next(self._numbers):08d}"
        self._versions.setdefault(key, []).append(
            _Stored(version_id, content, datetime.now(UTC), has_checksum)
        )
        return version_id

    def _find(self, key: str, version_id: str | None) -> _Stored | None:
        versions = self._versions.get(key, [])
        if version_id is None:
            return versions[-1] if versions else None
        return next((s for s in versions if s.version_id == version_id), None)

    def _content(self, key: str, version_id: str | None) -> _Stored:
        stored = self._find(key, version_id)
        if stored is None or stored.content is None:
            raise missing()
        return stored
