"""Sending to the install queue, against moto's SQS: what arrives, and what is raised when nothing can."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from chalicelib.core import guards
from chalicelib.core.errors import Unavailable
from chalicelib.core.guards import NetworkInsideUnit
from chalicelib.events.registration import objects
from chalicelib.plugins import incoming, queue
from tests.http import settings


@pytest.fixture
def install_queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), settings(HOTPLUG_DATABASE_URL="sqlite:////none", HOTPLUG_BUCKET="hotplug"):
        queue._client.cache_clear()
        yield boto3.client("sqs").create_queue(QueueName="installs")["QueueUrl"]
    queue._client.cache_clear()


def received(url: str) -> list[str]:
    messages = boto3.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [message["Body"] for message in messages.get("Messages", [])]


@pytest.mark.parametrize("key", ["incoming/tasks/x.zip", "incoming/drop/a/x+y %41 é.zip"])
def test_an_announcement_arrives_as_s3_would_send_it(install_queue: str, key: str) -> None:
    queue.send(install_queue, incoming.announcement("hotplug", key, "v1"))
    (body,) = received(install_queue)
    assert json.loads(body)["Records"][0]["s3"]["bucket"]["name"] == "hotplug"
    assert [(one[-2], one[-1]) for one in objects(body)] == [(key, "v1")]


def test_a_queue_that_is_gone_is_unavailable(install_queue: str) -> None:
    boto3.client("sqs").delete_queue(QueueUrl=install_queue)
    with pytest.raises(Unavailable) as raised:
        queue.send(install_queue, {})
    assert raised.value.code == "queue.away"
    assert install_queue not in raised.value.detail


def test_nothing_is_sent_inside_a_unit(install_queue: str) -> None:
    with guards.unit(), pytest.raises(NetworkInsideUnit):
        queue.send(install_queue, {})
    assert received(install_queue) == []
