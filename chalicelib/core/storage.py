"""Artifacts in S3: a bucket whose objects are always named by key *and* version.

A key alone is not an identity: whoever may upload can put other bytes there between a check and a use. So
every function that decides something takes the VersionId it looked at, and a delete names the version that
it removes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

from chalicelib.core import guards
from chalicelib.core.aws_clients import new_client
from chalicelib.core.errors import HotplugError, Invalid, NotFound, TooLarge, Unavailable

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 20
ATTEMPTS = 3
# Small enough that a download of any size stays flat in memory, large enough that hashing dominates.
CHUNK_BYTES = 1024 * 1024
# S3 refuses a longer life for a version 4 signature.
MAX_PRESIGN_S = 604_800

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
# What HEAD and GET answer for a version that is a delete marker.
_DELETE_MARKER = frozenset({"405", "MethodNotAllowed"})
_BAD_CHECKSUM = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_BUSY = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})


@dataclass(frozen=True)
class ObjectInfo:
    """One object version. `size` in bytes; `checksum_sha256` in hex, None where S3 keeps none."""

    key: str
    version_id: str
    size: int
    etag: str
    checksum_sha256: str | None
    last_modified: datetime


@dataclass(frozen=True)
class Download:
    """What a download really received: SHA-256 in hex, bytes, and the version they came from."""

    sha256: str
    size: int
    version_id: str


@dataclass(frozen=True)
class ObjectVersion:
    """One line of a version listing; a delete marker has no bytes."""

    key: str
    version_id: str
    size: int
    last_modified: datetime
    is_delete_marker: bool


@dataclass(frozen=True)
class PresignedPost:
    """A form that lets its bearer upload exactly one object."""

    url: str
    fields: dict[str, str]
    expires_at: datetime


class Storage(Protocol):
    """The bucket, as the domains see it. tests/fakes/storage.py implements it in memory."""

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """Return what is known of an object (the newest version by default), None where there is none."""

    def download(self, key: str, version_id: str | None, file: BinaryIO, *, max_bytes: int) -> Download:
        """Stream an object once into `file`, hashing on the way, in bounded memory.

        Raises
        ------
        errors.TooLarge
            As soon as more than `max_bytes` would arrive; `file` then holds at most `max_bytes` + 1 bytes.
        errors.NotFound, errors.Unavailable
        """

    def upload(self, key: str, content: BinaryIO | bytes, *, sha256: str) -> str:
        """Store `content` (SHA-256 in hex, which S3 checks) and return its version id.

        Raises
        ------
        errors.Invalid
            When the bytes that arrived have another SHA-256.
        """

    def copy(self, source_key: str, source_version_id: str, target_key: str) -> str:
        """Copy one version inside the bucket and return the copy's version id; NotFound where it is gone."""

    def delete(self, key: str, version_id: str) -> None:
        """Remove one version for good; one that is gone already is no error."""

    def list_versions(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectVersion]:
        """Yield the versions under `prefix` by key, a key's newest first, beginning after `start_after`."""

    def presign_get(
        self, key: str, version_id: str | None, seconds: int, *, filename: str | None = None
    ) -> str:
        """Return a URL that reads one version for `seconds`, saved as `filename` by a browser."""

    def presign_post(self, key: str, *, size: int, sha256_hex: str, seconds: int) -> PresignedPost:
        """Return a form that uploads exactly `size` bytes with that SHA-256 to exactly `key`.

        S3 itself enforces it; some emulators do not look at the checksum, so whoever registers hashes again.
        """


class S3Storage:
    """`Storage` over one versioned S3 bucket, or over any endpoint that speaks its protocol.

    Parameters
    ----------
    bucket
        Name of the bucket; versioning must be on.
    client
        A boto3 S3 client; made on first use by default, because boto3 costs 180 ms to import.
    """

    def __init__(self, bucket: str, client: Any = None) -> None:
        self.bucket = bucket
        self._client = client
        self._making = threading.Lock()

    @property
    def client(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = s3_client()
            return self._client

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo | None:
        try:
            with _translated():
                answer = self.client.head_object(ChecksumMode="ENABLED", **self._name(key, version_id))
        except NotFound:
            return None
        return ObjectInfo(
            key=key,
            version_id=_version_of(answer),
            size=int(answer["ContentLength"]),
            etag=str(answer["ETag"]).strip('"'),
            checksum_sha256=_hex(answer.get("ChecksumSHA256")),
            last_modified=answer["LastModified"].astimezone(UTC),
        )

    def download(self, key: str, version_id: str | None, file: BinaryIO, *, max_bytes: int) -> Download:
        with _translated():
            answer = self.client.get_object(**self._name(key, version_id))
            body = answer["Body"]
            try:
                if int(answer["ContentLength"]) > max_bytes:
                    raise too_large(max_bytes)
                sha256, size = _spool(body, file, max_bytes)
            finally:
                body.close()
        return Download(sha256, size, _version_of(answer))

    def upload(self, key: str, content: BinaryIO | bytes, *, sha256: str) -> str:
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        with _translated():
            answer = self.client.put_object(
                Bucket=self.bucket, Key=key, Body=content, ChecksumSHA256=checksum
            )
        return _version_of(answer)

    def copy(self, source_key: str, source_version_id: str, target_key: str) -> str:
        source = {"Bucket": self.bucket, "Key": source_key, "VersionId": source_version_id}
        with _translated():
            return _version_of(self.client.copy_object(Bucket=self.bucket, Key=target_key, CopySource=source))

    def delete(self, key: str, version_id: str) -> None:
        try:
            with _translated():
                self.client.delete_object(Bucket=self.bucket, Key=key, VersionId=version_id)
        except NotFound:
            pass  # removed by an earlier attempt of the same step

    def list_versions(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectVersion]:
        markers = {"KeyMarker": start_after} if start_after else {}
        while True:
            with _translated():
                page = self.client.list_object_versions(Bucket=self.bucket, Prefix=prefix, **markers)
            # Whether a marker without a version is itself listed differs between endpoints.
            yield from (entry for entry in _entries(page) if start_after is None or entry.key != start_after)
            if not page.get("IsTruncated"):
                return
            markers = {
                "KeyMarker": page["NextKeyMarker"],
                "VersionIdMarker": page.get("NextVersionIdMarker") or "null",
            }

    def presign_get(
        self, key: str, version_id: str | None, seconds: int, *, filename: str | None = None
    ) -> str:
        parameters, lifetime = self._name(key, version_id), _lifetime(seconds)
        if filename is not None:
            parameters["ResponseContentDisposition"] = content_disposition(filename)
        url = self.client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=lifetime)
        return str(url)

    def presign_post(self, key: str, *, size: int, sha256_hex: str, seconds: int) -> PresignedPost:
        # boto3 signs `starts-with` instead of the exact key for a key that ends so.
        if key.endswith("${filename}"):
            raise ValueError("an upload names its key exactly")
        expires_at = datetime.now(UTC) + timedelta(seconds=_lifetime(seconds))
        pinned = {
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(sha256_hex)).decode(),
        }
        conditions: list[Any] = [["content-length-range", size, size]]
        conditions += [{name: value} for name, value in pinned.items()]
        form = self.client.generate_presigned_post(
            Bucket=self.bucket, Key=key, Fields=pinned, Conditions=conditions, ExpiresIn=seconds
        )
        return PresignedPost(str(form["url"]), dict(form["fields"]), expires_at)

    def _name(self, key: str, version_id: str | None) -> dict[str, str]:
        name = {"Bucket": self.bucket, "Key": key}
        return name if version_id is None else name | {"VersionId": version_id}


def s3_client() -> Any:
    """Return a new S3 client with bounded waits and retries, which refuses to run inside a unit of work."""
    custom_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    client = new_client(
        "s3",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        signature_version="s3v4",
        # Only AWS resolves bucket.host; another endpoint is asked by path. "auto" would sign for the global
        # endpoint, whose redirect to the bucket's region a signature does not survive.
        # In us-east-1, too, the name has the region: the network of plugins answers that one alone.
        s3={
            "addressing_style": "path" if custom_endpoint else "virtual",
            "us_east_1_regional_endpoint": "regional",
        },
        # SHA-256 is named where it matters; a CRC beside it would read every body twice.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client.meta.events.register("before-send.s3", _refuse_in_unit)
    return client


def _refuse_in_unit(**_: Any) -> None:
    guards.forbid_in_unit("s3")


@contextmanager
def _translated() -> Iterator[None]:
    """Turn botocore's exceptions into ours; the texts of S3 name the bucket and are not passed on."""
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _client_error(error) from error
    except (
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.NoCredentialsError,
        boto.CredentialRetrievalError,
    ) as error:
        raise away() from error


def _client_error(error: Any) -> HotplugError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _MISSING or code in _DELETE_MARKER or _is_unknown_version(error, code):
        return missing()
    if code in _BAD_CHECKSUM:
        return checksum_mismatch()
    if status >= 500 or code in _BUSY:
        return away()
    return HotplugError("The object store refused a request of this service.", code="storage.refused")


def _is_unknown_version(error: Any, code: str) -> bool:
    """True where S3 cannot even parse the version id: a forged event names one that never existed."""
    reading = error.operation_name in ("HeadObject", "GetObject", "CopyObject")
    return reading and (code == "400" or error.response.get("Error", {}).get("ArgumentName") == "versionId")


def missing() -> NotFound:
    return NotFound("There is no such object.", code="storage.missing")


def away() -> Unavailable:
    return Unavailable("The object store cannot be reached.", code="storage.away", retry_after=2)


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The object has more than {max_bytes} bytes.", code="storage.too_large")


def checksum_mismatch() -> Invalid:
    return Invalid("The bytes do not have the SHA-256 that was named.", code="storage.checksum_mismatch")


def _spool(body: Any, file: BinaryIO, max_bytes: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    # Read until an empty chunk: only then does botocore compare what came with Content-Length.
    while chunk := body.read(min(CHUNK_BYTES, max_bytes + 1 - size)):
        digest.update(chunk)
        file.write(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
    return digest.hexdigest(), size


def _entries(page: dict[str, Any]) -> list[ObjectVersion]:
    rows = [(row, False) for row in page.get("Versions", ())]
    rows += [(row, True) for row in page.get("DeleteMarkers", ())]
    entries = [
        ObjectVersion(
            row["Key"],
            row["VersionId"],
            int(row.get("Size", 0)),
            row["LastModified"].astimezone(UTC),
            is_marker,
        )
        for row, is_marker in rows
    ]
    # S3 sorts keys by their UTF-8 bytes.
    entries.sort(key=lambda entry: entry.last_modified, reverse=True)
    entries.sort(key=lambda entry: entry.key.encode())
    return entries


def _version_of(answer: dict[str, Any]) -> str:
    version = answer.get("VersionId")
    if not version or version == "null":
        # Without versions nothing that was registered would be immutable.
        raise HotplugError("The bucket is not versioned.", code="storage.unversioned")
    return str(version)


def _hex(checksum: str | None) -> str | None:
    """Return S3's base64 checksum in hex; that of a multipart upload (`…-3`) is not one of the bytes."""
    if not checksum or "-" in checksum:
        return None
    return base64.b64decode(checksum).hex()


def _lifetime(seconds: int) -> int:
    if not 1 <= seconds <= MAX_PRESIGN_S:
        raise ValueError(f"a signature lives 1 to {MAX_PRESIGN_S} seconds")
    return seconds


def content_disposition(filename: str) -> str:
    """Return `attachment` with `filename` by RFC 6266; a quote or a line break cannot leave the field."""
    ascii_name = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(filename, safe='')}"


_storage: Storage | None = None


def storage() -> Storage:
    """Return this process's storage, over the bucket of the settings."""
    global _storage
    if _storage is None:
        from chalicelib.core.settings import settings

        _storage = S3Storage(settings().bucket)
    return _storage


def use(replacement: Storage | None) -> None:
    """Let `storage()` return `replacement`; None goes back to the settings' bucket."""
    global _storage
    _storage = replacement
