from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.core import guards
from chalicelib.core.errors import Unavailable
from chalicelib.core.executions import LambdaExecutions
from tests.fakes.lambda_api import LambdaApi

ARN = "arn:aws:lambda:us-east-1:123456789012:function:run:1/durable-execution/r/1"
CALLS: dict[str, Callable[[LambdaExecutions], Any]] = {
    "start": lambda executions: executions.start("run:live", "r", {"runId": "r"}),
    "answer": lambda executions: executions.answer("callback", {"action": "resume"}),
    "is_running": lambda executions: executions.is_running(ARN),
}
TRANSIENT = (429, 500, 503)


def named(api: LambdaApi, error: str) -> None:
    api.headers = {"x-amzn-ErrorType": error}
    api.body = b'{"Message":"arn:aws:lambda:internal"}'


def test_an_execution_is_started_by_its_name_and_not_waited_for(api: LambdaApi) -> None:
    api.status, api.body = 202, b""
    CALLS["start"](LambdaExecutions())
    (request,) = api.received
    assert request["path"].startswith("/2015-03-31/functions/run:live/invocations")
    assert request["headers"]["X-Amz-Invocation-Type"] == "Event"
    assert request["headers"]["X-Amz-Durable-Execution-Name"] == "r"
    assert json.loads(request["body"]) == {"runId": "r"}


@pytest.mark.parametrize(("status", "running"), [("RUNNING", True), ("SUCCEEDED", False), ("STOPPED", False)])
def test_an_execution_that_has_not_ended_is_running(api: LambdaApi, status: str, running: bool) -> None:
    api.body = json.dumps({"Status": status}).encode()
    assert CALLS["is_running"](LambdaExecutions()) is running


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("start", "DurableExecutionAlreadyStartedException"),
        ("answer", "CallbackTimeoutException"),
        ("answer", "ResourceNotFoundException"),
        ("is_running", "ResourceNotFoundException"),
    ],
)
def test_what_is_done_already_is_no_failure(api: LambdaApi, call: str, error: str) -> None:
    api.status = 400
    named(api, error)
    assert not CALLS[call](LambdaExecutions())
    assert len(api.received) == 1


@pytest.mark.parametrize("call", sorted(CALLS))
def test_each_call_may_be_sent_again_and_is_once(api: LambdaApi, call: str) -> None:
    """A throttle is the rule where many runs are looked after in a row."""
    api.refusals, api.body = [429], b'{"Status":"RUNNING"}' if call == "is_running" else b""
    api.status = 202 if call == "start" else 200
    CALLS[call](LambdaExecutions())
    first, second = api.received
    assert (first["path"], first["body"]) == (second["path"], second["body"])


@pytest.mark.parametrize("status", TRANSIENT)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_service_that_stays_away_is_asked_twice(api: LambdaApi, call: str, status: int) -> None:
    api.status = status
    named(api, "TooManyRequestsException")
    with pytest.raises(Unavailable) as refused:
        CALLS[call](LambdaExecutions())
    assert (refused.value.code, refused.value.retry_after) == ("run.away", 5)
    assert "internal" not in refused.value.detail
    assert len(api.received) == 2


@pytest.mark.parametrize("call", sorted(CALLS))
def test_nothing_is_called_inside_a_unit_of_work(api: LambdaApi, call: str) -> None:
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        CALLS[call](LambdaExecutions())
    assert api.received == []
