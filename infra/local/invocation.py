"""What goes into a function and what comes out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

# Lambda's quotas: 6 MB each way for a synchronous invocation (the answer's envelope adds 100 bytes), 1 MB for
# an asynchronous one. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_PAYLOAD = 6 * 1024 * 1024
MAX_RESPONSE = MAX_PAYLOAD + 100
MAX_EVENT_PAYLOAD = 1024 * 1024


@dataclass(frozen=True)
class Invocation:
    """One call of a function: its JSON text, and the tenant whose environments may serve it."""

    payload: bytes
    tenant: str | None = None
    client_context: str | None = None
    trace_id: str | None = None
    request_id: str = field(default_factory=lambda: str(uuid4()))


@dataclass(frozen=True)
class Outcome:
    """What came back. `error` is the value of X-Amz-Function-Error, None for an ordinary result."""

    request_id: str
    payload: bytes
    error: str | None = None


class InvocationRefused(Exception):
    """Lambda did not run the function. The attributes are those of the service's answer."""

    def __init__(self, status: int, code: str, message: str, **extra: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra


def failure(request_id: str, error_type: str, message: str) -> Outcome:
    """Return the outcome that Lambda itself reports for an environment that gave none."""
    payload = json.dumps(
        {"errorType": error_type, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    )
    return Outcome(request_id, payload.encode(), "Unhandled")


def timestamp() -> str:
    """Return now as `2026-01-31T12:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
