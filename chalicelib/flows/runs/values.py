"""What is too large for a checkpoint, in the bucket: `runs/{runId}/{sha256}`."""

from __future__ import annotations

import hashlib
import io
import json

from chalicelib.core.storage import Storage
from chalicelib.flows.engine.durable import Values

MAX_INLINE = 200 * 1024
"""Bytes that stay in a checkpoint; the service takes 256 KB."""
MAX_VALUE = 16 * 1024 * 1024
_MARK = "sha256:"


class StoredValues(Values):
    """Keeps large values beside the execution. A value is found by the digest of its bytes, so writing one again is
    harmless."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage, self._run_id = storage, run_id
        self._read: dict[str, str] = {}

    def kept(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        if len(data) <= MAX_INLINE:
            return text
        digest = hashlib.sha256(data).hexdigest()
        version = self._storage.upload(self._key(digest), data, sha256=digest)
        self._read[digest] = text
        return _MARK + json.dumps([digest, version])

    def found(self, kept: str) -> str:
        if not kept.startswith(_MARK):
            return kept
        digest, version = json.loads(kept.removeprefix(_MARK))
        if digest not in self._read:
            file = io.BytesIO()
            self._storage.download(self._key(digest), version, file, max_bytes=MAX_VALUE)
            self._read[digest] = file.getvalue().decode("utf-8", "surrogatepass")
        return self._read[digest]

    def _key(self, digest: str) -> str:
        return f"runs/{self._run_id}/{digest}"
