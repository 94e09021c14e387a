"""KMS in memory."""

from __future__ import annotations

import os
from typing import Any

from botocore.exceptions import ClientError


class FakeKms:
    """KMS in memory: what it wraps opens only under the same key and encryption context."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: Exception | None = None
        self._wrapped: dict[bytes, tuple[str, dict[str, str], bytes]] = {}

    def generate_data_key(self, *, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> Any:
        assert KeySpec == "AES_256"
        plain = os.urandom(32)
        blob = self.encrypt(KeyId=KeyId, Plaintext=plain, EncryptionContext=EncryptionContext)
        self.calls[-1] = "generate_data_key"
        return {"Plaintext": plain, **blob}

    def encrypt(self, *, KeyId: str, Plaintext: bytes, EncryptionContext: dict[str, str]) -> Any:
        self._called("encrypt")
        blob = os.urandom(48)
        self._wrapped[blob] = (KeyId, EncryptionContext, Plaintext)
        return {"CiphertextBlob": blob}

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: dict[str, str]) -> Any:
        self._called("decrypt")
        key_id, context, plain = self._wrapped.get(CiphertextBlob, ("", {}, b""))
        if (key_id, context) != (KeyId, EncryptionContext):
            raise client_error(400, "InvalidCiphertextException")
        return {"Plaintext": plain}

    def _called(self, operation: str) -> None:
        self.calls.append(operation)
        if self.fails is not None:
            raise self.fails


def client_error(status: int, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "key/internal-arn"}}
    answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    return ClientError(answer, "Decrypt")
