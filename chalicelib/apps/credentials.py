"""Credentials of an app: several at a time, so that rotating one (add, then delete) leaves no gap."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chalicelib.apps.authentication import hash_secret
from chalicelib.apps.models import App, AppCredential
from chalicelib.apps.tenants import find_app, lock_app
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, Invalid, NotFound, Violation
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import check_if_match, timestamp

# A key per service and person is fine, a key per request is a client that leaks them.
MOST_CREDENTIALS = 50
SECRET_BYTES = 32


@dataclass(frozen=True)
class NewCredential:
    """A credential and its secret, which is not kept anywhere: it is shown once."""

    resource: dict[str, Any]
    api_key: str
    api_secret: str


def describe(row: AppCredential) -> dict[str, Any]:
    """Return the resource of a credential; never its secret, nor the secret's hash."""
    return {
        "id": str(row.id),
        "apiKey": row.api_key,
        "role": row.role,
        "label": row.label,
        "status": row.status,
        "expiresAt": timestamp(row.expires_at),
        "createdBy": None if row.created_by is None else str(row.created_by),
        "createdAt": timestamp(row.created_at),
    }


def add_credential(
    session: Unit,
    caller: Caller,
    alias_id: str,
    *,
    role: str,
    label: str = "",
    expires_at: str | None = None,
) -> NewCredential:
    """Add a credential to an app.

    Parameters
    ----------
    role
        One of `caller.ROLES`.
    expires_at
        RFC 3339, in the future; None for one that does not expire.

    Raises
    ------
    errors.NotFound, errors.Invalid
    errors.Conflict
        `credential.too_many`
    """
    expiry = None if expires_at is None else _future(expires_at)
    app = lock_app(session, alias_id)
    count = session.scalar(select(func.count()).where(AppCredential.app_id == app.id))
    if count is not None and count >= MOST_CREDENTIALS:
        raise Conflict(f"An app has at most {MOST_CREDENTIALS} credentials.", code="credential.too_many")
    api_key, api_secret = "hp_" + secrets.token_hex(16), secrets.token_urlsafe(SECRET_BYTES)
    row = AppCredential(
        app_id=app.id,
        api_key=api_key,
        secret_hash=hash_secret(api_secret),
        role=role,
        label=label,
        expires_at=expiry,
        created_by=caller.credential_id or None,
    )
    session.add(row)
    session.flush()
    resource = describe(row)
    audit.record(session, caller, "credential.create", "credential", resource["id"], after=resource)
    return NewCredential(resource, api_key, api_secret)


def list_credentials(session: Session, alias_id: str, page: Page) -> dict[str, Any]:
    """Return a page of an app's credentials, the newest first."""
    query = select(AppCredential).where(AppCredential.app_id == find_app(session, alias_id).id)
    return list_page(session, query, page, [AppCredential.id], _listed)


def _listed(row: AppCredential) -> dict[str, Any]:
    # Not part of the resource: its entity tag would change with every use.
    return describe(row) | {"lastUsedAt": timestamp(row.last_used_at)}


def delete_credential(
    session: Unit, caller: Caller, alias_id: str, credential_id: int, if_match: str | None
) -> None:
    """Delete a credential; the next request with it is refused, whichever function it reaches.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    errors.Conflict
        `app.last_admin`
    """
    app = lock_app(session, alias_id)
    # Not locked by itself: `keep_an_admin` locks in the order of ids, and a row that is held already would let two
    # callers wait for each other.
    row = session.get(AppCredential, credential_id)
    if row is None or row.app_id != app.id:
        raise NotFound("There is no such credential.", code="credential.not_found")
    before = describe(row)
    check_if_match(if_match, before)
    keep_an_admin(session, [row.id])
    session.delete(row)
    audit.record(session, caller, "credential.delete", "credential", before["id"], before=before)


def keep_an_admin(session: Unit, losing: Collection[int]) -> None:
    """Refuse a change that would leave the deployment without an admin who can log in.

    Parameters
    ----------
    losing
        Ids of the credentials that the change makes useless.

    Raises
    ------
    errors.Conflict
        `app.last_admin`
    """
    # Every such change locks all admins' rows: two admins who remove each other must not both succeed.
    admins = session.scalars(
        select(AppCredential)
        .where(AppCredential.role == "admin")
        .order_by(AppCredential.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    enabled = set(
        session.scalars(select(App.id).where(App.id.in_({row.app_id for row in admins}), App.status == 1))
    )
    now = datetime.now(UTC)
    usable = {
        row.id
        for row in admins
        if row.status and row.app_id in enabled and (row.expires_at is None or row.expires_at > now)
    }
    if usable & set(losing) and not usable - set(losing):
        raise Conflict(
            "This is the deployment's last admin credential; add another one first.", code="app.last_admin"
        )


def _future(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _bad_expiry("is no date and time") from None
    if at <= datetime.now(UTC):
        raise _bad_expiry("must lie in the future")
    return at


def _bad_expiry(message: str) -> Invalid:
    return Invalid("The body does not hold.", errors=[Violation("/expiresAt", "credential.expiry", message)])
