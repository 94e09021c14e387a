"""S3 events behind SQS: deliveries to the registering function, and what its queue gave up."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

from chalicelib.core import telemetry
from chalicelib.core.errors import HotplugError
from chalicelib.plugins import incoming
from chalicelib.plugins.services import plugin_services


def handle(event: dict[str, Any]) -> dict[str, Any]:
    """Register every object that a batch of SQS messages names.

    Returns
    -------
    The partial batch answer: `batchItemFailures` names the messages to deliver again.
    """
    failures = []
    for record in event["Records"]:
        try:
            for key, version_id in objects(record["body"]):
                incoming.register_artifact(plugin_services(), key, version_id)
        except HotplugError as error:
            telemetry.event("plugin.install_deferred", code=error.code, messageId=record["messageId"])
            failures.append({"itemIdentifier": record["messageId"]})
        except Exception as error:  # noqa: BLE001 - one poison message must not acknowledge or block the others
            telemetry.exception("plugin.install_crashed", error, messageId=record["messageId"])
            failures.append({"itemIdentifier": record["messageId"]})
    telemetry.flush()
    return {"batchItemFailures": failures}


def handle_dead_letter(event: dict[str, Any]) -> dict[str, Any]:
    """End the installs whose messages were delivered in vain; a live lease leaves the message for later."""
    for record in event["Records"]:
        for key, version_id in objects(record["body"]):
            ended = incoming.give_up(
                plugin_services(), key, version_id, "Registering failed repeatedly; retry, or upload again."
            )
            telemetry.event("plugin.install_failed", key=key, ended=ended)
    telemetry.flush()
    return {"batchItemFailures": []}


def objects(body: str) -> list[tuple[str, str | None]]:
    """Return (key, version id) of every object in an S3 notification; none for S3's own test message."""
    try:
        document = json.loads(body)
    except ValueError:
        return []
    found = []
    for record in document.get("Records", []) if isinstance(document, dict) else []:
        entry = record.get("s3", {}).get("object", {})
        if "key" in entry:
            # Keys arrive URL-encoded in notifications.
            found.append((unquote_plus(entry["key"]), entry.get("versionId")))
    return found
