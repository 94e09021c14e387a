"""Secrets of apps at rest: AES-GCM under one data key per app, which a master key wraps.

The master is a KMS key (`HOTPLUG_KMS_KEY_ID`) or a local file (`HOTPLUG_KEY_FILE`). It is asked outside
transactions only, and once per data key and process: plain data keys stay in memory, bounded in number and
time. What is encrypted is bound to its place (`aad`: plugin, config, field), so that a database writer
cannot move a ciphertext to a field that is shown. docs/decisions/0013-secrets-at-rest.md says why.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Protocol

from sqlalchemy import BigInteger, Integer, String, Text, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from chalicelib.core import guards
from chalicelib.core.database import MYSQL_TABLE, Base, DatabaseService, UtcDateTime
from chalicelib.core.errors import HotplugError, TooLarge, Unavailable

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2: 96 random bits, for at most 2^32 encryptions under one key
MAX_PLAINTEXT_BYTES = 65_536
MAX_CACHED_KEYS = 256
CACHED_KEY_LIFE_S = 900
MAX_FILE_KEYS = 8


class DataKey(Base):
    """One version of an app's data key, wrapped. The newest encrypts, every one decrypts."""

    __tablename__ = "app_data_key"
    __table_args__ = MYSQL_TABLE
    cache_scope: ClassVar[str] = "apps"
    cache_key: ClassVar[str] = "app_id"
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    key_version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    wrapped: Mapped[str] = mapped_column(Text)
    wrapped_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=lambda: datetime.now(UTC))


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


class SecretBox:
    """Encrypts and decrypts one app's secrets.

    Parameters
    ----------
    keys
        Plain data keys (32 bytes) by version; the highest version encrypts.
    """

    def __init__(self, app_id: int, keys: Mapping[int, bytes]) -> None:
        if not keys:
            raise ValueError("a box needs a key")
        self._app_id = app_id
        self._keys = dict(keys)
        self._newest = max(keys)

    def encrypt(self, plaintext: str, aad: tuple[str, ...]) -> str:
        """Return `v1.{key version}.{base64url of nonce and ciphertext}`.

        Parameters
        ----------
        plaintext
            At most 64 KiB of UTF-8.
        aad
            Where the secret stands, (plugin, config, field); decrypting needs the same.
        """
        data = plaintext.encode()
        if len(data) > MAX_PLAINTEXT_BYTES:
            raise TooLarge(f"A secret has at most {MAX_PLAINTEXT_BYTES} bytes.", code="secrets.too_large")
        sealed = _seal(self._keys[self._newest], data, self._bound(self._newest, aad))
        return f"v1.{self._newest}.{sealed}"

    def decrypt(self, token: str, aad: tuple[str, ...]) -> str:
        """Return what was encrypted.

        Raises
        ------
        errors.HotplugError
            `secrets.cannot_decrypt`: a changed token, another place, another app's token, or a lost key.
        """
        form, _, rest = token.partition(".")
        version_text, _, sealed = rest.partition(".")
        version = next((known for known in self._keys if str(known) == version_text), None)
        if form != "v1" or version is None:
            raise cannot_decrypt()
        return _open(self._keys[version], sealed, self._bound(version, aad)).decode()

    def _bound(self, version: int, aad: tuple[str, ...]) -> bytes:
        # JSON keeps the parts apart: ("a", "bc") must not be the same place as ("ab", "c").
        return json.dumps(["hotplug.secret.v1", str(self._app_id), version, *aad]).encode()


def cannot_decrypt() -> HotplugError:
    return HotplugError("A stored secret cannot be decrypted.", code="secrets.cannot_decrypt")


def _seal(key: bytes, data: bytes, bound: bytes) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, data, bound)).decode()


def _open(key: bytes, sealed: str, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = base64.b64decode(sealed, altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(raw).decode() != sealed:
            raise cannot_decrypt()  # spare bits of the last character: two texts must not be one token
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound)
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise cannot_decrypt() from error


# -- data keys: read, made, rotated; the master is never asked inside a unit of work --


def open_box(database: DatabaseService, app_id: int) -> SecretBox:
    """Return the box of an app, making its first data key where it has none. Not inside a unit of work.

    Raises
    ------
    errors.Unavailable
        `secrets.no_key` where no master key is configured, `secrets.away` where KMS cannot be reached.
    """
    return box_of(app_id, load_or_create_data_key(database, app_id))


def box_of(app_id: int, keys: Sequence[WrappedKey]) -> SecretBox:
    """Return the box of an app from its stored keys (from the hot cache): no statement, and no call to the
    master for keys that this process unwrapped before."""
    return SecretBox(app_id, {key.key_version: _plain_keys.plain(key) for key in keys})


def stored_keys(session: Session, app_id: int) -> tuple[WrappedKey, ...]:
    """Return every version of an app's data key, the oldest first."""
    rows = session.scalars(select(DataKey).where(DataKey.app_id == app_id).order_by(DataKey.key_version))
    return tuple(WrappedKey(row.app_id, row.key_version, row.wrapped, row.wrapped_by) for row in rows)


def load_or_create_data_key(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    """Return an app's stored keys, after making version 1 where there is none.

    Of two writers at once exactly one key wins; the other reads it back and forgets its own.
    """
    keys = _read(database, app_id)
    return keys or _add(database, app_id, 1)


def rotate(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    """Add a key version, which encrypts from now on; older tokens still decrypt. Returns all keys."""
    keys = _read(database, app_id)
    return _add(database, app_id, keys[-1].key_version + 1 if keys else 1)


def rewrap(database: DatabaseService, app_id: int) -> int:
    """Wrap every key of an app with the current master and return how many were wrapped by another.

    For a change of the master: afterwards the old one may go. No token changes.
    """
    current, changed = masters().current, 0
    for key in _read(database, app_id):
        if key.wrapped_by == current.name:
            continue
        wrapped = current.wrap(app_id, _plain_keys.plain(key))
        changed += database.run(partial(_replace, key=key, wrapped=wrapped, wrapped_by=current.name))
    return changed


def _read(database: DatabaseService, app_id: int) -> tuple[WrappedKey, ...]:
    with database.reads() as session:
        return stored_keys(session, app_id)


def _add(database: DatabaseService, app_id: int, version: int) -> tuple[WrappedKey, ...]:
    current = masters().current
    _, wrapped = current.generate(app_id)
    row = {"app_id": app_id, "key_version": version, "wrapped": wrapped, "wrapped_by": current.name}
    lost: IntegrityError | None = None
    try:
        database.run(lambda unit: unit.add(DataKey(**row)))
    except IntegrityError as error:
        lost = error
    keys = _read(database, app_id)
    if lost is not None and version not in {key.key_version for key in keys}:
        raise lost
    return keys


def _replace(unit: Session, key: WrappedKey, wrapped: str, wrapped_by: str) -> int:
    row = unit.get(DataKey, (key.app_id, key.key_version), with_for_update=True)
    if row is None or row.wrapped != key.wrapped:
        return 0  # the app is gone, or another rewrap was first
    row.wrapped, row.wrapped_by = wrapped, wrapped_by
    return 1


@dataclass
class PlainKeys:
    """Plain data keys of this process, the least used dropped first, none kept for longer than 15 minutes."""

    _kept: OrderedDict[WrappedKey, tuple[float, bytes]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    clock: Callable[[], float] = time.monotonic

    def plain(self, key: WrappedKey) -> bytes:
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


_plain_keys = PlainKeys()


# -- master keys --


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
        return _seal(self._keys[self.name], plain, _key_bound(app_id))

    def unwrap(self, key: WrappedKey) -> bytes:
        if key.wrapped_by not in self._keys:
            raise no_key("HOTPLUG_KEY_FILE does not hold the key that wrapped this app's data key.")
        return _open(self._keys[key.wrapped_by], key.wrapped, _key_bound(key.app_id))


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
        blob = base64.b64decode(key.wrapped)
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
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})
    return boto3.client("kms", config=config)


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

    def named(self, name: str) -> MasterKey:
        """Return the master that wrapped a key, which may be one from before a change."""
        if name == self.current.name:
            return self.current
        if name.startswith("kms:"):
            return KmsMaster(name.removeprefix("kms:"))
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
    _plain_keys.clear()
