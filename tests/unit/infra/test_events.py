"""What the poller and the schedules hand to functions, and how they read the answers."""

from __future__ import annotations

import pytest

from infra.local.queues import is_done, sqs_record
from infra.local.schedules import rate_seconds, scheduled_event


@pytest.mark.parametrize(
    "result", [b"", b"null", b"{}", b'{"batchItemFailures": []}', b'{"batchItemFailures": null}']
)
def test_no_reported_failure_lets_the_message_be_deleted(result: bytes) -> None:
    assert is_done(result)


@pytest.mark.parametrize(
    "result",
    [
        b'{"batchItemFailures": [{"itemIdentifier": "m-1"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": "stranger"}]}',
        b'{"batchItemFailures": [{}]}',
        b'{"batchItemFailures": "m-1"}',
        b"not json",
    ],
)
def test_any_reported_failure_keeps_the_message(result: bytes) -> None:
    assert not is_done(result)


def test_a_message_becomes_a_record() -> None:
    record = sqs_record(
        {
            "MessageId": "m-1",
            "ReceiptHandle": "h",
            "Body": "{}",
            "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
            "Attributes": {"ApproximateReceiveCount": "2"},
            "MessageAttributes": {"kind": {"StringValue": "a", "DataType": "String"}},
        },
        "installs",
    )
    assert record["messageId"] == "m-1"
    assert record["attributes"] == {"ApproximateReceiveCount": "2"}
    assert record["messageAttributes"] == {"kind": {"stringValue": "a", "dataType": "String"}}
    assert record["eventSourceARN"].endswith(":installs")


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(1 hour)", 3600), ("rate(2 days)", 172800)],
)
def test_rates_are_periods(expression: str, seconds: float) -> None:
    assert rate_seconds(expression) == seconds


@pytest.mark.parametrize(
    "expression", ["", "rate(0 minutes)", "rate(1 second)", "cron(0 12 * * ? *)", "rate(1 minute) "]
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="rates only"):
        rate_seconds(expression)


def test_a_scheduled_event_has_eventbridges_shape() -> None:
    event = scheduled_event("sweep")
    assert event["source"] == "aws.events"
    assert event["resources"][0].endswith(":rule/sweep")
    assert event["detail"] == {}
