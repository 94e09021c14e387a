from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.core import functions, guards
from chalicelib.core.errors import HotplugError, TooLarge, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.functions import Functions, LambdaFunctions
from tests.fakes.functions import MemoryFunctions
from tests.fakes.lambda_api import LambdaApi
from tests.ministack import client_environment, free_port


def run(target: Functions, **payload: Any) -> dict[str, Any]:
    return target.invoke("runtime", payload, tenant="acme", timeout_ms=1000)


def test_an_invocation_carries_payload_and_tenant(api: LambdaApi) -> None:
    api.body = b'{"result":{"a":1}}'
    assert run(LambdaFunctions(), action="x") == {"result": {"a": 1}}
    (request,) = api.received
    assert request["path"] == "/2015-03-31/functions/runtime/invocations"
    assert json.loads(request["body"]) == {"action": "x"}
    assert request["headers"]["X-Amz-Tenant-Id"] == "acme"
    assert request["headers"]["X-Amz-Invocation-Type"] == "RequestResponse"


def test_without_a_tenant_none_is_named(api: LambdaApi) -> None:
    LambdaFunctions().invoke("job", {}, tenant=None, timeout_ms=1000)
    assert "X-Amz-Tenant-Id" not in api.received[0]["headers"]


def test_an_asynchronous_invocation_is_queued(api: LambdaApi) -> None:
    api.status, api.body = 202, b""
    LambdaFunctions().invoke_async("job", {"n": 1})
    assert api.received[0]["headers"]["X-Amz-Invocation-Type"] == "Event"


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        ({"errorMessage": "late", "errorType": "Sandbox.Timedout"}, UpstreamTimeout, "function.timeout"),
        ({"errorMessage": "2026 1 Task timed out after 3.00 seconds"}, UpstreamTimeout, "function.timeout"),
        ({"errorMessage": "killed", "errorType": "Runtime.ExitError"}, UpstreamFailed, "function.crashed"),
        ({"errorMessage": "hunter2", "errorType": "KeyError"}, UpstreamFailed, "function.failed"),
        ([], UpstreamFailed, "function.failed"),
    ],
)  # fmt: skip
def test_a_function_that_failed_is_an_upstream_error(
    api: LambdaApi, error: Any, raised: type[HotplugError], code: str
) -> None:
    api.headers, api.body = {"X-Amz-Function-Error": "Unhandled"}, json.dumps(error).encode()
    with pytest.raises(HotplugError) as refused:
        run(LambdaFunctions())
    assert type(refused.value) is raised
    assert refused.value.code == code
    assert "hunter2" not in refused.value.detail


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"{", b"\xff"])
def test_an_answer_that_is_no_object_is_refused(api: LambdaApi, body: bytes) -> None:
    api.body = body
    with pytest.raises(UpstreamFailed) as refused:
        run(LambdaFunctions())
    assert refused.value.code == "function.bad_answer"


@pytest.mark.parametrize(
    ("status", "error_type", "headers", "raised", "code", "retry_after"),
    [
        (429, "TooManyRequestsException", {"Retry-After": "7"}, Unavailable, "function.throttled", 7),
        (429, "TooManyRequestsException", {}, Unavailable, "function.throttled", 1),
        (429, "TooManyRequestsException", {"Retry-After": "99999"}, Unavailable, "function.throttled", 60),
        (502, "EC2ThrottledException", {}, Unavailable, "function.throttled", 1),
        (500, "ServiceException", {}, Unavailable, "function.away", 2),
        (413, "RequestTooLargeException", {}, TooLarge, "function.payload_too_large", None),
        (404, "ResourceNotFoundException", {}, HotplugError, "function.refused", None),
        (403, "AccessDeniedException", {}, HotplugError, "function.refused", None),
    ],
)
def test_every_refusal_of_the_service_has_one_meaning(
    api: LambdaApi,
    status: int,
    error_type: str,
    headers: dict[str, str],
    raised: type[HotplugError],
    code: str,
    retry_after: int | None,
) -> None:
    api.status = status
    api.headers = {"X-Amzn-ErrorType": error_type, **headers}
    api.body = b'{"Message":"arn:aws:lambda:internal"}'
    with pytest.raises(HotplugError) as refused:
        run(LambdaFunctions())
    assert type(refused.value) is raised
    assert (refused.value.code, refused.value.retry_after) == (code, retry_after)
    assert "internal" not in refused.value.detail
    # A plugin has side effects: nothing is sent twice.
    assert len(api.received) == 1


def test_a_function_that_does_not_answer_is_a_timeout_and_runs_once(api: LambdaApi) -> None:
    api.wait_s = 1.5
    with pytest.raises(UpstreamTimeout) as refused:
        run(LambdaFunctions(lambda _: functions.lambda_client(1)))
    assert refused.value.code == "function.timeout"
    assert len(api.received) == 1


def test_a_lost_answer_is_not_repeated(api: LambdaApi) -> None:
    api.hang_up = True
    with pytest.raises(UpstreamFailed) as refused:
        run(LambdaFunctions())
    assert refused.value.code == "function.bad_answer"
    assert len(api.received) == 1


def test_a_service_that_is_away_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in client_environment(f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable) as refused:
        run(LambdaFunctions())
    assert (refused.value.code, refused.value.retry_after) == ("function.away", 2)


@pytest.mark.parametrize(
    ("timeout_ms", "seconds"),
    [(1, 3), (1000, 3), (1001, 5), (10_000, 12), (25_000, 27), (25_001, 62), (900_000, 902)],
)
def test_the_answer_is_awaited_two_seconds_longer_at_least(timeout_ms: int, seconds: int) -> None:
    assert functions.read_timeout(timeout_ms) == seconds


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_a_timeout_is_bounded(timeout_ms: int) -> None:
    with pytest.raises(ValueError, match="an invocation takes"):
        functions.read_timeout(timeout_ms)


def test_one_client_per_read_timeout_is_kept(api: LambdaApi) -> None:
    made: list[int] = []

    def make(seconds: int) -> Any:
        made.append(seconds)
        return functions.lambda_client(seconds)

    target = LambdaFunctions(make)
    for timeout_ms in (1000, 900, 2000, 1000):
        target.invoke("runtime", {}, tenant=None, timeout_ms=timeout_ms)
    assert made == [3, 5]


@pytest.fixture(params=["lambda", "memory"])
def target(request: pytest.FixtureRequest, api: LambdaApi) -> Functions:
    api.status, api.body = 200, b'{"ok":true}'
    if request.param == "lambda":
        return LambdaFunctions()
    return MemoryFunctions(runtime=lambda _: {"ok": True})


CALLS: list[Callable[[Functions, dict[str, Any]], Any]] = [
    lambda f, p: f.invoke("runtime", p, tenant=None, timeout_ms=1000),
    lambda f, p: f.invoke_async("runtime", p),
]


@pytest.mark.parametrize("call", CALLS)
def test_no_invocation_inside_an_open_unit_of_work(target: Functions, call: Any) -> None:
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        call(target, {})


@pytest.mark.parametrize("call", CALLS)
def test_a_payload_that_is_too_large_is_not_sent(target: Functions, call: Any, api: LambdaApi) -> None:
    with pytest.raises(TooLarge) as refused:
        call(target, {"x": "x" * functions.MAX_PAYLOAD_BYTES})
    assert refused.value.code == "function.payload_too_large"
    assert api.received == []


def test_the_fake_runs_handlers_and_queues() -> None:
    def fail(_payload: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("x")

    def expire(_payload: dict[str, Any]) -> dict[str, Any]:
        raise functions.timed_out()

    fake = MemoryFunctions(echo=lambda payload: payload, fail=fail, expire=expire)
    assert fake.invoke("echo", {"a": 1}, tenant="acme", timeout_ms=10) == {"a": 1}
    assert (fake.invocations[0].tenant, fake.invocations[0].timeout_ms) == ("acme", 10)
    for name, raised in (("fail", UpstreamFailed), ("expire", UpstreamTimeout), ("none", HotplugError)):
        with pytest.raises(raised):
            fake.invoke(name, {}, tenant=None, timeout_ms=10)
    fake.invoke_async("echo", {"b": 2})
    assert len(fake.queued) == 1
    fake.run_queued()
    assert fake.queued == [] and fake.invocations[-1].payload == {"b": 2}
