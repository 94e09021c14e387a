"""Encrypting one app's secrets: AES-GCM, each bound to its place.

What is encrypted is bound to where it stands (`aad`: plugin, config, field), so that a database writer cannot move a
ciphertext to a field that is shown. The keys come from `data_keys`. docs/decisions/0013-secrets-at-rest.md says why.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping

from chalicelib.core.errors import HotplugError, TooLarge

NONCE_BYTES = 12  # NIST SP 800-38D, 8.2: 96 random bits, for at most 2^32 encryptions under one key
MAX_PLAINTEXT_BYTES = 65_536


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
        sealed = seal(self._keys[self._newest], data, self._bound(self._newest, aad))
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
        return open_sealed(self._keys[version], sealed, self._bound(version, aad)).decode()

    def _bound(self, version: int, aad: tuple[str, ...]) -> bytes:
        # JSON keeps the parts apart: ("a", "bc") must not be the same place as ("ab", "c").
        return json.dumps(["hotplug.secret.v1", str(self._app_id), version, *aad]).encode()


def cannot_decrypt() -> HotplugError:
    """Return the error for what does not open; it does not say why, which would help whoever tries."""
    return HotplugError("A stored secret cannot be decrypted.", code="secrets.cannot_decrypt")


def seal(key: bytes, data: bytes, bound: bytes) -> str:
    """Return base64url of a nonce and of `data` encrypted under a key of 32 bytes, bound to `bound`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + AESGCM(key).encrypt(nonce, data, bound)).decode()


def open_sealed(key: bytes, sealed: str, bound: bytes) -> bytes:
    """Return what was sealed.

    Raises
    ------
    errors.HotplugError
        `secrets.cannot_decrypt`: another key or place, or a changed text.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = base64.b64decode(sealed, altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(raw).decode() != sealed:
            raise cannot_decrypt()  # spare bits of the last character: two texts must not be one token
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound)
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise cannot_decrypt() from error
