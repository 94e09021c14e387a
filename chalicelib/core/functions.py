"""Invoking another function of this deployment: the runtime functions that run plugins, and what runs later.

An invocation is never repeated from here: plugins have side effects, and a second run that nobody asked for
is worse than an error. So the client has no retries, and it waits two seconds longer than the work may take,
for the answer of a function that ended just in time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Protocol

from chalicelib.core import guards
from chalicelib.core.aws_clients import new_client
from chalicelib.core.errors import HotplugError, TooLarge, Unavailable, UpstreamFailed, UpstreamTimeout

CONNECT_TIMEOUT_S = 3
READ_MARGIN_S = 2
MAX_TIMEOUT_MS = 900_000
# Lambda's limits for one invocation; an answer may be as large as a request.
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
MAX_ASYNC_PAYLOAD_BYTES = 256 * 1024
# A client has one read timeout and takes 5 ms to make, so timeouts are rounded up to a few. 27 s serves the
# longest plugin run (25 s) and still leaves the API time to answer before the gateway's 29 s.
READ_TIMEOUTS_S = (3, 5, 8, 12, 17, 22, 27, 62, 122, 302, 902)

_THROTTLED = frozenset({"TooManyRequestsException", "EC2ThrottledException", "ThrottlingException"})


class Functions(Protocol):
    """Other functions, as the domains see them. tests/fakes/functions.py implements it in memory."""

    def invoke(
        self, name: str, payload: dict[str, Any], *, tenant: str | None, timeout_ms: int
    ) -> dict[str, Any]:
        """Run a function and return its answer. Not inside a unit of work.

        Parameters
        ----------
        tenant
            alias_id for a function whose environments are per tenant, None for any other.
        timeout_ms
            How long the work may take; the caller waits two seconds longer at least.

        Raises
        ------
        errors.UpstreamFailed
            `function.failed`, `function.crashed` (it was killed, or ran out of memory),
            `function.bad_answer`.
        errors.UpstreamTimeout
            `function.timeout`: it may still be running, and what it did so far is done.
        errors.Unavailable
            `function.throttled`, `function.away`: it did not run.
        errors.TooLarge
            `function.payload_too_large`: it did not run.
        """

    def invoke_async(self, name: str, payload: dict[str, Any]) -> None:
        """Queue a function to run later, at least once; raises as `invoke` does when it cannot be queued."""


class LambdaFunctions:
    """`Functions` over Lambda's Invoke API, or the local stack's. Threads may share it.

    Parameters
    ----------
    make_client
        Makes a Lambda client with the given read timeout in seconds.
    """

    def __init__(self, make_client: Callable[[int], Any] | None = None) -> None:
        self._make_client = make_client or lambda_client
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()

    def invoke(
        self, name: str, payload: dict[str, Any], *, tenant: str | None, timeout_ms: int
    ) -> dict[str, Any]:
        parameters = {} if tenant is None else {"TenantId": tenant}
        answer = self._call(
            read_timeout(timeout_ms),
            FunctionName=name,
            InvocationType="RequestResponse",
            Payload=encoded(payload, MAX_PAYLOAD_BYTES),
            **parameters,
        )
        return decoded(answer["Payload"], str(answer.get("FunctionError", "")))

    def invoke_async(self, name: str, payload: dict[str, Any]) -> None:
        self._call(
            READ_TIMEOUTS_S[0],
            FunctionName=name,
            InvocationType="Event",
            Payload=encoded(payload, MAX_ASYNC_PAYLOAD_BYTES),
        )

    def _call(self, read_timeout_s: int, **parameters: Any) -> dict[str, Any]:
        from botocore import exceptions as boto

        guards.forbid_in_unit("lambda")
        with self._lock:
            if read_timeout_s not in self._clients:
                self._clients[read_timeout_s] = self._make_client(read_timeout_s)
            client = self._clients[read_timeout_s]
        try:
            answer: dict[str, Any] = client.invoke(**parameters)
            if parameters["InvocationType"] == "RequestResponse":
                with answer["Payload"] as body:
                    answer["Payload"] = body.read(MAX_PAYLOAD_BYTES + 1)
        except boto.ClientError as error:
            raise _refusal(error) from error
        except boto.ReadTimeoutError as error:
            raise timed_out() from error
        except (boto.ConnectionClosedError, boto.ResponseStreamingError, boto.IncompleteReadError) as error:
            # The request had been sent: whether the function ran is not known.
            raise UpstreamFailed("The function's answer was lost.", code="function.bad_answer") from error
        except (boto.HTTPClientError, boto.ConnectionError, boto.NoCredentialsError) as error:
            raise away() from error
        return answer


def lambda_client(read_timeout_s: int, attempts: int = 1) -> Any:
    """Return a new Lambda client that waits `read_timeout_s` for an answer, and sends a request once: what a plugin
    does must not be done twice. More `attempts` are for calls that can be repeated."""
    return new_client(
        "lambda",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        # A long answer on a silent connection is dropped by NAT after 350 s without it.
        tcp_keepalive=True,
    )


def read_timeout(timeout_ms: int) -> int:
    """Return the read timeout in seconds for work of `timeout_ms`, at least 2 s longer."""
    if not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise ValueError(f"an invocation takes 1 to {MAX_TIMEOUT_MS} ms")
    return next(seconds for seconds in READ_TIMEOUTS_S if seconds * 1000 >= timeout_ms + READ_MARGIN_S * 1000)


def encoded(payload: dict[str, Any], limit: int) -> bytes:
    """Return a payload as Lambda takes it, refused above `limit` bytes."""
    data = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    if len(data) > limit:
        raise TooLarge(f"The function takes at most {limit} bytes.", code="function.payload_too_large")
    return data


def decoded(data: bytes, function_error: str) -> dict[str, Any]:
    """Return a function's answer, or raise what its error means.

    Parameters
    ----------
    function_error
        The `X-Amz-Function-Error` header: empty, `Unhandled` or `Handled`.
    """
    if len(data) > MAX_PAYLOAD_BYTES:
        raise UpstreamFailed("The function's answer is too large.", code="function.bad_answer")
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise UpstreamFailed("The function's answer is not JSON.", code="function.bad_answer") from error
    if function_error:
        raise _function_error(answer if isinstance(answer, dict) else {})
    if not isinstance(answer, dict):
        raise UpstreamFailed("The function's answer is not an object.", code="function.bad_answer")
    return answer


def timed_out() -> UpstreamTimeout:
    return UpstreamTimeout("The function did not answer in time.", code="function.timeout")


def away() -> Unavailable:
    return Unavailable("The function cannot be reached.", code="function.away", retry_after=2)


def _function_error(answer: dict[str, Any]) -> HotplugError:
    """The message of the error stays in that function's log: it may hold a payload or an internal address."""
    error_type, message = str(answer.get("errorType", "")), str(answer.get("errorMessage", ""))
    if "Task timed out" in message or error_type == "Sandbox.Timedout":
        return timed_out()
    if error_type.startswith("Runtime."):
        return UpstreamFailed("The function was ended while it ran.", code="function.crashed")
    return UpstreamFailed("The function failed.", code="function.failed")


def _refusal(error: Any) -> HotplugError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    if code in _THROTTLED or status == 429:
        seconds = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
        retry_after = min(int(seconds), 60) if seconds.isascii() and seconds.isdigit() else 1
        return Unavailable(
            "Too many functions run already; try again.", code="function.throttled", retry_after=retry_after
        )
    if code == "RequestTooLargeException" or status == 413:
        return TooLarge("The function does not take so much.", code="function.payload_too_large")
    if status >= 500:
        return away()
    return HotplugError("The function service refused a request of this service.", code="function.refused")
