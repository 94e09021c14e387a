"""The Lambda service of the local stack: every function's pool, and the two ways to invoke."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path

from infra.functions import Function, FunctionTable
from infra.local.environment import Environment, Host, InitFailed, function_arn
from infra.local.invocation import (
    MAX_EVENT_PAYLOAD,
    MAX_PAYLOAD,
    Invocation,
    InvocationRefused,
    Outcome,
)
from infra.local.pool import EnvironmentInfo, Pool, Scaling

# All functions together: one machine runs them, and a process takes 40 to 100 MB. Free environments give way first.
MAX_ENVIRONMENTS = 32
HOUSEKEEPING_S = 2

# After an error Lambda repeats an asynchronous invocation twice, one and two minutes later.
ASYNC_RETRY_DELAYS_S = (60.0, 120.0)

_TENANT = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
LOG_LIMIT = 16 * 1024 * 1024


class LambdaService:
    """Invokes functions.

    Asynchronous invocations are kept in memory: unlike Lambda's own queue they do not survive the stack.
    """

    def __init__(
        self,
        table: FunctionTable,
        host: Host,
        logs: Path,
        scaling: Callable[[Function], Scaling],
        *,
        retry_delays_s: tuple[float, ...] = ASYNC_RETRY_DELAYS_S,
    ) -> None:
        self._host = host
        self._retry_delays_s = retry_delays_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._pools: dict[str, Pool] = {}
        for function in table.functions:
            log_file = _rotated(logs / f"{function.name}.log")
            self._pools[function.name] = Pool(function, scaling(function), host, log_file, self._make_room)

    async def start(self) -> None:
        """Start what is kept warm.

        Raises
        ------
        InitFailed
        """
        await asyncio.gather(*(pool.warm() for pool in self._pools.values()))
        self._background(self._housekeeping())

    async def close(self) -> None:
        """End all environments."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    async def invoke(self, name: str, invocation: Invocation) -> Outcome:
        """Run a function and wait for its outcome.

        Raises
        ------
        InvocationRefused
            The function does not exist, the tenant or the payload does not fit, or no environment came free.
        """
        pool = self.admit(name, invocation, MAX_PAYLOAD)
        return await pool.invoke(invocation)

    def submit(self, name: str, invocation: Invocation) -> None:
        """Run a function some time soon; after an error, again.

        Raises
        ------
        InvocationRefused
            As `invoke`, but never for want of an environment.
        """
        pool = self.admit(name, invocation, MAX_EVENT_PAYLOAD)
        self._background(self._run_event(pool, invocation))

    def environments(self, name: str) -> list[EnvironmentInfo]:
        """Return the environments of a function.

        Raises
        ------
        KeyError
        """
        return self._pools[name].infos()

    def find(self, pid: int) -> Environment | None:
        """Return the environment whose process has this id."""
        for pool in self._pools.values():
            for environment in pool.environments:
                if environment.pid == pid:
                    return environment
        return None

    def busy(self) -> bool:
        """Return whether any invocation runs or waits."""
        return any(pool.busy() for pool in self._pools.values())

    def admit(self, name: str, invocation: Invocation, limit: int) -> Pool:
        """Return the function's pool, if it may be invoked so with a payload of at most `limit` bytes.

        Raises
        ------
        InvocationRefused
        """
        pool = self._pools.get(name)
        if pool is None:
            message = f"Function not found: {function_arn(name)}"
            raise InvocationRefused(404, "ResourceNotFoundException", message, Type="User")
        size = len(invocation.payload)
        if size > limit:
            message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
            raise InvocationRefused(413, "RequestTooLargeException", message, Type="User")
        _check_tenant(pool.function, invocation.tenant)
        return pool

    async def _run_event(self, pool: Pool, invocation: Invocation) -> None:
        for delay in (*self._retry_delays_s, None):
            try:
                outcome = await pool.invoke(invocation)
                if outcome.error is None:
                    return
            except InvocationRefused as refusal:
                self._host.log.warning("%s: %s", pool.function.name, refusal.message)
            if delay is None:
                self._host.log.error("%s: event %s given up", pool.function.name, invocation.request_id)
                return
            await asyncio.sleep(delay)

    def _make_room(self) -> None:
        while sum(len(pool.environments) for pool in self._pools.values()) >= MAX_ENVIRONMENTS:
            candidates = [(pool, pool.oldest_idle()) for pool in self._pools.values()]
            resting = [(pool, environment) for pool, environment in candidates if environment is not None]
            if not resting:
                return  # all are at work: better one process too many than an invocation that cannot run
            pool, environment = min(resting, key=lambda pair: pair[1].idle_since)
            pool.end_one(environment)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for pool in self._pools.values():
                pool.end_idle()
                try:
                    await pool.warm()
                except InitFailed as error:
                    self._host.log.error("%s does not start: %s", pool.function.name, error)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def parse_payload(payload: bytes) -> bytes:
    """Return an invocation's payload as Lambda hands it on: `{}` for none.

    Raises
    ------
    InvocationRefused
        It is not JSON.
    """
    if not payload:
        return b"{}"
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as error:
        message = f"Could not parse request body into json: {error}"
        raise InvocationRefused(400, "InvalidRequestContentException", message, Type="User") from None
    return payload


def _check_tenant(function: Function, tenant: str | None) -> None:
    problem = None
    if function.per_tenant and tenant is None:
        problem = (
            "The invoked function is enabled with tenancy configuration. "
            "Add a valid tenant ID in your request and try again."
        )
    elif not function.per_tenant and tenant is not None:
        problem = (
            "The invoked function is not enabled with tenancy configuration. "
            "Remove the tenant ID from your request and try again."
        )
    elif tenant is not None and not _TENANT.fullmatch(tenant):
        problem = "The tenant ID is not valid."
    if problem is not None:
        raise InvocationRefused(400, "InvalidParameterValueException", problem, Type="User")


def _rotated(path: Path) -> Path:
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path
