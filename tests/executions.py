"""Durable executions within this process, by the official runner's own parts: what Lambda does outside of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from chalicelib.core.errors import Unavailable
from chalicelib.flows import services as flow_services
from chalicelib.flows.runs import durable


@contextmanager
def running(handler: Callable[[Any, Any], Any]) -> Iterator[DurableFunctionTestRunner]:
    """A runner for one handler; it leaves nothing open."""
    runner = DurableFunctionTestRunner(durable_execution(handler), poll_interval=0.01)
    try:
        yield runner
    finally:
        scheduler = runner._scheduler
        runner.close()  # type: ignore[no-untyped-call]
        # It stops its loop, and leaves it open.
        scheduler._thread.join(5)
        scheduler._loop.close()


class InProcess:
    """`Executions` that run `handler(payload, context)`; waiting for a retry takes no time.

    Attributes
    ----------
    is_away
        Set it to refuse everything, as a service that cannot be reached.
    lost
        ARNs of executions that count as ended.
    started, answered
        What was asked, in that order.
    """

    def __init__(self, handler: Callable[[dict[str, Any], Any], Any]) -> None:
        self._opened = ExitStack()
        self._runner = self._opened.enter_context(running(handler))
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self.is_away = False
        self.lost: set[str] = set()
        self.started: list[str] = []
        self.answered: list[str] = []

    def start(self, function: str, name: str, payload: dict[str, Any]) -> None:
        self._check()
        with self._lock:
            self.started.append(name)
            if name not in self._names:
                self._names[name] = self._runner.run_async(input=json.dumps(payload), execution_name=name)

    def answer(self, callback_id: str, payload: dict[str, Any]) -> None:
        self._check()
        self.answered.append(callback_id)
        self._runner.send_callback_success(callback_id, json.dumps(payload).encode())

    def is_running(self, arn: str) -> bool:
        self._check()
        return arn in self._names.values() and arn not in self.lost

    def wait(self, name: str, seconds: float = 30) -> Any:
        """Wait for the end of an execution and return its result."""
        return self._runner.wait_for_result(self._names[name], timeout=int(seconds))

    def close(self) -> None:
        self._opened.close()

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable("away", code="run.away")


@contextmanager
def running_flows() -> Iterator[InProcess]:
    """Let this process's durable runs be executed here."""
    made = InProcess(
        lambda payload, context: durable.handle(flow_services.flow_services(), payload["runId"], context)
    )
    flow_services.use(made)
    try:
        yield made
    finally:
        flow_services.use(None)
        made.close()
