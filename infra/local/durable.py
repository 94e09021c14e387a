"""Durable executions: AWS's local runner in a child process, and the way to it for the Invoke API."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.functions import DURABLE_RETENTION_DAYS, DURABLE_TIMEOUT_S, ROOT, FunctionTable
from infra.local import reaper
from infra.local.environment import ACCOUNT, REGION
from infra.local.invocation import InvocationRefused
from infra.local.pool import DURABLE_WAIT_S
from infra.local.processes import Children, free_port
from infra.local.wire import Request, Response

# The paths of the durable execution API.
PREFIX = "/2025-12-01/"
START_TIMEOUT_S = 30
RESTART_PAUSE_S = 0.5
# A call waits so long for a runner that is being started again before it is refused.
READY_TIMEOUT_S = 15
CALL_TIMEOUT_S = 60
CALL_THREADS = 16
# Above what an invocation can take here: the wait for an environment, its init phase and the function's own limit.
INVOCATION_MARGIN_S = 120
TOKEN_VARIABLE = "DURABLE_RUNNER_TOKEN"
TOKEN_HEADER = "X-Hotplug-Durable-Token"
_JSON = [("Content-Type", "application/json")]


@dataclass(frozen=True)
class RunnerSettings:
    """What the child process is told, beside the token and the credentials in its environment.

    Parameters
    ----------
    store
        Path of the SQLite file.
    endpoint
        URL of the Invoke API.
    functions
        By name, `{}` or `{"DurableConfig": {"ExecutionTimeout": s, "RetentionPeriodInDays": d}}`.
    invocation_timeout_s
        After so long the runner gives an invocation up and starts the next: longer than the Invoke API can take.
    retention_days
        For how long an execution that has ended is kept.
    """

    port: int
    store: str
    endpoint: str
    region: str
    functions: Mapping[str, Any]
    invocation_timeout_s: int
    retention_days: int


class DurableFailed(RuntimeError):
    """The runner does not start."""


class DurableRunner:
    """Runs the durable execution service, and forwards calls to it.

    What it knows is in one SQLite file in `folder`; executions that had not ended go on after a stop and after a kill.

    Parameters
    ----------
    environment
        Variables with the credentials with which it signs its invocations.
    """

    def __init__(
        self,
        table: FunctionTable,
        folder: Path,
        log_file: Path,
        environment: Mapping[str, str],
        children: Children,
        log: logging.Logger,
    ) -> None:
        self.pid = 0
        self._table = table
        self._folder = folder
        self._log_file = log_file
        self._environment = environment
        self._children = children
        self._log = log
        self._token = secrets.token_urlsafe(32)
        self._endpoint = ""
        self._port = 0
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._callers = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="durable")

    async def start(self, endpoint: str) -> None:
        """Start the runner; it invokes functions at `endpoint` at once if executions had not ended.

        Raises
        ------
        DurableFailed
        """
        self._endpoint = endpoint
        self._folder.mkdir(parents=True, exist_ok=True)
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the runner. Its store is written before anything is answered, so there is nothing to wait for."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        process = self._process
        if process is not None:
            if process.returncode is None:
                reaper.kill_tree(process.pid)
                await process.wait()
            self._children.ended(process.pid)
        self._callers.shutdown(wait=False, cancel_futures=True)

    async def begin(self, function: str, name: str, payload: bytes) -> str:
        """Start an execution and return its ARN; the same name with the same payload again returns the same.

        Raises
        ------
        InvocationRefused
            The name is taken with another payload (409), or the runner does not answer (503).
        """
        body = {
            "AccountId": ACCOUNT,
            "FunctionName": function,
            "FunctionQualifier": "$LATEST",
            "ExecutionName": name,
            "ExecutionTimeoutSeconds": DURABLE_TIMEOUT_S,
            "ExecutionRetentionPeriodDays": DURABLE_RETENTION_DAYS,
            "Input": payload.decode(),
        }
        response = await self._call("POST", "/start-durable-execution", json.dumps(body).encode())
        if response.status == 409:
            message = f"Durable execution {name} was already started with another payload"
            raise InvocationRefused(409, "DurableExecutionAlreadyStartedException", message, Type="User")
        if response.status != 201:
            self._log.error("the durable runner answered a start with %s", response.status)
            raise InvocationRefused(500, "ServiceException", "The execution was not started", Type="Server")
        return str(json.loads(response.body)["ExecutionArn"])

    async def forward(self, request: Request) -> Response:
        """Pass a call of the durable execution API on.

        Raises
        ------
        InvocationRefused
            The runner does not answer.
        """
        response = await self._call(request.method, request.target, request.body)
        if response.status < 400:
            return response
        # The runner names the error in the body only; clients read the header.
        try:
            code = str(json.loads(response.body)["Type"])
        except (ValueError, KeyError, TypeError):
            code = "ServiceException"
        return Response(response.status, [*response.headers, ("x-amzn-ErrorType", code)], response.body)

    async def _call(self, method: str, target: str, body: bytes) -> Response:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._ready.wait()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._callers, self._exchange, method, target, body)
        except (OSError, http.client.HTTPException) as error:  # TimeoutError is an OSError
            self._log.warning("the durable runner does not answer: %s", type(error).__name__)
            message = "The durable execution service does not answer"
            raise InvocationRefused(503, "ServiceException", message, Type="Server") from error

    def _exchange(self, method: str, target: str, body: bytes) -> Response:
        with closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_TIMEOUT_S)
        ) as connection:
            connection.request(
                method, target, body, {"Content-Type": "application/json", TOKEN_HEADER: self._token}
            )
            answer = connection.getresponse()
            return Response(answer.status, _JSON, answer.read())

    async def _launch(self) -> None:
        self._port = free_port()
        settings = self._settings()
        with self._log_file.open("ab") as output:
            self._process = await self._children.spawn(
                [sys.executable, "-m", "infra.local.durable_runner", json.dumps(asdict(settings))],
                env=self._variables(),
                cwd=ROOT,
                output=output,
            )
        self.pid = self._process.pid
        await self._wait_listening(self._process)
        self._ready.set()

    def _settings(self) -> RunnerSettings:
        functions = self._table.functions
        config = {"ExecutionTimeout": DURABLE_TIMEOUT_S, "RetentionPeriodInDays": DURABLE_RETENTION_DAYS}
        longest_s = max(function.timeout_s for function in functions)
        return RunnerSettings(
            port=self._port,
            store=str(self._folder / "executions.db"),
            endpoint=self._endpoint,
            region=REGION,
            functions={
                function.name: {"DurableConfig": config} if function.durable else {} for function in functions
            },
            invocation_timeout_s=int(longest_s + DURABLE_WAIT_S + INVOCATION_MARGIN_S),
            retention_days=DURABLE_RETENTION_DAYS,
        )

    def _variables(self) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": path, "LANG": "C.UTF-8", TOKEN_VARIABLE: self._token, **self._environment}

    async def _wait_listening(self, process: asyncio.subprocess.Process) -> None:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline and process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        raise DurableFailed(f"the durable execution service did not start; see {self._log_file}")

    async def _supervise(self) -> None:
        while self._process is not None:
            process = self._process
            await process.wait()
            self._ready.clear()
            self._children.ended(process.pid)
            self._log.error(
                "the durable execution service ended with %s; starting it again", process.returncode
            )
            await asyncio.sleep(RESTART_PAUSE_S)
            try:
                await self._launch()
            except Exception:  # noqa: BLE001 - whatever it was, the next round tries again
                self._log.exception("the durable execution service does not start")
