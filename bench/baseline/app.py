"""The least that a stack like this one can do: a consumer that copies what was uploaded and inserts a row, and an
endpoint that makes one round trip. No checks, no tenants, no cache."""

from __future__ import annotations

import json
import os
import sqlite3
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus
from uuid import uuid4

from chalice.app import Chalice

from chalicelib.api.endpoint import ENDPOINTS, Endpoint

app = Chalice("baseline", configure_logs=False)
# Run from this folder, chalicelib is the one beside this file; a type checker sees Hotplug's.
ENDPOINTS.append(Endpoint("baseline.get_plugin", "GET", "/api/v1/plugins/{pluginId}"))  # type: ignore[call-arg]


@lru_cache(maxsize=1)
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(
        os.environ["HOTPLUG_DATABASE_URL"].removeprefix("sqlite:///"), isolation_level=None
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


@lru_cache(maxsize=1)
def s3() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}))


@app.route("/api/v1/plugins/{pluginId}", name="baseline_get_plugin")
def get_plugin(pluginId: str) -> dict[str, Any]:
    found = database().execute("SELECT key FROM registered WHERE key = ?", [pluginId]).fetchone()
    return {"pluginId": pluginId, "found": found is not None}


@app.on_sqs_message(queue="hotplug-installs", batch_size=1, name="register")
def register(event: Any) -> None:
    for message in event:
        for record in json.loads(message.body).get("Records", []):
            bucket, entry = os.environ["HOTPLUG_BUCKET"], record["s3"]["object"]
            key = unquote_plus(entry["key"])
            source = {"Bucket": bucket, "Key": key, "VersionId": entry["versionId"]}
            s3().copy_object(Bucket=bucket, Key=f"plugins/{uuid4().hex}.zip", CopySource=source)
            database().execute("INSERT INTO registered (key) VALUES (?)", [key])


@app.lambda_function(name="migrate")
def migrate(event: Any, context: Any) -> dict[str, Any]:
    database().execute("CREATE TABLE IF NOT EXISTS registered (key TEXT PRIMARY KEY)")
    return {}
