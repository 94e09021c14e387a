"""Telling whoever wants to know that a run has ended: a CloudEvent, signed as Standard Webhooks are.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import undefer

from chalicelib.apps import secrets
from chalicelib.apps.models import WEBHOOK_SECRET_NAME, AppSecret
from chalicelib.core import representation, telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import HotplugError, Invalid, Violation
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.flows.runs import resource
from chalicelib.flows.runs.changing import change
from chalicelib.flows.runs.models import FlowRun

if TYPE_CHECKING:
    from chalicelib.core.outbound.app_client import AppHttp

TIMEOUT_S = 10.0
PAUSES_S = (60, 300, 900, 2_100)
"""Between one try and the next: five tries in 56 minutes."""
CONTENT_TYPE = "application/cloudevents+json"


def check(database: DatabaseService, caller: Caller, url: str) -> None:
    """Refuse a URL that could not be told. Whether it may be reached is decided when it is.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`; `run.no_webhook_secret`: nothing to sign with.
    """
    parse_url(url)
    named = select(AppSecret.id).where(
        AppSecret.app_id == caller.app_id, AppSecret.name == WEBHOOK_SECRET_NAME
    )
    with database.reads() as session:
        if session.scalar(named) is None:
            message = "The app has no webhook secret to sign the callback with."
            raise Invalid(
                message,
                code="run.no_webhook_secret",
                errors=[Violation("/callbackUrl", "run.no_webhook_secret", message)],
            )


def deliver(database: DatabaseService, http: AppHttp, run_id: str) -> bool:
    """Make one try for a run that has ended, and note what came of it. Not inside a unit.

    The try is counted before it is made: of two at once only one is, and one that its function does not survive is
    one of the five.

    Returns
    -------
    Whether it was taken: any status from 200 to 299.
    """
    query = select(FlowRun).where(FlowRun.run_id == run_id).options(undefer(FlowRun.result))
    with database.reads() as session:
        row = session.scalars(query).one_or_none()
    if row is None or row.callback_at is None or row.callback_url is None:
        return False
    tries = row.callback_tries + 1
    pause = None if tries > len(PAUSES_S) else timedelta(seconds=PAUSES_S[tries - 1])
    again_at = None if pause is None else datetime.now(UTC) + pause
    due = row.callback_at
    if not database.run(
        lambda session: _change(session, run_id, tries - 1, due, callback_tries=tries, callback_at=again_at)
    ):
        return False
    problem = _send(database, http, row)
    if problem is None and again_at is not None:
        database.run(lambda session: _change(session, run_id, tries, again_at, callback_at=None))
    telemetry.event("run.callback", runId=run_id, tries=tries, isTaken=problem is None, code=problem)
    return problem is None


def _change(session: Unit, run_id: str, tries: int, due: datetime, **values: Any) -> bool:
    """Change a run whose next try is the one that was seen."""
    return change(session, run_id, FlowRun.callback_tries == tries, FlowRun.callback_at == due, **values)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`.

    Parameters
    ----------
    secret
        `whsec_` and the key in base64.
    timestamp
        Seconds since 1970.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def event(row: FlowRun) -> dict[str, Any]:
    """Return the CloudEvent of a run that has ended; its id is the run's, the same for every try."""
    return {
        "specversion": "1.0",
        "id": row.run_id,
        "source": f"/api/v1/flows/{row.flow_id}",
        "type": f"hotplug.run.{row.state}",
        "subject": row.run_id,
        "time": representation.timestamp(row.finished_at),
        "datacontenttype": "application/json",
        "data": resource.run(row),
    }


def _send(database: DatabaseService, http: AppHttp, row: FlowRun) -> str | None:
    """Send the event; return why it was not taken, None where it was."""
    try:
        secret = secrets.reveal(database, row.app_id, WEBHOOK_SECRET_NAME)
        body = json.dumps(event(row), ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = int(time.time())
        answer = http.request(
            "POST",
            str(row.callback_url),
            headers={
                "Content-Type": CONTENT_TYPE,
                "webhook-id": row.run_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(secret, row.run_id, timestamp, body),
            },
            body=body,
            timeout_s=TIMEOUT_S,
        )
    except HotplugError as error:
        return error.code
    return None if 200 <= answer.status < 300 else f"http.{answer.status}"
