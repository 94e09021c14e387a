"""The local stack: the deployed functions, unchanged, behind an API gateway, S3, SQS and schedules on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from infra.functions import ROOT, Function, function_table
from infra.local.durable import DurableRunner
from infra.local.environment import Host
from infra.local.folder import StateFolder
from infra.local.gateway import Gateway
from infra.local.invocation import Invocation, Outcome
from infra.local.invoke_api import InvokeApi
from infra.local.pool import EnvironmentInfo, Scaling, default_scaling
from infra.local.processes import Children
from infra.local.queues import QueuePoller
from infra.local.schedules import Schedules
from infra.local.service import LambdaService, parse_payload
from infra.local.storage import INSTALL_FUNCTION, MAX_RECEIVES, Storage, function_queues
from infra.local.variables import Shared, function_variables

BUCKET = "hotplug"
DRAIN_S = 5.0
CALL_TIMEOUT_S = 120

T = TypeVar("T")


class StackFailed(RuntimeError):
    """The stack cannot start; the message says why."""


class LocalStack:
    """Runs the stack while the `with` block lasts.

    Parameters
    ----------
    folder
        Where all state lives; it survives a stop and a kill, and one stack at a time may use it.
    database_url
        Default: HOTPLUG_DATABASE_URL, else SQLite in the folder.
    port
        Of the HTTP front; 0 takes a free one.
    api_processes
        How many environments of `api` are kept warm.
    per_endpoint
        True: one function per endpoint, as deployed.
    environment
        Further variables of all trusted functions. HOTPLUG_PRIVATE_ENDPOINTS reaches the runtime functions too.
    runtime_environment
        Further variables of the runtime functions.
    schedules
        Whether schedules fire.
    scaling
        By function name, instead of the default for its kind.
    install_visibility_s, install_max_receives
        Of the install queue; default: six times the timeout of `register`, five receives.
    task_root
        The folder with app.py.

    Attributes
    ----------
    url, s3_endpoint, invoke_endpoint, credentials, database_url, admin_credential, logs_folder
        Set once the stack runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str | None = None,
        port: int = 0,
        api_processes: int = 1,
        per_endpoint: bool = False,
        environment: Mapping[str, str] | None = None,
        runtime_environment: Mapping[str, str] | None = None,
        schedules: bool = True,
        scaling: Mapping[str, Scaling] | None = None,
        install_visibility_s: int | None = None,
        install_max_receives: int = MAX_RECEIVES,
        task_root: Path = ROOT,
    ) -> None:
        self._state = StateFolder(folder)
        self._port = port
        self._api_processes = api_processes
        self._per_endpoint = per_endpoint
        self._environment = dict(environment or {})
        self._runtime_environment = dict(runtime_environment or {})
        self._with_schedules = schedules
        self._scaling = dict(scaling or {})
        self._install_visibility_s = install_visibility_s
        self._install_max_receives = install_max_receives
        self._task_root = task_root.resolve()
        self.database_url = (
            database_url or os.environ.get("HOTPLUG_DATABASE_URL") or f"sqlite:///{self._state.database}"
        )
        self.logs_folder = self._state.logs
        self.admin_credential: str | None = None
        self._log = logging.getLogger(f"hotplug.local.{id(self):x}")
        self._thread: threading.Thread | None = None
        self._children = Children()
        self._storage: Storage | None = None
        self._notified: str | None = None
        self._service: LambdaService | None = None
        self._durable: DurableRunner | None = None
        self._invoke_api: InvokeApi | None = None
        self._gateway: Gateway | None = None
        self._pollers: list[QueuePoller] = []
        self._schedules: Schedules | None = None

    def __enter__(self) -> LocalStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Base URL of the HTTP front, without a final slash."""
        return f"http://127.0.0.1:{_running(self._gateway).port}"

    @property
    def s3_endpoint(self) -> str:
        """Base URL of S3 (and SQS)."""
        return _running(self._storage).url

    @property
    def credentials(self) -> tuple[str, str]:
        """The access key and secret of this stack's S3, SQS and functions."""
        return self._state.storage_credentials()

    @property
    def invoke_endpoint(self) -> str:
        """Base URL of the Invoke API."""
        return _running(self._invoke_api).url

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return _running(self._storage).bucket

    @property
    def storage_pid(self) -> int:
        """Process id of ministack; it is started again when it ends."""
        return _running(self._storage).pid

    @property
    def durable_pid(self) -> int:
        """Process id of the durable execution service; it is started again when it ends."""
        return _running(self._durable).pid

    def client(self, service: str) -> Any:
        """Return a boto3 client for `s3`, `sqs` or `lambda` with the stack's own credentials; the caller closes it."""
        url = self.invoke_endpoint if service == "lambda" else None
        return _running(self._storage).client(service, url=url)

    def queue_url(self, function: str) -> str:
        """Return the URL of the queue that feeds a function."""
        table = self._table
        queue = table.by_name[function].queue
        if queue is None:
            raise KeyError(function)
        return _running(self._storage).queue_url(queue)

    def invoke(self, name: str, payload: object, tenant: str | None = None) -> Outcome:
        """Run a function and wait; `outcome.payload` is JSON text, `outcome.error` None for success.

        Raises
        ------
        InvocationRefused
        """
        invocation = Invocation(parse_payload(json.dumps(payload).encode()), tenant)
        timeout_s = (
            self._table.by_name[name].timeout_s + CALL_TIMEOUT_S if name in self._table.by_name else 60
        )
        return self._call(_running(self._service).invoke(name, invocation), timeout_s)

    def environments(self, name: str) -> list[EnvironmentInfo]:
        """Return the processes that a function has now."""

        async def read() -> list[EnvironmentInfo]:
            return _running(self._service).environments(name)

        return self._call(read())

    def kill_environment(self, pid: int) -> None:
        """Kill the process of an environment (SIGKILL), as a crash would; returns when the stack has noticed.

        Raises
        ------
        KeyError
            No environment has this process.
        """

        async def kill() -> None:
            environment = _running(self._service).find(pid)
            if environment is None:
                raise KeyError(pid)
            os.kill(pid, 9)
            await environment.wait_ended()

        self._call(kill())

    def start(self) -> None:
        """Start everything; returns when the front answers.

        Raises
        ------
        StackFailed, FolderInUse
        """
        self._state.open()
        handler = logging.FileHandler(self._state.logs / "stack.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.addHandler(handler)
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="local-stack", daemon=True)
        self._thread.start()
        try:
            self._call(self._start(), timeout_s=300)
        except BaseException as error:
            self.stop()
            if isinstance(error, Exception):
                raise StackFailed(f"{error}\n(logs: {self.logs_folder})") from error
            raise

    def stop(self) -> None:
        """End everything that was started, in order: the front, the functions, S3 last, so that it saves its state."""
        try:
            if self._thread is not None:
                self._call(self._stop())
        finally:
            self._end_loop()
            for handler in list(self._log.handlers):
                self._log.removeHandler(handler)
                handler.close()
            self._state.close()

    async def _start(self) -> None:
        self._table = await asyncio.to_thread(
            function_table, per_endpoint=self._per_endpoint, task_root=self._task_root
        )
        await self._children.start(self._state.lock)
        await self._start_storage()
        host = Host(
            self._task_root, self._function_variables, self._state.environments, self._children, self._log
        )
        self._service = LambdaService(self._table, host, self._state.logs, self._scaling_of)
        self._durable = self._durable_runner()
        self._invoke_api = InvokeApi(self._service, self._durable, self.credentials, self._log)
        await self._invoke_api.start()
        await self._migrate()
        await self._service.start()
        if self._durable is not None:
            await self._durable.start(self._invoke_api.url)
        self._gateway = Gateway(self._table, self._service, self._state.logs / "gateway.log", self._log)
        for function in self._table.functions:
            if function.kind == "sqs":
                self._pollers.append(QueuePoller(function, self._service, _running(self._storage), self._log))
        scheduled = [function for function in self._table.functions if function.kind == "schedule"]
        self._schedules = Schedules(scheduled, self._service, self._log)
        await self._gateway.start(self._port)
        for poller in self._pollers:
            poller.start()
        if self._with_schedules:
            self._schedules.start()

    async def _start_storage(self) -> None:
        self._storage = Storage(
            self._state.path / "storage",
            self._state.logs / "ministack.log",
            self._state.storage_credentials(),
            self._environment.get("HOTPLUG_BUCKET", BUCKET),
            self._children,
            self._log,
        )
        queues = function_queues(self._table, self._install_visibility_s, self._install_max_receives)
        install = self._table.by_name.get(INSTALL_FUNCTION)
        self._notified = install.queue if install else None
        await self._storage.start(queues, self._notified)

    def _durable_runner(self) -> DurableRunner | None:
        if not any(function.durable for function in self._table.functions):
            return None
        folder, log_file = self._state.path / "durable", self._state.logs / "durable.log"
        variables = _running(self._storage).environment()
        return DurableRunner(self._table, folder, log_file, variables, self._children, self._log)

    async def _migrate(self) -> None:
        if "migrate" not in self._table.by_name:
            return
        outcome = await _running(self._service).invoke("migrate", Invocation(b"{}"))
        answer = json.loads(outcome.payload)
        if outcome.error is not None:
            raise StackFailed(f"migrate failed: {answer.get('errorType')}: {answer.get('errorMessage')}")
        if isinstance(answer, dict) and answer.get("adminCredential"):
            self._state.keep_admin_credential(str(answer["adminCredential"]))
        self.admin_credential = self._state.admin_credential()

    async def _stop(self) -> None:
        for poller in self._pollers:
            poller.stop()
        if self._schedules is not None:
            await self._schedules.close()
        if self._gateway is not None:
            self._gateway.stop_listening()
        if self._service is not None:
            await self._drain(self._service)
        if self._gateway is not None:
            await self._gateway.close()
        if self._durable is not None:
            # Before the functions: their end would count as failed invocations.
            await self._durable.close()
        if self._service is not None:
            await self._service.close()
        if self._invoke_api is not None:
            await self._invoke_api.close()
        if self._storage is not None:
            await self._storage.close()
        await asyncio.gather(*(poller.close() for poller in self._pollers))
        await self._children.close()

    async def _drain(self, service: LambdaService) -> None:
        deadline = self._loop.time() + DRAIN_S
        while service.busy() and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def _scaling_of(self, function: Function) -> Scaling:
        named = self._scaling.get(function.name)
        return named or default_scaling(function, self._api_processes, per_endpoint=self._per_endpoint)

    def _function_variables(self, function: Function, folder: Path) -> dict[str, str]:
        shared = Shared(
            database_url=self.database_url,
            storage=_running(self._storage),
            invoke_url=_running(self._invoke_api).url,
            key_file=self._state.master_key,
            install_queue=self._notified,
            extra=self._environment,
            runtime_extra=self._runtime_environment,
        )
        return function_variables(function, folder, shared)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _end_loop(self) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._thread = None

    def _call(self, work: Coroutine[Any, Any, T], timeout_s: float = CALL_TIMEOUT_S) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(timeout_s)


def _running(part: T | None) -> T:
    if part is None:
        raise RuntimeError("the stack is not running")
    return part
