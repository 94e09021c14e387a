"""The durable execution service, in a process of its own: AWS's local runner, put together as its `WebRunner` does it.

Started by `infra.local.durable` as `python -m infra.local.durable_runner SETTINGS` (JSON). Whoever does not know the
stack's token is refused: any user of the machine, and any page in a browser, reaches the port.
"""

from __future__ import annotations

import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

from aws_durable_execution_sdk_python_testing.checkpoint.processor import CheckpointProcessor
from aws_durable_execution_sdk_python_testing.child_dispatcher import (
    EndpointChildDispatcher,
    FunctionConfigs,
)
from aws_durable_execution_sdk_python_testing.execution import Execution
from aws_durable_execution_sdk_python_testing.invoker import LambdaInvoker, read_timeout_for
from aws_durable_execution_sdk_python_testing.scheduler import Scheduler
from aws_durable_execution_sdk_python_testing.stores.sqlite import SQLiteExecutionStore
from aws_durable_execution_sdk_python_testing.web.server import RequestHandler, WebServer, WebServiceConfig
from aws_durable_execution_sdk_python_testing.worker.registry import ExecutionRegistry

from infra.local.durable import TOKEN_HEADER, TOKEN_VARIABLE, RunnerSettings
from infra.local.durable_executor import DurableExecutor

CACHED_EXECUTIONS = 64
LOG_LEVEL = 30  # warnings: on INFO each request and each checkpoint is a line
DAY_S = 86_400


class CachedStore(SQLiteExecutionStore):
    """The runner's SQLite store with the executions of the moment in memory, as its in-memory store has them.

    Every change is written before it is answered. Only reading is spared: the runner reads the whole execution several
    times for each checkpoint, which made the three-hundredth step cost a tenth of a second.
    """

    def __init__(self, db_path: Path) -> None:
        super().__init__(db_path)
        self._cached: OrderedDict[str, Execution] = OrderedDict()
        self._lock = threading.Lock()

    def save(self, execution: Execution) -> None:
        """Write an execution, and keep it in memory while it goes on."""
        super().save(execution)
        arn = execution.durable_execution_arn
        with self._lock:
            if execution.is_complete:
                self._cached.pop(arn, None)
            else:
                self._keep(arn, execution)

    def load(self, execution_arn: str) -> Execution:
        """Return an execution.

        Raises
        ------
        ResourceNotFoundException
        """
        with self._lock:
            known = self._cached.get(execution_arn)
            if known is None:
                known = super().load(execution_arn)
                if not known.is_complete:
                    self._keep(execution_arn, known)
            else:
                self._cached.move_to_end(execution_arn)
            return known

    def _keep(self, arn: str, execution: Execution) -> None:
        self._cached[arn] = execution
        self._cached.move_to_end(arn)
        while len(self._cached) > CACHED_EXECUTIONS:
            self._cached.popitem(last=False)


class GuardedHandler(RequestHandler):
    """Answers only who sends the stack's token."""

    # Head and body in two packets would wait for each other's acknowledgement: 40 ms a checkpoint.
    disable_nagle_algorithm = True
    wbufsize = -1

    def _handle_request(self, method: str) -> None:
        token = os.environ[TOKEN_VARIABLE]  # not an argument: every user reads those
        if not hmac.compare_digest(self.headers.get(TOKEN_HEADER, "").encode(), token.encode()):
            self.send_error(403)
            return
        super()._handle_request(method)


def forget_ended(connection: sqlite3.Connection, retention_days: int) -> None:
    """Delete the executions that ended more than so many days ago."""
    with connection:
        connection.execute(
            "DELETE FROM executions WHERE end_timestamp < ?", (time.time() - retention_days * DAY_S,)
        )


def serve(settings: RunnerSettings) -> None:
    """Recover, and serve until the process is ended."""
    store = CachedStore.create_and_initialize(settings.store)
    # Stays open: the store opens and closes a connection for each access, and the last one that closes writes the whole
    # log back and waits for the disk, 40 ms a step.
    connection = sqlite3.connect(settings.store)
    forget_ended(connection, settings.retention_days)
    scheduler = Scheduler()
    read_timeout_s = read_timeout_for(settings.invocation_timeout_s)
    invoker = LambdaInvoker.create(settings.endpoint, settings.region, read_timeout_seconds=read_timeout_s)
    processor = CheckpointProcessor(store, scheduler)
    executor = DurableExecutor(
        store=store,
        scheduler=scheduler,
        invoker=invoker,
        checkpoint_processor=processor,
        invocation_timeout_seconds=settings.invocation_timeout_s,
        registry=ExecutionRegistry(store, scheduler),
        child_dispatcher=EndpointChildDispatcher(
            FunctionConfigs.from_dict(settings.functions),
            invoker.unmarked_client_for,
            invocation_timeout_seconds=settings.invocation_timeout_s,
        ),
        region=settings.region,
    )
    processor.add_execution_observer(executor)
    processor.set_chained_invoke_preflight(executor.preflight_chained_invoke)
    scheduler.start()  # type: ignore[no-untyped-call]
    server = WebServer(WebServiceConfig("127.0.0.1", settings.port, LOG_LEVEL), executor)
    server.RequestHandlerClass = GuardedHandler
    executor.recover()
    server.serve_forever()


if __name__ == "__main__":
    serve(RunnerSettings(**json.loads(sys.argv[1])))
