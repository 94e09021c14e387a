"""The same behaviour on a real S3 protocol server and on the fake that the other tests use."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.core import guards, storage
from chalicelib.core.errors import Invalid, NotFound, TooLarge, Unavailable
from chalicelib.core.storage import PresignedPost, S3Storage, Storage
from tests.fakes.storage import MemoryStorage
from tests.ministack import Ministack, free_port, running_ministack


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Ministack]:
    with pytest.MonkeyPatch.context() as patch, running_ministack() as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def s3(server: Ministack) -> S3Storage:
    return S3Storage(server.versioned_bucket(f"hotplug-{uuid.uuid4().hex[:12]}"))


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    real: Storage = request.getfixturevalue("s3")
    return real


def put(store: Storage, key: str, content: bytes) -> str:
    return store.upload(key, content, sha256=sha(content))


def read(store: Storage, key: str, version_id: str | None) -> bytes:
    file = io.BytesIO()
    store.download(key, version_id, file, max_bytes=1 << 30)
    return file.getvalue()


def post_form(form: PresignedPost, content: bytes, **changed: str) -> int:
    """Send a presigned form as a browser does; return the status."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (form.fields | changed).items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    )
    body = b"".join(parts) + content + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        form.url, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_head_tells_size_version_and_checksum(store: Storage) -> None:
    version = put(store, "plugins/a.zip", b"hello")
    info = store.head("plugins/a.zip")
    assert info is not None
    assert (info.size, info.version_id, info.checksum_sha256) == (5, version, sha(b"hello"))
    assert info.last_modified.utcoffset() is not None
    assert '"' not in info.etag


@pytest.mark.parametrize("version_id", [None, "0b9f3c52-6d9e-4d53-8f0a-1d1f6f1b5a77", "no such version"])
def test_what_is_missing_is_none_for_head_and_not_found_for_the_rest(
    store: Storage, version_id: str | None
) -> None:
    assert store.head("absent", version_id) is None
    with pytest.raises(NotFound) as refused:
        store.download("absent", version_id, io.BytesIO(), max_bytes=10)
    assert refused.value.code == "storage.missing"
    with pytest.raises(NotFound):
        store.copy("absent", version_id or "v", "target")


def test_an_unknown_version_of_a_known_key_is_missing(store: Storage) -> None:
    put(store, "k", b"1")
    unknown = uuid.uuid4().hex
    assert store.head("k", unknown) is None
    with pytest.raises(NotFound):
        store.download("k", unknown, io.BytesIO(), max_bytes=10)


def test_a_download_hashes_what_it_writes(store: Storage) -> None:
    content = os.urandom(3 * storage.CHUNK_BYTES + 7)
    version = put(store, "big", content)
    file = io.BytesIO()
    got = store.download("big", version, file, max_bytes=len(content))
    assert (got.sha256, got.size, got.version_id) == (sha(content), len(content), version)
    assert file.getvalue() == content


def test_a_download_reads_the_named_version_not_the_newest(store: Storage) -> None:
    first = put(store, "k", b"first")
    second = put(store, "k", b"second")
    assert read(store, "k", first) == b"first"
    assert read(store, "k", second) == b"second"
    assert read(store, "k", None) == b"second"


def test_a_download_stops_at_the_limit(store: Storage) -> None:
    version = put(store, "k", b"12345678")
    file = io.BytesIO()
    with pytest.raises(TooLarge):
        store.download("k", version, file, max_bytes=7)
    assert len(file.getvalue()) <= 8


def test_an_upload_with_another_checksum_is_refused_and_stores_nothing(store: Storage) -> None:
    with pytest.raises(Invalid) as refused:
        store.upload("k", b"changed on the way", sha256=sha(b"what was meant"))
    assert refused.value.code == "storage.checksum_mismatch"
    assert store.head("k") is None


def test_an_upload_from_a_file(store: Storage, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"from a file")
    with path.open("rb") as file:
        version = store.upload("k", file, sha256=sha(b"from a file"))
    assert read(store, "k", version) == b"from a file"


def test_a_copy_takes_the_named_version(store: Storage) -> None:
    first = put(store, "incoming/ä +&.zip", b"first")
    put(store, "incoming/ä +&.zip", b"second")
    copied = store.copy("incoming/ä +&.zip", first, "plugins/p.zip")
    assert read(store, "plugins/p.zip", copied) == b"first"


def test_a_delete_removes_one_version_and_can_be_repeated(store: Storage) -> None:
    first, second = put(store, "k", b"first"), put(store, "k", b"second")
    for _ in range(2):
        store.delete("k", first)
    assert store.head("k", first) is None
    assert read(store, "k", second) == b"second"
    # A delete without a version would have left a marker that hides the newer upload.
    assert [v.is_delete_marker for v in store.list_versions("k")] == [False]


def test_a_hidden_object_is_missing_and_its_marker_is_listed(server: Ministack) -> None:
    real = S3Storage(server.versioned_bucket(f"hotplug-{uuid.uuid4().hex[:12]}"))
    memory = MemoryStorage()
    for store in (real, memory):
        put(store, "k", b"1")
    server.client("s3").delete_object(Bucket=real.bucket, Key="k")
    memory.put_delete_marker("k")
    for store in (real, memory):
        listed = list(store.list_versions("k"))
        assert [(v.is_delete_marker, v.size) for v in listed] == [(True, 0), (False, 1)]
        assert store.head("k") is None
        assert store.head("k", listed[0].version_id) is None
        with pytest.raises(NotFound):
            store.download("k", None, io.BytesIO(), max_bytes=10)
        store.delete("k", listed[0].version_id)
        assert read(store, "k", None) == b"1"


def test_a_listing_is_by_key_newest_first_and_goes_on_after_a_key(store: Storage) -> None:
    put(store, "other/x", b"")
    older = put(store, "in/a", b"1")
    newer = put(store, "in/a", b"22")
    put(store, "in/b", b"3")
    put(store, "in/c", b"3")
    listed = list(store.list_versions("in/"))
    assert [(v.key, v.size) for v in listed] == [("in/a", 2), ("in/a", 1), ("in/b", 1), ("in/c", 1)]
    assert [v.version_id for v in listed[:2]] == [newer, older]
    assert [v.key for v in store.list_versions("in/", start_after="in/a")] == ["in/b", "in/c"]


def test_a_listing_goes_through_all_pages(s3: S3Storage) -> None:
    for number in range(7):
        put(s3, f"in/{number}", b"x")
        put(s3, f"in/{number}", b"y")
    whole = list(s3.list_versions("in/"))
    # GIVEN a server that answers three entries a page
    s3.client.meta.events.register(
        "provide-client-params.s3.ListObjectVersions", lambda params, **_: params | {"MaxKeys": 3}
    )
    # THEN nothing is lost or repeated where one key's versions lie on two pages
    assert sorted(s3.list_versions("in/"), key=repr) == sorted(whole, key=repr)
    assert len(whole) == 14


def test_a_presigned_get_reads_the_named_version_and_names_the_file(s3: S3Storage) -> None:
    first = put(s3, "k", b"first")
    put(s3, "k", b"second")
    url = s3.presign_get("k", first, 60, filename='ev"il\r\nname.zip')
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"first"
    # The emulator does not send the header back; what S3 is asked for is in the signed query.
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["response-content-disposition"] == [storage.content_disposition('ev"il\r\nname.zip')]
    for tampered in (re.sub("Signature=....", "Signature=0000", url), url.replace("name.zip", "evil.exe")):
        assert tampered != url
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(tampered, timeout=10)
        with refused.value as error:
            assert error.code == 403


def test_a_presigned_form_takes_exactly_the_declared_upload(s3: S3Storage) -> None:
    form = s3.presign_post("incoming/tasks/1.zip", size=5, sha256_hex=sha(b"hello"), seconds=60)
    for bad in (b"hell", b"hello!"):
        assert post_form(form, bad) in (400, 403)
    assert post_form(form, b"hello", key="plugins/stolen.zip") == 403
    assert post_form(form, b"hello", **{"x-amz-checksum-sha256": "AAAA"}) == 403
    assert list(s3.list_versions("")) == []
    assert post_form(form, b"hello") in (200, 201, 204)
    info = s3.head("incoming/tasks/1.zip")
    assert info is not None and info.size == 5


def test_the_signed_policy_pins_key_size_and_checksum(s3: S3Storage) -> None:
    import base64

    form = s3.presign_post("incoming/tasks/1.zip", size=5, sha256_hex=sha(b"hello"), seconds=60)
    conditions = json.loads(base64.b64decode(form.fields["policy"]))["conditions"]
    checksum = base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    assert {"key": "incoming/tasks/1.zip"} in conditions
    assert ["content-length-range", 5, 5] in conditions
    assert {"x-amz-checksum-sha256": checksum} in conditions
    assert form.fields["x-amz-checksum-sha256"] == checksum


def test_a_bucket_without_versions_is_refused(server: Ministack) -> None:
    name = f"hotplug-{uuid.uuid4().hex[:12]}"
    server.client("s3").create_bucket(Bucket=name)
    with pytest.raises(Exception, match="not versioned") as refused:
        put(S3Storage(name), "k", b"1")
    assert getattr(refused.value, "code", "") == "storage.unversioned"


def test_a_bucket_that_does_not_exist_is_ours_not_the_callers(server: Ministack) -> None:
    store = S3Storage(f"hotplug-{uuid.uuid4().hex[:12]}")
    with pytest.raises(Exception, match="refused a request") as refused:
        put(store, "k", b"1")
    assert store.bucket not in str(refused.value)


def test_no_call_inside_an_open_unit_of_work(store: Storage) -> None:
    put(store, "k", b"1")
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        store.head("k")


def test_storage_away_is_a_503(server: Ministack) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        gone = S3Storage("hotplug")
        for call in (
            lambda: gone.head("k"),
            lambda: gone.download("k", None, io.BytesIO(), max_bytes=1),
            lambda: list(gone.list_versions("")),
        ):
            with pytest.raises(Unavailable) as refused:
                call()
            assert (refused.value.code, refused.value.retry_after) == ("storage.away", 2)


_MEMORY_PROBE = """
import resource, sys, tempfile
from chalicelib.core.storage import S3Storage
store = S3Storage(sys.argv[1])
store.head("small")
def peak(key):
    with tempfile.TemporaryFile() as file:
        store.download(key, None, file, max_bytes=1 << 30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = peak("small")
print(peak("large") - small)
"""


def test_a_large_download_needs_no_more_memory_than_a_small_one(s3: S3Storage) -> None:
    with tempfile.TemporaryFile() as file:
        digest = hashlib.sha256()
        for _ in range(100):
            block = os.urandom(storage.CHUNK_BYTES)
            digest.update(block)
            file.write(block)
        file.seek(0)
        s3.upload("large", file, sha256=digest.hexdigest())
    put(s3, "small", os.urandom(storage.CHUNK_BYTES))
    probe = subprocess.run(
        [sys.executable, "-c", _MEMORY_PROBE, s3.bucket],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(probe.stdout) <= 16 * 1024  # KiB
