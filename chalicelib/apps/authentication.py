"""Who is calling: the Authorization header against the hot cache, so that a disabled app or a removed credential is
refused by the next request everywhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App, AppCredential
from chalicelib.core.caller import Caller
from chalicelib.core.errors import Unauthenticated
from chalicelib.core.hotcache import Dependency, HotCache

_HEADER_LIMIT = 512
# What an unknown key is compared with, so that it takes as long as a known one.
_NOBODY = b"\0" * 32


@dataclass(frozen=True)
class _Credential:
    app_id: int
    alias_id: str
    credential_id: int
    secret_hash: bytes
    role: str
    enabled: bool
    expires_at: datetime | None
    audits_reads: bool


def hash_secret(secret: str) -> bytes:
    """Return what is stored of a credential's secret."""
    return hashlib.sha256(secret.encode()).digest()


def authenticate(cache: HotCache, authorization: str | None, request_id: str) -> Caller:
    """Return who sent the request.

    Parameters
    ----------
    cache
        Refreshed for this invocation.
    authorization
        The header: `Bearer <api_key>:<api_secret>`, or the base64 of that pair.

    Raises
    ------
    errors.Unauthenticated
        One answer for every reason: an unknown key, a wrong secret, an expired or disabled credential and a
        disabled app must look the same from outside.
    """
    api_key, secret = _parse(authorization)
    found = cache.load(("credential", api_key), lambda session: _read(session, api_key))
    equal = hmac.compare_digest(hash_secret(secret), found.secret_hash if found else _NOBODY)
    if found is None or not equal or not found.enabled:
        raise _refused()
    if found.expires_at is not None and found.expires_at <= datetime.now(UTC):
        raise _refused()
    return Caller(found.app_id, found.alias_id, found.credential_id, found.role, request_id, found.audits_reads)


def _refused() -> Unauthenticated:
    return Unauthenticated("Send Authorization: Bearer <api_key>:<api_secret> of an enabled credential.")


def _parse(authorization: str | None) -> tuple[str, str]:
    if not authorization or len(authorization) > _HEADER_LIMIT:
        raise _refused()
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.isascii():
        raise _refused()
    if ":" not in token:
        try:
            token = base64.b64decode(token, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise _refused() from None
    api_key, separator, secret = token.partition(":")
    if not separator or not api_key or not secret or len(api_key) > 50:
        raise _refused()
    return api_key, secret


def _read(session: Session, api_key: str) -> tuple[_Credential | None, list[Dependency]]:
    row = session.execute(
        select(AppCredential, App).join(App, App.id == AppCredential.app_id).where(AppCredential.api_key == api_key)
    ).one_or_none()
    if row is None:
        # Absence derives from the whole scope: the key may be created at any moment.
        return None, [("apps", "*")]
    credential, app = row
    value = _Credential(
        app_id=app.id,
        alias_id=app.alias_id,
        credential_id=credential.id,
        secret_hash=bytes(credential.secret_hash),
        role=credential.role,
        enabled=bool(app.status and credential.status),
        expires_at=credential.expires_at,
        audits_reads=app.audit_policy == 1,
    )
    return value, [("apps", str(app.id))]
