"""Who is calling: the Authorization header against the hot cache, so that a disabled app or a removed credential
is refused by the next request everywhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import Table, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from chalicelib.apps.models import App, AppCredential
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unauthenticated
from chalicelib.core.hotcache import Dependency, HotCache

HEADER_LIMIT = 512
API_KEY_LIMIT = 50
# lastUsedAt is for people who tidy up keys; five minutes keep it out of the way of requests.
NOTE_USE_EVERY_S = 300
_CREDENTIALS_REMEMBERED = 10_000
# Tables where the models would do: the first use of any model configures all of them, which a function that only reads
# what is cached need not wait for at its cold start.
_APP, _CREDENTIAL = cast(Table, App.__table__), cast(Table, AppCredential.__table__)


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
    if not hmac.compare_digest(hash_secret(secret), found.secret_hash) or not found.enabled:
        raise _refused()
    if found.expires_at is not None and found.expires_at <= datetime.now(UTC):
        raise _refused()
    return Caller(
        found.app_id, found.alias_id, found.credential_id, found.role, request_id, found.audits_reads
    )


def _refused() -> Unauthenticated:
    return Unauthenticated("Send Authorization: Bearer <api_key>:<api_secret> of an enabled credential.")


def _parse(authorization: str | None) -> tuple[str, str]:
    if not authorization or len(authorization) > HEADER_LIMIT:
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
    # A blank within base64: MySQL's collations call `key` and `key ` equal, and each spelling would be kept in memory.
    if not separator or not api_key or not secret or len(api_key) > API_KEY_LIMIT or " " in api_key:
        raise _refused()
    return api_key, secret


def _read(session: Session, api_key: str) -> tuple[_Credential, list[Dependency]]:
    row = session.execute(
        select(
            _APP.c.id.label("app_id"),
            _APP.c.alias_id,
            _CREDENTIAL.c.id.label("credential_id"),
            _CREDENTIAL.c.secret_hash,
            _CREDENTIAL.c.role,
            _CREDENTIAL.c.expires_at,
            _CREDENTIAL.c.status,
            _APP.c.status.label("app_status"),
            _APP.c.audit_policy,
        )
        .join(_APP, _APP.c.id == _CREDENTIAL.c.app_id)
        .where(_CREDENTIAL.c.api_key == api_key)
    ).one_or_none()
    if row is None:
        # Raised, so not kept: made-up keys must not push what is in use out of the cache.
        raise _refused()
    value = _Credential(
        app_id=row.app_id,
        alias_id=row.alias_id,
        credential_id=row.credential_id,
        secret_hash=bytes(row.secret_hash),
        role=row.role,
        enabled=bool(row.app_status and row.status),
        expires_at=row.expires_at,
        audits_reads=row.audit_policy == 1,
    )
    return value, [("apps", str(row.app_id))]


class LastUse:
    """Writes when a credential was last used, at most once every few minutes each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: dict[int, float] = {}

    def note(self, database: DatabaseService, credential_id: int) -> bool:
        """Write the time now; False where it was not due.

        Past the cache log on purpose: no function keeps this column in memory, and a bump would make all of them
        reload. A failure is no failure of the request that this rides on.
        """
        now = self._clock()
        if now - self._noted.get(credential_id, -NOTE_USE_EVERY_S) < NOTE_USE_EVERY_S:
            return False
        statement = (
            update(_CREDENTIAL)
            .where(_CREDENTIAL.c.id == credential_id)
            .values(last_used_at=datetime.now(UTC))
        )
        try:
            with database.connection() as connection:
                connection.execute(statement)
        except (DBAPIError, PoolTimeout):
            return False
        if len(self._noted) >= _CREDENTIALS_REMEMBERED:
            self._noted.clear()
        self._noted[credential_id] = now
        return True
