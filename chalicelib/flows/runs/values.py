"""What is too large for a checkpoint, in the bucket: `runs/{runId}/{sha256}`."""

from __future__ import annotations

import hashlib
import io
import json
import threading

from chalicelib.core.storage import Storage
from chalicelib.flows.engine.durable import Values

MAX_INLINE = 200 * 1024
"""Bytes that stay in a checkpoint; the service takes 256 KB."""
INLINE_IN_ALL = 40 * 1024 * 1024
"""Bytes that stay in the checkpoints of one execution, of which the service takes 100 MB in all. A round's own
checkpoint may hold those of its steps once more."""
SMALL = 2 * 1024
"""Bytes that stay even then: 3,000 of them, twice, are 12 MB."""
MAX_VALUE = 16 * 1024 * 1024
_MARK = "sha256:"


class StoredValues(Values):
    """Keeps large values beside the execution. A value is found by the digest of its bytes, so writing one again is
    harmless."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage, self._run_id = storage, run_id
        self._read: dict[str, str] = {}
        self._inline, self._lock = 0, threading.Lock()

    def kept(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        if self._stays(len(data)):
            return text
        digest = hashlib.sha256(data).hexdigest()
        version = self._storage.upload(self._key(digest), data, sha256=digest)
        self._read[digest] = text
        return _MARK + json.dumps([digest, version])

    def found(self, kept: str) -> str:
        if not kept.startswith(_MARK):
            # A replay learns here what the invocations before have kept. What this one keeps counts twice, until then.
            with self._lock:
                self._inline += len(kept)
            return kept
        digest, version = json.loads(kept.removeprefix(_MARK))
        if digest not in self._read:
            file = io.BytesIO()
            self._storage.download(self._key(digest), version, file, max_bytes=MAX_VALUE)
            self._read[digest] = file.getvalue().decode("utf-8", "surrogatepass")
        return self._read[digest]

    def _stays(self, size: int) -> bool:
        """Whether a value is left in its checkpoint; several steps ask at once."""
        with self._lock:
            if size > (MAX_INLINE if self._inline + size <= INLINE_IN_ALL else SMALL):
                return False
            self._inline += size
            return True

    def _key(self, digest: str) -> str:
        return f"runs/{self._run_id}/{digest}"
