"""A small application with every kind of function, which shows what the local stack gives it."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

from chalice import Rate, Response
from chalice.app import Chalice

from chalicelib.api.endpoint import ENDPOINTS, Endpoint

app = Chalice("probe")
app.api.binary_types.append("multipart/form-data")
served = 0


def endpoint(name: str, method: str, path: str, timeout_s: int = 10, **options: Any) -> Any:
    narrowed = os.environ.get("HOTPLUG_ENDPOINT")
    if narrowed not in (None, name):
        return lambda handler: handler
    ENDPOINTS.append(Endpoint(name, method, path, timeout_s))
    return app.route(path, methods=[method], name=name, **options)


def record(name: str, value: Any) -> None:
    with (Path(os.environ["PROBE_RECORD"]) / name).open("a") as file:
        file.write(json.dumps(value) + "\n")


@endpoint("probe.who", "GET", "/api/v1/who")
def who() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "function": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
        "endpoint": os.environ.get("HOTPLUG_ENDPOINT"),
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "remainingMs": app.lambda_context.get_remaining_time_in_millis(),
        "requestId": app.lambda_context.aws_request_id,
    }


@endpoint("probe.echo", "POST", "/api/v1/echo", content_types=["text/plain", "multipart/form-data"])
def echo() -> dict[str, Any]:
    event = app.current_request.to_original_event()
    if event["isBase64Encoded"]:
        event["body"] = f"{len(base64.b64decode(event['body']))} bytes"
    return event


@endpoint("probe.item", "GET", "/api/v1/items/{itemId}")
def item(itemId: str) -> dict[str, str]:
    return {"itemId": itemId}


@endpoint("probe.special", "GET", "/api/v1/items/special")
def special() -> dict[str, str]:
    return {"special": "yes"}


@endpoint("probe.binary", "GET", "/api/v1/binary")
def binary() -> Response:
    return Response(body=bytes(range(256)), headers={"Content-Type": "application/octet-stream"})


@endpoint("probe.sleep", "POST", "/api/v1/sleep/{milliseconds}", content_types=["text/plain"])
def sleep(milliseconds: str) -> dict[str, int]:
    time.sleep(int(milliseconds) / 1000)
    return {"pid": os.getpid()}


@endpoint("probe.crash", "POST", "/api/v1/crash", content_types=["text/plain"])
def crash() -> None:
    os._exit(3)


@endpoint("probe.large", "GET", "/api/v1/large")
def large() -> Response:
    return Response(body="x" * (7 * 1024 * 1024), headers={"Content-Type": "text/plain"})


@app.on_sqs_message(queue="probe-install", batch_size=1, name="register")
def register(event: Any) -> dict[str, Any]:
    failures = []
    for message in event.to_dict()["Records"]:
        body = json.loads(message["body"])
        if "Records" not in body:
            continue  # S3's test event
        key = body["Records"][0]["s3"]["object"]["key"]
        record("register", {"key": key, "count": message["attributes"]["ApproximateReceiveCount"]})
        if "raise" in key:
            raise RuntimeError("cannot register this")
        if "poison" in key:
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}


@app.on_sqs_message(queue="probe-install-dead", batch_size=1, name="register_dead_letter")
def register_dead_letter(event: Any) -> None:
    for message in event.to_dict()["Records"]:
        record("dead", {"key": json.loads(message["body"])["Records"][0]["s3"]["object"]["key"]})


@app.schedule(Rate(1, Rate.MINUTES), name="tick")
def tick(event: Any) -> None:
    record("tick", event.to_dict())


def runtime_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    global served
    served += 1
    if event.get("fail"):
        raise ValueError("as asked")
    if event.get("exit") is not None:
        os._exit(event["exit"])
    time.sleep(event.get("sleepMs", 0) / 1000)
    return {
        "pid": os.getpid(),
        "tenant": context.tenant_id,
        "served": served,
        "environ": dict(os.environ),
        "echo": event.get("echo"),
        "fill": "x" * event.get("fill", 0),
    }


runtime = app.lambda_function(name="runtime")(runtime_handler)
runtime_network = app.lambda_function(name="runtime_network")(runtime_handler)


@app.lambda_function(name="migrate")
def migrate(event: dict[str, Any], context: Any) -> dict[str, Any]:
    marker = Path(os.environ["PROBE_RECORD"]) / "migrated"
    if marker.exists():
        return {}
    marker.touch()
    return {"adminCredential": "probe-key:probe-secret"}
