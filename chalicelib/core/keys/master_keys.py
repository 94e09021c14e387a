"""Master keys, which wrap the data keys of apps: a KMS key (`HOTPLUG_KMS_KEY_ID`) or a file (`HOTPLUG_KEY_FILE`).

The master is asked outside transactions only, and once per data key and process: plain data keys stay in memory,
bounded in number and time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.core import guards
from chalicelib.core.aws_clients import new_client
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.keys.secret_box import cannot_decrypt, open_sealed, seal

KEY_BYTES = 32
MAX_FILE_KEYS = 8
MAX_CACHED_KEYS = 256
CACHED_KEY_LIFE_S = 900
# https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html: beyond it the request is refused, as if it were
# for another reason.
MAX_KMS_BLOB = 6144


@dataclass(frozen=True)
class WrappedKey:
    """A data key as it is stored. It may be kept in the hot cache: without the master it opens nothing."""

    app_id: int
    key_version: int
    wrapped: str
    wrapped_by: str


class MasterKey(Protocol):
    """What wraps data keys. `name` says which key it is and is stored beside what it wrapped."""

    @property
    def name(self) -> str:
        """`kms:{key id}` or `file:{fingerprint}`, at most 255 characters."""

    def generate(self, app_id: int) -> tuple[bytes, str]:
        """Return a new data key, plain and wrapped."""

    def wrap(self, app_id: int, plain: bytes) -> str:
        """Wrap an existing data key."""

    def unwrap(self, key: WrappedKey) -> bytes:
        """Return the plain data key."""


class FileMaster:
    """A master key in a file of 32 random bytes: the local stack's, readable by its owner alone.

    A file of several keys (a multiple of 32 bytes) is one in rotation: the first wraps, all of them unwrap.
    """

    def __init__(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                raw = file.read(KEY_BYTES * MAX_FILE_KEYS + 1)
        except OSError as error:
            raise no_key("HOTPLUG_KEY_FILE cannot be read.") from error
        if not raw or len(raw) % KEY_BYTES or len(raw) > KEY_BYTES * MAX_FILE_KEYS:
            raise no_key(f"HOTPLUG_KEY_FILE must hold 1 to {MAX_FILE_KEYS} keys of {KEY_BYTES} bytes.")
        keys = [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]
        self._keys = {f"file:{hashlib.sha256(key).hexdigest()[:16]}": key for key in keys}
        self.name = next(iter(self._keys))

    def generate(self, app_id: int) -> tuple[bytes, str]:
        plain = os.urandom(KEY_BYTES)
        return plain, self.wrap(app_id, plain)

    def wrap(self, app_id: int, plain: bytes) -> str:
        return seal(self._keys[self.name], plain, _key_bound(app_id))

    def unwrap(self, key: WrappedKey) -> bytes:
        if key.wrapped_by not in self._keys:
            raise no_key("HOTPLUG_KEY_FILE does not hold the key that wrapped this app's data key.")
        return open_sealed(self._keys[key.wrapped_by], key.wrapped, _key_bound(key.app_id))


class KmsMaster:
    """A KMS key. The encryption context names the app: another app's wrapped key does not unwrap as this
    one's."""

    def __init__(self, key_id: str, client: Any = None) -> None:
        self.name = f"kms:{key_id}"
        self._key_id = key_id
        self._client = client

    def generate(self, app_id: int) -> tuple[bytes, str]:
        answer = self._call("generate_data_key", app_id, KeyId=self._key_id, KeySpec="AES_256")
        return answer["Plaintext"], base64.b64encode(answer["CiphertextBlob"]).decode()

    def wrap(self, app_id: int, plain: bytes) -> str:
        answer = self._call("encrypt", app_id, KeyId=self._key_id, Plaintext=plain)
        return base64.b64encode(answer["CiphertextBlob"]).decode()

    def unwrap(self, key: WrappedKey) -> bytes:
        try:
            blob = base64.b64decode(key.wrapped, validate=True)
        except binascii.Error as error:
            raise cannot_decrypt() from error
        if not 0 < len(blob) <= MAX_KMS_BLOB:
            raise cannot_decrypt()
        answer = self._call("decrypt", key.app_id, KeyId=self._key_id, CiphertextBlob=blob)
        return bytes(answer["Plaintext"])

    def _call(self, operation: str, app_id: int, **parameters: Any) -> Any:
        from botocore import exceptions as boto

        guards.forbid_in_unit("kms")
        if self._client is None:
            self._client = kms_client()
        context = {"hotplug:app": str(app_id)}
        try:
            return getattr(self._client, operation)(EncryptionContext=context, **parameters)
        except boto.ClientError as error:
            raise _kms_error(error) from error
        except boto.BotoCoreError as error:
            raise _kms_away() from error


def kms_client() -> Any:
    """Return a new KMS client with bounded waits and retries."""
    retries = {"total_max_attempts": 3, "mode": "standard"}
    return new_client("kms", connect_timeout=3, read_timeout=5, retries=retries)


def _kms_error(error: Any) -> HotplugError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in ("InvalidCiphertextException", "IncorrectKeyException"):
        return cannot_decrypt()
    if int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500 or "Throttl" in code:
        return _kms_away()
    return HotplugError("The key service refused a request of this service.", code="secrets.refused")


def _kms_away() -> Unavailable:
    return Unavailable("The key service cannot be reached.", code="secrets.away", retry_after=2)


def _key_bound(app_id: int) -> bytes:
    return json.dumps(["hotplug.data_key.v1", str(app_id)]).encode()


def no_key(detail: str) -> Unavailable:
    return Unavailable(detail, code="secrets.no_key")


@dataclass(frozen=True)
class Masters:
    """The master that wraps new keys, and how to reach those that wrapped older ones."""

    current: MasterKey
    file: MasterKey | None = None
    # KMS keys of before a change, each with a client of its own.
    _former: dict[str, MasterKey] = field(default_factory=dict, repr=False, compare=False)

    def named(self, name: str) -> MasterKey:
        """Return the master that wrapped a key, which may be one from before a change."""
        if name == self.current.name:
            return self.current
        if name.startswith("kms:"):
            return self._former.setdefault(name, KmsMaster(name.removeprefix("kms:")))
        if self.file is None:
            raise no_key("The app's data key was wrapped by a key file, and HOTPLUG_KEY_FILE is not set.")
        return self.file


def configured(kms_key_id: str | None, key_file: str | None) -> Masters:
    """Return the masters of a deployment: KMS wraps where both are set, and the file still unwraps.

    Raises
    ------
    errors.Unavailable
        `secrets.no_key` where neither is set: nothing is ever stored in the clear instead.
    """
    file = FileMaster(key_file) if key_file else None
    current: MasterKey | None = KmsMaster(kms_key_id) if kms_key_id else file
    if current is None:
        raise no_key("No master key is configured: set HOTPLUG_KMS_KEY_ID or HOTPLUG_KEY_FILE.")
    return Masters(current, file)


# -- of this process --


@dataclass
class PlainKeys:
    """Plain data keys of this process, the least used dropped first, none kept for longer than 15 minutes."""

    _kept: OrderedDict[WrappedKey, tuple[float, bytes]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    clock: Callable[[], float] = time.monotonic

    def plain(self, key: WrappedKey) -> bytes:
        """Return the plain data key, asking its master where it is not kept."""
        now = self.clock()
        with self._lock:
            until, plain = self._kept.get(key, (0.0, b""))
            if until > now:
                self._kept.move_to_end(key)
                return plain
        plain = masters().named(key.wrapped_by).unwrap(key)
        with self._lock:
            self._kept[key] = (now + CACHED_KEY_LIFE_S, plain)
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_CACHED_KEYS:
                self._kept.popitem(last=False)
        return plain

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


plain_keys = PlainKeys()
_masters: Masters | None = None


def masters() -> Masters:
    """Return this process's masters, from the settings."""
    global _masters
    if _masters is None:
        from chalicelib.core.settings import settings

        _masters = configured(settings().kms_key_id, settings().key_file)
    return _masters


def use(replacement: Masters | None) -> None:
    """Let `masters()` return `replacement`, and forget every plain key; None goes back to the settings."""
    global _masters
    _masters = replacement
    plain_keys.clear()
