"""Other functions in memory: each a Python callable, with the failures of Lambda at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chalicelib.core import guards
from chalicelib.core.errors import HotplugError, UpstreamFailed
from chalicelib.core.functions import (
    MAX_ASYNC_PAYLOAD_BYTES,
    MAX_PAYLOAD_BYTES,
    decoded,
    encoded,
    read_timeout,
)

Handler = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Invocation:
    """One call that was made. `timeout_ms` is 0 for an asynchronous one."""

    name: str
    payload: dict[str, Any]
    tenant: str | None
    timeout_ms: int


class MemoryFunctions:
    """`chalicelib.core.functions.Functions` without a server.

    Parameters
    ----------
    handlers
        What each function does. A `HotplugError` that a handler raises is what the caller gets (raise
        `functions.timed_out()` for a timeout); any other exception is a function that failed.

    Asynchronous calls wait in `queued` until `run_queued`.
    """

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = dict(handlers)
        self.invocations: list[Invocation] = []
        self.queued: list[Invocation] = []

    def invoke(
        self, name: str, payload: dict[str, Any], *, tenant: str | None, timeout_ms: int
    ) -> dict[str, Any]:
        guards.forbid_in_unit("lambda")
        read_timeout(timeout_ms)
        sent = json.loads(encoded(payload, MAX_PAYLOAD_BYTES))
        self.invocations.append(Invocation(name, sent, tenant, timeout_ms))
        return decoded(json.dumps(self._run(name, sent)).encode(), "")

    def invoke_async(self, name: str, payload: dict[str, Any]) -> None:
        guards.forbid_in_unit("lambda")
        sent = json.loads(encoded(payload, MAX_ASYNC_PAYLOAD_BYTES))
        self._handler(name)
        self.queued.append(Invocation(name, sent, None, 0))

    def run_queued(self) -> None:
        """Run what was queued so far, in order."""
        waiting, self.queued = self.queued, []
        for call in waiting:
            self.invocations.append(call)
            self._run(call.name, call.payload)

    def _run(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._handler(name)(payload)
        except HotplugError:
            raise
        except Exception as error:
            raise UpstreamFailed("The function failed.", code="function.failed") from error

    def _handler(self, name: str) -> Handler:
        if name not in self.handlers:
            raise HotplugError("There is no such function.", code="function.refused")
        return self.handlers[name]
