"""Named secrets of an app: LLM keys, tool tokens, the webhook secret. Encrypted; shown, if ever, once.

The key is opened before the unit of work begins (it may come from KMS); inside, there is only the row.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chalicelib.apps.models import WEBHOOK_SECRET_NAME, AppSecret
from chalicelib.apps.tenants import find_app, lock_app
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed, Violation
from chalicelib.core.keys.data_keys import open_box
from chalicelib.core.keys.secret_box import SecretBox
from chalicelib.core.outbound.addresses import DEFAULT_PORTS, Endpoint, Target, parse_endpoint, parse_url
from chalicelib.core.representation import check_if_match, timestamp

# All names fit on one page.
MOST_SECRETS = 100
WEBHOOK_SECRET_BYTES = 32


def describe(row: AppSecret) -> dict[str, Any]:
    """Return the resource of a secret: its name, where it may go and when it was written, nothing of its value."""
    return {"name": row.name, "hosts": row.hosts or [], "updatedAt": timestamp(row.updated_at)}


def app_box(database: DatabaseService, alias_id: str) -> tuple[int, SecretBox]:
    """Return (app id, its box). Not inside a unit of work.

    Raises
    ------
    errors.NotFound
    errors.Unavailable
        There is no master key, or it cannot be reached.
    """
    with database.reads() as session:
        app_id = find_app(session, alias_id).id
    return app_id, open_box(database, app_id)


def put_secret(
    session: Unit,
    caller: Caller,
    alias_id: str,
    name: str,
    value: str,
    box: tuple[int, SecretBox],
    if_match: str | None = None,
    hosts: Sequence[str] = (),
) -> dict[str, Any]:
    """Store a secret under a name, replacing what was there.

    Parameters
    ----------
    hosts
        From `checked_hosts`: where it may be sent.
    box
        From `app_box`, opened before this unit.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    errors.Conflict
        `secret.too_many`, or `app.changed` where the alias passed to another app meanwhile.
    """
    app = lock_app(session, alias_id)
    app_id, opened = box
    if app.id != app_id:
        raise Conflict("The app was replaced meanwhile; try again.", code="app.changed")
    row = _lock_secret(session, app_id, name)
    before = None if row is None else describe(row)
    if if_match is not None:
        if before is None:
            raise PreconditionFailed("There is no such secret yet.")
        check_if_match(if_match, before)
    ciphertext = opened.encrypt(value, _place(name))
    if row is None:
        count = session.scalar(select(func.count()).where(AppSecret.app_id == app_id))
        if count is not None and count >= MOST_SECRETS:
            raise Conflict(f"An app has at most {MOST_SECRETS} secrets.", code="secret.too_many")
        row = AppSecret(app_id=app_id, name=name)
        session.add(row)
    row.ciphertext, row.updated_by, row.hosts = ciphertext, caller.credential_id, list(hosts) or None
    session.flush()
    after = describe(row)
    audit.record(session, caller, "secret.put", "secret", f"{alias_id}/{name}", before=before, after=after)
    return after


def new_webhook_secret(
    session: Unit, caller: Caller, alias_id: str, box: tuple[int, SecretBox]
) -> tuple[dict[str, Any], str]:
    """Make a webhook secret in the form of Standard Webhooks and return (resource, secret); it is shown once and
    replaces the one before."""
    secret = "whsec_" + base64.b64encode(os.urandom(WEBHOOK_SECRET_BYTES)).decode()
    stored = put_secret(session, caller, alias_id, WEBHOOK_SECRET_NAME, secret, box)
    return {"updatedAt": stored["updatedAt"]}, secret


def list_secrets(session: Session, alias_id: str) -> dict[str, Any]:
    """Return the names of an app's secrets, one page."""
    query = (
        select(AppSecret)
        .where(AppSecret.app_id == find_app(session, alias_id).id, AppSecret.name != WEBHOOK_SECRET_NAME)
        .order_by(AppSecret.name)
    )
    return {"items": [describe(row) for row in session.scalars(query)], "nextCursor": None}


def delete_secret(session: Unit, caller: Caller, alias_id: str, name: str, if_match: str | None) -> None:
    """Delete a secret.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed
    """
    app = lock_app(session, alias_id)
    row = _lock_secret(session, app.id, name)
    if row is None:
        raise NotFound("There is no such secret.", code="secret.not_found")
    before = describe(row)
    check_if_match(if_match, before)
    session.delete(row)
    audit.record(session, caller, "secret.delete", "secret", f"{alias_id}/{name}", before=before)


def reveal(database: DatabaseService, app_id: int, name: str) -> str:
    """Return a secret's value, for a call that is made on the app's behalf. Not inside a unit of work.

    Raises
    ------
    errors.NotFound
        `secret.not_found`
    errors.Unavailable
        There is no master key, or it cannot be reached.
    """
    with database.reads() as session:
        ciphertext = session.scalar(
            select(AppSecret.ciphertext).where(AppSecret.app_id == app_id, AppSecret.name == name)
        )
    if ciphertext is None:
        raise NotFound(f"The app has no secret named {name}.", code="secret.not_found")
    return open_box(database, app_id).decrypt(ciphertext, _place(name))


def reveal_for(database: DatabaseService, app_id: int, name: str, url: str) -> str:
    """Return a secret's value to be sent to a URL that somebody else than an admin may have chosen. Not inside a unit.

    Raises
    ------
    errors.NotFound, errors.Unavailable
        As `reveal`.
    errors.Invalid
        `http.invalid_url`
    errors.Forbidden
        `secret.other_host`: an admin has not named that host, or not with that port.
    """
    target = parse_url(url)
    with database.reads() as session:
        row = session.execute(
            select(AppSecret.hosts).where(AppSecret.app_id == app_id, AppSecret.name == name)
        ).one_or_none()
    allowed = [parse_endpoint(one) for one in (row.hosts or ())] if row is not None else []
    if row is not None and not any(_leads_to(one, target) for one in allowed):
        raise Forbidden(
            f"The secret {name} may not be sent to that host; an admin names the hosts of a secret.",
            code="secret.other_host",
        )
    return reveal(database, app_id, name)


def _leads_to(named: Endpoint, target: Target) -> bool:
    """Whether a host that an admin named is where a URL leads. One without a port is that of HTTPS: on another port may
    be another server, and without TLS anyone on the way reads along."""
    if named.port is None:
        return (target.scheme, target.host, target.port) == ("https", named.host, DEFAULT_PORTS["https"])
    return named.matches(target.host, target.port)


def checked_hosts(hosts: Sequence[str]) -> list[str]:
    """Return hosts in one spelling.

    Raises
    ------
    errors.Invalid
        `secret.host` with every one that is none.
    """
    found, wrong = [], []
    for place, text in enumerate(hosts):
        try:
            endpoint = parse_endpoint(text)
        except ValueError as error:
            wrong.append(Violation(f"/hosts/{place}", "secret.host", str(error)))
            continue
        found.append(endpoint.host if endpoint.port is None else f"{endpoint.host}:{endpoint.port}")
    if wrong:
        raise Invalid("Not all of these are hosts.", code="secret.host", errors=wrong)
    return sorted(set(found))


def _lock_secret(session: Unit, app_id: int, name: str) -> AppSecret | None:
    query = select(AppSecret).where(AppSecret.app_id == app_id, AppSecret.name == name).with_for_update()
    return session.scalars(query, execution_options={"populate_existing": True}).one_or_none()


def _place(name: str) -> tuple[str, ...]:
    return ("app_secret", name)
