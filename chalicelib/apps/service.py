"""Apps: the tenants of a deployment. Only admins come here; who may, the HTTP edge decides."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chalicelib.apps.authentication import API_KEY_LIMIT
from chalicelib.apps.credentials import add_credential, keep_an_admin
from chalicelib.apps.models import App, AppCredential, AppSecret
from chalicelib.apps.tenants import find_app, lock_app
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import check_if_match, timestamp

FIRST_ADMIN = "admin"
# Names the rows that an app owns elsewhere (`plugin`, `install`); given by the edge, which knows all domains.
Owned = Callable[[Session, int], list[str]]
# Deletes the rows that refer to an app elsewhere and go with it (licences); given by the edge too.
Forget = Callable[[Unit, int], None]

_COLUMNS = {
    "name": "name",
    "description": "description",
    "isTenant": "is_tenant",
    "source": "source",
    "actualSource": "actual_source",
    "platReleaseAuth": "plat_release_auth",
    "status": "status",
    "auditPolicy": "audit_policy",
}


def describe(app: App) -> dict[str, Any]:
    """Return the resource of an app."""
    return {
        "id": str(app.id),
        "aliasId": app.alias_id,
        "name": app.name,
        "description": app.description,
        "isTenant": app.is_tenant,
        "source": app.source,
        "actualSource": app.actual_source,
        "platReleaseAuth": app.plat_release_auth,
        "status": app.status,
        "auditPolicy": app.audit_policy,
        "createBy": None if app.create_by is None else str(app.create_by),
        "updateBy": None if app.update_by is None else str(app.update_by),
        "createdAt": timestamp(app.create_at),
        "updatedAt": timestamp(app.update_at),
    }


def create_app(session: Unit, caller: Caller, alias_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Create an app without credentials.

    Parameters
    ----------
    fields
        `name`, and any other of the resource's that can be set.

    Raises
    ------
    errors.Conflict
        `app.exists`
    """
    values = {_COLUMNS[name]: value for name, value in fields.items()}
    values.setdefault("actual_source", values.get("source", 1))
    author = caller.credential_id or None
    app = App(alias_id=alias_id, create_by=author, update_by=author, **values)
    session.add(app)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict("An app of this alias exists.", code="app.exists") from error
    resource = describe(app)
    audit.record(session, caller, "app.create", "app", alias_id, after=resource)
    return resource


def list_apps(session: Session, page: Page) -> dict[str, Any]:
    """Return a page of all apps, the newest first."""
    return list_page(session, select(App), page, [App.id], describe)


def get_app(session: Session, alias_id: str) -> dict[str, Any]:
    """Return one app.

    Raises
    ------
    errors.NotFound
    """
    return describe(find_app(session, alias_id))


def enabled_app_id(session: Session, alias_id: str) -> int | None:
    """Return the id of an enabled app, None where there is none."""
    return session.scalar(select(App.id).where(App.alias_id == alias_id, App.status == 1))


def enabled_alias(session: Session, app_id: int) -> str | None:
    """Return the alias of an enabled app, None where there is none."""
    return session.scalar(select(App.alias_id).where(App.id == app_id, App.status == 1))


def patch_app(
    session: Unit, caller: Caller, alias_id: str, changes: Mapping[str, Any], if_match: str | None
) -> dict[str, Any]:
    """Change an app; a disabled one (`status` 0) is refused by the next request of any function.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    errors.Conflict
        `app.last_admin`
    """
    app = lock_app(session, alias_id)
    before = describe(app)
    check_if_match(if_match, before)
    if all(before[name] == value for name, value in changes.items()):
        return before
    if changes.get("status") == 0:
        keep_an_admin(session, _credential_ids(session, app))
    for name, value in changes.items():
        setattr(app, _COLUMNS[name], value)
    app.update_by = caller.credential_id
    session.flush()
    after = describe(app)
    audit.record(session, caller, "app.update", "app", alias_id, before=before, after=after)
    return after


def delete_app(
    session: Unit,
    caller: Caller,
    alias_id: str,
    if_match: str | None,
    owned: Owned,
    forget: Forget | None = None,
) -> None:
    """Delete an app with its credentials, secrets and data keys.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    errors.Conflict
        `app.owns_resources` naming what it owns, `app.last_admin`
    """
    from chalicelib.core.keys.data_keys import DataKey

    app = lock_app(session, alias_id)
    before = describe(app)
    check_if_match(if_match, before)
    if kinds := owned(session, app.id):
        raise Conflict(
            "The app still owns something; delete that first.",
            code="app.owns_resources",
            extensions={"owns": kinds},
        )
    keep_an_admin(session, _credential_ids(session, app))
    for model in (AppCredential, AppSecret, DataKey):
        for row in session.scalars(select(model).where(model.app_id == app.id)):
            session.delete(row)
    if forget is not None:
        forget(session, app.id)
    # The rows above refer to this one.
    session.flush()
    session.delete(app)
    audit.record(session, caller, "app.delete", "app", alias_id, before=before)


def _credential_ids(session: Session, app: App) -> list[int]:
    return list(session.scalars(select(AppCredential.id).where(AppCredential.app_id == app.id)))


def ensure_first_admin(session: Unit, environment: Mapping[str, str] = os.environ) -> str | None:
    """Create the app `admin` with one admin credential in a database that has no app.

    Parameters
    ----------
    environment
        Where HOTPLUG_ADMIN_SECRET_HASH (hex SHA-256) and HOTPLUG_ADMIN_API_KEY are set, that hash is stored: the
        secret was made elsewhere and never comes here.

    Returns
    -------
    `apiKey:apiSecret`, to be shown once; None where nothing was created or the secret is known elsewhere.

    Raises
    ------
    ValueError
        The two settings do not hold.
    """
    given = _given_admin(environment)
    if session.scalar(select(App.id).limit(1)) is not None:
        return None
    nobody = Caller(0, FIRST_ADMIN, 0, "admin", "migrate")
    try:
        # A savepoint: of several that start at once one wins, and the others' units go on.
        with session.begin_nested():
            create_app(session, nobody, FIRST_ADMIN, {"name": "Administration", "platReleaseAuth": 7})
    except Conflict:
        return None
    made = add_credential(session, nobody, FIRST_ADMIN, role="admin", label="first admin")
    if given is None:
        return f"{made.api_key}:{made.api_secret}"
    row = session.scalars(select(AppCredential).where(AppCredential.api_key == made.api_key)).one()
    row.api_key, row.secret_hash = given
    return None


def _given_admin(environment: Mapping[str, str]) -> tuple[str, bytes] | None:
    api_key = environment.get("HOTPLUG_ADMIN_API_KEY", "")
    secret_hash = environment.get("HOTPLUG_ADMIN_SECRET_HASH", "")
    if not api_key and not secret_hash:
        return None
    if not re.fullmatch(rf"[!-9;-~]{{1,{API_KEY_LIMIT}}}", api_key):
        raise ValueError(
            f"HOTPLUG_ADMIN_API_KEY: 1 to {API_KEY_LIMIT} visible ASCII characters without a colon"
        )
    if not re.fullmatch(r"[0-9a-fA-F]{64}", secret_hash):
        raise ValueError("HOTPLUG_ADMIN_SECRET_HASH: the SHA-256 of the secret as 64 hexadecimal digits")
    return api_key, bytes.fromhex(secret_hash)
