"""What needs no server; the behaviour on a real one is in tests/integration/test_storage.py."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from typing import Any

import pytest

from chalicelib.core import guards, storage
from chalicelib.core.errors import HotplugError, Invalid, NotFound, TooLarge, Unavailable
from tests.fakes.storage import MemoryStorage


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class ReplyingClient:
    """An S3 client that gives one answer to everything, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def head_object(self, **_: Any) -> Any:
        return self._reply()

    def get_object(self, **_: Any) -> Any:
        return self._reply()

    def put_object(self, **_: Any) -> Any:
        return self._reply()

    def _reply(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def refusing(operation: str, status: int, code: str, **error: str) -> storage.S3Storage:
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": code, "Message": "bucket hotplug-secret", **error}}
    answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    return storage.S3Storage("hotplug-secret", ReplyingClient(ClientError(answer, operation)))


class Body:
    """A response body that can end early, as botocore's does."""

    def __init__(self, content: bytes, length: int | None = None) -> None:
        self.content = io.BytesIO(content)
        self.missing = 0 if length is None else length - len(content)
        self.asked: list[int] = []
        self.closed = False

    def read(self, amount: int) -> bytes:
        from botocore.exceptions import IncompleteReadError

        self.asked.append(amount)
        chunk = self.content.read(amount)
        if not chunk and self.missing:
            raise IncompleteReadError(actual_bytes=1, expected_bytes=1 + self.missing)
        return chunk

    def close(self) -> None:
        self.closed = True


def download_of(body: Body, announced: int, max_bytes: int) -> tuple[storage.Download, bytes]:
    answer = {"Body": body, "ContentLength": announced, "VersionId": "v1"}
    file = io.BytesIO()
    got = storage.S3Storage("b", ReplyingClient(answer)).download("k", "v1", file, max_bytes=max_bytes)
    return got, file.getvalue()


@pytest.mark.parametrize(
    ("status", "code", "raised", "ours"),
    [
        (404, "NoSuchKey", NotFound, "storage.missing"),
        (404, "NoSuchVersion", NotFound, "storage.missing"),
        (405, "MethodNotAllowed", NotFound, "storage.missing"),
        (400, "BadDigest", Invalid, "storage.checksum_mismatch"),
        (503, "SlowDown", Unavailable, "storage.away"),
        (500, "InternalError", Unavailable, "storage.away"),
        (400, "RequestTimeout", Unavailable, "storage.away"),
        (403, "AccessDenied", HotplugError, "storage.refused"),
        (404, "NoSuchBucket", HotplugError, "storage.refused"),
    ],
)
def test_every_refusal_of_s3_has_one_meaning(
    status: int, code: str, raised: type[HotplugError], ours: str
) -> None:
    with pytest.raises(HotplugError) as refused:
        refusing("PutObject", status, code).upload("k", b"", sha256=sha(b""))
    assert type(refused.value) is raised
    assert refused.value.code == ours
    # The text of S3 names the bucket.
    assert "hotplug-secret" not in refused.value.detail


def test_a_version_id_that_s3_cannot_parse_is_missing() -> None:
    assert refusing("HeadObject", 400, "400").head("k", "forged") is None
    unparsed = refusing("GetObject", 400, "InvalidArgument", ArgumentName="versionId")
    with pytest.raises(NotFound):
        unparsed.download("k", "forged", io.BytesIO(), max_bytes=1)


def test_a_download_that_ends_early_is_not_a_short_object() -> None:
    body = Body(b"half", length=8)
    with pytest.raises(Unavailable) as refused:
        download_of(body, 8, 8)
    assert refused.value.code == "storage.away"
    assert body.closed


def test_a_download_never_trusts_the_announced_length() -> None:
    # GIVEN an object that is longer than its Content-Length says
    body = Body(b"x" * 100)
    with pytest.raises(TooLarge):
        download_of(body, 10, 10)
    # THEN one byte beyond the limit was asked for, not the rest
    assert body.asked == [11]
    assert body.closed


def test_a_download_that_is_announced_too_long_is_not_begun() -> None:
    body = Body(b"x" * 100)
    with pytest.raises(TooLarge):
        download_of(body, 100, 10)
    assert body.asked == []


def test_a_download_of_exactly_the_limit_is_whole() -> None:
    got, content = download_of(Body(b"x" * 10), 10, 10)
    assert content == b"x" * 10
    assert (got.size, got.sha256) == (10, sha(content))


def test_a_download_reads_in_chunks() -> None:
    body = Body(b"x" * (2 * storage.CHUNK_BYTES + 1))
    download_of(body, 2 * storage.CHUNK_BYTES + 1, 1 << 30)
    assert max(body.asked) == storage.CHUNK_BYTES


@pytest.mark.parametrize("version", [{}, {"VersionId": "null"}])
def test_an_answer_without_a_version_is_refused(version: dict[str, str]) -> None:
    with pytest.raises(HotplugError) as refused:
        storage.S3Storage("b", ReplyingClient(version)).upload("k", b"", sha256=sha(b""))
    assert refused.value.code == "storage.unversioned"


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("a.zip", "attachment; filename=\"a.zip\"; filename*=UTF-8''a.zip"),
        ("ä b.zip", "attachment; filename=\"_ b.zip\"; filename*=UTF-8''%C3%A4%20b.zip"),
        ('"; x=y\r\nSet-Cookie: a', "attachment; filename=\"_; x=y__Set-Cookie: a\"; "
         "filename*=UTF-8''%22%3B%20x%3Dy%0D%0ASet-Cookie%3A%20a"),
        ("../a", "attachment; filename=\"../a\"; filename*=UTF-8''..%2Fa"),
    ],
)  # fmt: skip
def test_a_file_name_cannot_leave_its_field(filename: str, header: str) -> None:
    assert storage.content_disposition(filename) == header


@pytest.mark.parametrize("seconds", [0, -1, storage.MAX_PRESIGN_S + 1])
def test_a_signature_has_a_bounded_life(seconds: int) -> None:
    store = storage.S3Storage("b", object())
    with pytest.raises(ValueError, match="lives 1 to"):
        store.presign_get("k", None, seconds)
    with pytest.raises(ValueError, match="lives 1 to"):
        store.presign_post("k", size=1, sha256_hex=sha(b""), seconds=seconds)


def test_a_form_for_an_inexact_key_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly"):
        storage.S3Storage("b", object()).presign_post(
            "in/${filename}", size=1, sha256_hex=sha(b""), seconds=9
        )


def test_a_multipart_checksum_is_none_of_the_bytes() -> None:
    import base64

    digest = hashlib.sha256(b"x").digest()
    assert storage._hex(base64.b64encode(digest).decode()) == digest.hex()
    assert storage._hex(base64.b64encode(digest).decode() + "-3") is None
    assert storage._hex(None) is None


def test_the_process_wide_storage_can_be_replaced() -> None:
    memory = MemoryStorage()
    storage.use(memory)
    try:
        assert storage.storage() is memory
    finally:
        storage.use(None)


def test_signatures_are_made_for_the_regions_own_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    store = storage.S3Storage("hotplug")
    form = store.presign_post("k", size=1, sha256_hex=sha(b""), seconds=9)
    assert form.url == "https://hotplug.s3.eu-central-1.amazonaws.com/"
    assert store.presign_get("k", None, 9).startswith("https://hotplug.s3.eu-central-1.amazonaws.com/k?")


def test_importing_storage_does_not_import_boto3() -> None:
    code = (
        "import sys, chalicelib.core.storage; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


class TestMemoryStorage:
    """The fake's own extras; what it shares with S3 is tested beside S3."""

    def test_away_is_a_503_for_every_call(self) -> None:
        store = MemoryStorage()
        store.is_away = True
        for call in (lambda: store.head("k"), lambda: list(store.list_versions(""))):
            with pytest.raises(Unavailable):
                call()

    def test_a_form_is_enforced(self) -> None:
        store = MemoryStorage()
        form = store.presign_post("in/1", size=2, sha256_hex=sha(b"ok"), seconds=60)
        with pytest.raises(TooLarge):
            store.post(form, b"long")
        with pytest.raises(Invalid):
            store.post(form, b"no")
        assert store.keys() == []
        version = store.post(form, b"ok")
        info = store.head("in/1", version)
        assert info is not None and info.checksum_sha256 == sha(b"ok")

    def test_a_drop_has_no_checksum(self) -> None:
        store = MemoryStorage()
        info = store.head("k", store.put("k", b"x"))
        assert info is not None and info.checksum_sha256 is None

    def test_nothing_runs_inside_a_unit(self) -> None:
        store = MemoryStorage()
        with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
            store.upload("k", b"", sha256=sha(b""))
        assert store.calls == []
