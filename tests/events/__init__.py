"""S3 events and SQS messages as AWS sends them; the words in capitals are filled in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

FOLDER = Path(__file__).parent


def load(name: str, **words: str) -> Any:
    """Return the JSON document `name`, its words in capitals replaced."""
    text = (FOLDER / f"{name}.json").read_text()
    for word, value in words.items():
        text = text.replace(word, json.dumps(value)[1:-1])
    return json.loads(text)


def created(bucket: str, key: str, version_id: str | None) -> dict[str, Any]:
    """Return one record of S3's notification of a new object, its key encoded as S3 does."""
    record: dict[str, Any] = load("s3_object_created", BUCKET=bucket)["Records"][0]
    record["s3"]["object"]["key"] = quote_plus(key, safe="/")
    if version_id is None:
        del record["s3"]["object"]["versionId"]
    else:
        record["s3"]["object"]["versionId"] = version_id
    return record


def message(body: Any, message_id: str = "message-1") -> dict[str, Any]:
    """Return an SQS message with a body: text as it is, anything else as JSON."""
    found: dict[str, Any] = load("sqs_message")
    text = body if isinstance(body, str) else json.dumps(body)
    return found | {"messageId": message_id, "body": text}


def batch(*messages: dict[str, Any]) -> dict[str, Any]:
    """Return what Lambda hands to a function of a queue."""
    return {"Records": list(messages)}
