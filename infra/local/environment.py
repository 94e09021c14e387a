"""One execution environment: a process running awslambdaric against a Runtime API server of its own.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from uuid import uuid4

from infra.functions import Function
from infra.local import reaper
from infra.local.invocation import MAX_RESPONSE, Invocation, Outcome, failure, timestamp
from infra.local.processes import Children
from infra.local.wire import HttpServer, Request, Response

ACCOUNT = "000000000000"
REGION = "us-east-1"

# Lambda gives an init phase 10 s; several environments that import at once on two slow cores need more.
INIT_TIMEOUT_S = 60

_RUNTIME = "/2018-06-01/runtime"
_ACCEPTED = Response(202, [("Content-Type", "application/json")], b'{"status":"OK"}')

State = Literal["starting", "idle", "busy", "ended"]


@dataclass(frozen=True)
class Host:
    """What every environment of a stack shares.

    Parameters
    ----------
    task_root
        The folder with app.py: Lambda's /var/task.
    variables
        Environment variables of a function beside those that Lambda sets.
    folder
        Where each environment gets its own /tmp.
    """

    task_root: Path
    variables: Callable[[Function, Path], Mapping[str, str]]
    folder: Path
    children: Children
    log: logging.Logger


class InitFailed(Exception):
    """The process did not get as far as asking for its first invocation."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.payload.decode(errors="replace"))
        self.outcome = outcome


class Environment:
    """A process that serves one function, one invocation at a time, and — where it has one — one tenant.

    `on_idle` is called when the runtime asks for work, `on_end` once, when the process is gone.
    """

    def __init__(
        self,
        function: Function,
        tenant: str | None,
        host: Host,
        output: IO[bytes],
        *,
        on_idle: Callable[[Environment], None],
        on_end: Callable[[Environment], None],
    ) -> None:
        self.function = function
        self.tenant = tenant
        self.state: State = "starting"
        self.pid = 0
        self.served = 0
        self.idle_since = time.monotonic()
        self._host = host
        self._output = output
        self._on_idle = on_idle
        self._on_end = on_end
        self._name = uuid4().hex
        self._folder = host.folder / self._name
        self._server = HttpServer(self._serve, max_body=MAX_RESPONSE, log=host.log, keep_alive_s=None)
        self._work: asyncio.Queue[tuple[Invocation, float]] = asyncio.Queue(1)
        self._current: Invocation | None = None
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._result: asyncio.Future[Outcome] = loop.create_future()
        self._watch: asyncio.Task[None] | None = None
        self._init_ms: float | None = None

    async def start(self) -> None:
        """Run the init phase.

        Raises
        ------
        InitFailed
        """
        began = time.perf_counter()
        port = await self._server.start()
        temporary = self._folder / "tmp"
        temporary.mkdir(parents=True)
        command = [sys.executable, "-m", "awslambdaric", self.function.handler]
        process = await self._host.children.spawn(
            command, env=self._variables(port, temporary), cwd=self._host.task_root, output=self._output
        )
        self.pid = process.pid
        self._watch = asyncio.create_task(self._wait_for_end(process))
        if self.state == "ended":  # the stack stopped while the process was being made
            reaper.kill_tree(self.pid)
        try:
            async with asyncio.timeout(INIT_TIMEOUT_S):
                await self._ready
        except TimeoutError:
            self.end()
            outcome = failure("", "Sandbox.Timedout", f"Init timed out after {INIT_TIMEOUT_S:.2f} seconds")
            raise InitFailed(outcome) from None
        self._init_ms = (time.perf_counter() - began) * 1000

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Serve one invocation; timeouts, crashes and errors of the handler are outcomes too."""
        self.state = "busy"
        self.served += 1
        self._result = asyncio.get_running_loop().create_future()
        self._current = invocation
        began = time.perf_counter()
        timeout_s = self.function.timeout_s
        self._work.put_nowait((invocation, time.time() + timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._result
        except TimeoutError:
            self.end()
            outcome = failure(
                invocation.request_id, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds"
            )
            self._write(f"{timestamp()} {invocation.request_id} Task timed out after {timeout_s:.2f} seconds")
        self._report(invocation, began)
        return outcome

    @property
    def returning(self) -> bool:
        """Whether the answer is there but the runtime has not asked for more work yet."""
        return self.state == "busy" and self._current is not None and self._result.done()

    def end(self) -> None:
        """Kill the process and all that it started; `on_end` follows."""
        if self.state != "ended":
            self.state = "ended"
            if self.pid and self._watch is not None and not self._watch.done():
                reaper.kill_tree(self.pid)

    async def wait_ended(self) -> None:
        """Wait until the process and its folder are gone."""
        if self._watch is not None:
            await self._watch
        else:
            await self._server.close()

    def _variables(self, port: int, temporary: Path) -> dict[str, str]:
        function = self.function
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return {
            **self._host.variables(function, self._folder),
            "_HANDLER": function.handler,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d')}/[$LATEST]{self._name}",
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "LAMBDA_TASK_ROOT": str(self._host.task_root),
            "LAMBDA_RUNTIME_DIR": str(Path(sys.executable).parent),
            "TMPDIR": str(temporary),
        }

    async def _wait_for_end(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self._host.children.ended(process.pid)
        killed_by_us = self.state == "ended"
        self.state = "ended"
        reason = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        request_id = self._current.request_id if self._current else ""
        outcome = failure(request_id, "Runtime.ExitError", f"Runtime exited with error: {reason}")
        if not self._ready.done():
            self._ready.set_exception(InitFailed(outcome))
            self._ready.exception()  # a start that was given up reads it no more
        if not self._result.done():
            self._result.set_result(outcome)
        if not killed_by_us:
            self._write(f"{timestamp()} {request_id} {outcome.payload.decode()}")
        await self._server.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
        self._on_end(self)

    async def _serve(self, request: Request) -> Response:
        path = request.target
        if request.method == "GET" and path == f"{_RUNTIME}/invocation/next":
            return await self._next()
        current = self._current
        if request.method == "POST" and path == f"{_RUNTIME}/init/error":
            if not self._ready.done():
                self._ready.set_exception(InitFailed(Outcome("", request.body, "Unhandled")))
            return _ACCEPTED
        if request.method != "POST" or current is None or self._result.done():
            return _refused("InvalidRequestID", "Invalid request ID")
        if path == f"{_RUNTIME}/invocation/{current.request_id}/response":
            if request.too_large:
                self._result.set_result(_too_large(current.request_id))
                return _refused("RequestEntityTooLarge", "Exceeded maximum allowed payload size.", 413)
            self._result.set_result(Outcome(current.request_id, request.body))
            return _ACCEPTED
        if path == f"{_RUNTIME}/invocation/{current.request_id}/error":
            self._result.set_result(Outcome(current.request_id, request.body, "Unhandled"))
            return _ACCEPTED
        return _refused("InvalidRequestID", "Invalid request ID")

    async def _next(self) -> Response:
        self._current = None
        if self.state != "ended":
            self.state = "idle"
            self.idle_since = time.monotonic()
            if self._ready.done():
                self._on_idle(self)
            else:
                self._ready.set_result(None)
        invocation, deadline = await self._work.get()
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(int(deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", function_arn(self.function.name)),
            ("Lambda-Runtime-Trace-Id", invocation.trace_id or _trace_id()),
        ]
        if invocation.tenant is not None:
            headers.append(("Lambda-Runtime-Aws-Tenant-Id", invocation.tenant))
        if invocation.client_context is not None:
            headers.append(("Lambda-Runtime-Client-Context", invocation.client_context))
        return Response(200, headers, invocation.payload)

    def _report(self, invocation: Invocation, began: float) -> None:
        duration = (time.perf_counter() - began) * 1000
        line = f"REPORT RequestId: {invocation.request_id} Duration: {duration:.2f} ms"
        if self._init_ms is not None:
            line += f" Init Duration: {self._init_ms:.2f} ms"
            self._init_ms = None
        self._write(f"{line} Environment: {self._name} Process: {self.pid}")

    def _write(self, line: str) -> None:
        self._output.write(line.encode() + b"\n")


def function_arn(name: str) -> str:
    """Return the ARN of a function of the local stack."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def _trace_id() -> str:
    text = uuid4().hex
    return f"Root=1-{int(time.time()):08x}-{text[:24]};Parent={text[16:]};Sampled=0"


def _refused(code: str, message: str, status: int = 400) -> Response:
    body = f'{{"errorMessage":"{message}","errorType":"{code}"}}'
    return Response(status, [("Content-Type", "application/json")], body.encode())


def _too_large(request_id: str) -> Outcome:
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
    return failure(request_id, "Function.ResponseSizeTooLarge", message)
