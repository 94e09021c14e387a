"""S3 events behind SQS: deliveries to the registering function, and what its queue gave up.

A message says where to look, nothing more. It may come twice, late, out of order or forged: objects of another bucket
are nothing to us, and `incoming` decides by the key and by its own rows what an object is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.core import telemetry
from chalicelib.core.errors import HotplugError
from chalicelib.core.settings import settings
from chalicelib.plugins import incoming
from chalicelib.plugins.services import plugin_services

GAVE_UP = "Registering failed repeatedly; retry, or upload again."


def handle(event: dict[str, Any]) -> dict[str, Any]:
    """Register every object that a batch of SQS messages names.

    Returns
    -------
    The partial batch answer: `batchItemFailures` names the messages to deliver again.
    """
    return _answer(event, _register)


def handle_dead_letter(event: dict[str, Any]) -> dict[str, Any]:
    """End the installs whose messages were delivered in vain; a live lease leaves the message for later."""
    return _answer(event, _give_up)


def _register(key: str, version_id: str | None) -> None:
    # As at the beginning of a request: what this process tells the runtime it knows must be true.
    plugin_services().cache.refresh()
    incoming.register_artifact(plugin_services(), key, version_id)


def _give_up(key: str, version_id: str | None) -> None:
    ended = incoming.give_up(plugin_services(), key, version_id, GAVE_UP)
    telemetry.event("plugin.install_failed", key=key, ended=ended)


def _answer(event: dict[str, Any], work: Callable[[str, str | None], None]) -> dict[str, Any]:
    failures = [
        {"itemIdentifier": record["messageId"]} for record in event["Records"] if not _done(record, work)
    ]
    telemetry.flush()
    return {"batchItemFailures": failures}


def _done(message: dict[str, Any], work: Callable[[str, str | None], None]) -> bool:
    """Work on every object of a message: one that fails must not keep the others from being tried."""
    done = True
    for key, version_id in objects(message["body"]):
        try:
            work(key, version_id)
        except HotplugError as error:
            telemetry.event("plugin.install_deferred", code=error.code, messageId=message["messageId"])
            done = False
        except Exception as error:  # noqa: BLE001 - one poison object must not acknowledge or block the others
            telemetry.exception("plugin.install_crashed", error, messageId=message["messageId"])
            done = False
    return done


def objects(body: str) -> list[tuple[str, str | None]]:
    """Return (key, version id) of every object that an S3 notification says was created in our bucket.

    None for S3's own test message and for whatever is no notification: it would be no better the next time.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return [found for record in _members(document, "Records", list) if (found := _created(record))]


def _created(record: Any) -> tuple[str, str | None] | None:
    s3 = _members(record, "s3", dict)
    if _members(s3.get("bucket"), "name", str) != settings().bucket:
        return None
    if not _members(record, "eventName", str).startswith("ObjectCreated:"):
        return None
    found = s3.get("object")
    # Keys arrive URL-encoded in notifications.
    key = unquote_plus(_members(found, "key", str))
    return (key, _members(found, "versionId", str) or None) if key else None


def _members(value: Any, name: str, kind: type[Any]) -> Any:
    """Return a member of a JSON object, an empty value of `kind` where it has none of that kind."""
    member = value.get(name) if isinstance(value, dict) else None
    return member if isinstance(member, kind) else kind()
