"""Running a flow's code: in the runtime function of the app whose code it is, never in this one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.instances import Heartbeat
from chalicelib.core.settings import settings
from chalicelib.plugins import loading
from chalicelib.plugins.services import Services

MAX_TIMEOUT_MS = 20_000
"""What the runtime gives code by the clock; of the processor it gives 10 s (`runtime.code`)."""

# What the runtime adds: a child starts, and locks itself in.
START_MARGIN_MS = 1_000
_FAILED = ("code.failed", "code.crashed", "code.out_of_memory")
_RESULT = ("code.result_invalid", "code.result_too_large")


def run(
    services: Services,
    heartbeat: Heartbeat,
    owner: Caller,
    source: str,
    inputs: Mapping[str, Any],
    *,
    timeout_ms: int = MAX_TIMEOUT_MS,
) -> dict[str, Any]:
    """Return what `main(**inputs)` of a source returned. Not inside a unit.

    Parameters
    ----------
    owner
        Whose code it is: environments are per tenant.
    timeout_ms
        Milliseconds by the clock, at most 20,000.

    Raises
    ------
    errors.UpstreamFailed
        With `error: {code, message}`, the message for the code's author: `code.failed`, `code.crashed`,
        `code.out_of_memory`, `code.result_invalid`, `code.result_too_large`. Or `runtime.failed`.
    errors.UpstreamTimeout
        `code.timeout`, `code.cpu_exhausted` from the runtime; `function.timeout` where it did not answer either.
    errors.Unavailable
        `code.unavailable`: it could not be started.
    errors.HotplugError
        Those of `Functions.invoke`.
    """
    timeout_ms = max(1, min(timeout_ms, MAX_TIMEOUT_MS))
    event = {
        "operation": "code",
        "code": {"source": source, "inputs": dict(inputs)},
        "timeoutMs": timeout_ms,
        "cache": loading.cache_state(services.cache),
    }
    began = datetime.now(UTC)
    with telemetry.operation("code.run") as operation:
        function = settings().runtime_function
        answer = services.functions.invoke(
            function, event, tenant=owner.alias_id, timeout_ms=timeout_ms + START_MARGIN_MS
        )
        operation.note(codeMs=answer.get("durationMs"), startMs=answer.get("loadMs"))
        known = answer.get("scopeVersion")
        heartbeat.beat(
            answer["instanceId"],
            function,
            tenant=owner.alias_id,
            versions={} if known is None else {"plugins": known},
            loaded=answer["loaded"],
            memory_bytes=answer["memoryBytes"],
            seen_at=began,
        )
        if not answer["ok"]:
            raise _problem(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _problem(error: Mapping[str, Any]) -> HotplugError:
    kind, code = str(error["kind"]), str(error["code"])
    # The message may hold what the code works on: it goes to the author, not into our log.
    own = {"code": code, "message": str(error["message"])}
    if code in _FAILED:
        return UpstreamFailed("The code failed.", code=code, extensions={"error": own})
    if code in _RESULT:
        return UpstreamFailed("The code's result cannot be used.", code=code, extensions={"error": own})
    if kind == "timeout":
        return UpstreamTimeout(own["message"], code=code)
    if kind in ("load", "refused"):
        return Unavailable("The code could not be started.", code="code.unavailable", retry_after=2)
    return UpstreamFailed("The runtime failed.", code="runtime.failed")
